"""Connections of asyncpg that end inside the process, and belong to no event loop.

asyncpg builds a connection on a transport of its event loop. Here the transport is an object in
memory whose other end is the sandbox, in a loop that all share; the event loop that asyncpg sees is
whichever one runs. So a pool lives on from test to test, each of which may have another loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from types import FunctionType
from typing import Any, Protocol

from stillroom.testing.interrupts import UNDIVIDED, defer_alarms
from stillroom.testing.loop import SharedLoop
from stillroom.testing.wire.messages import READY

WIRE = "/wire/.s.PGSQL.5432"
"""The address that asyncpg gets for a wire: one of a socket, at which nothing listens."""


class Peer(Protocol):
    """The other end of a wire; called in its own loop."""

    def receive(self, data: bytes, task: "asyncio.Task[Any] | None") -> None:
        """Take bytes that a task of the application sent."""
        ...

    def take_at_once(self, data: bytes) -> bytes | None:
        """Take bytes, where that needs nobody else; return what of the answer is known, else None.

        Called in the application's thread, while the shared loop stands still and no answer is
        outstanding.
        """
        ...

    def hang_up(self) -> None:
        """End the connection."""
        ...


class Wire(asyncio.Transport):
    """Carry bytes between a protocol of asyncpg, in any loop, and a peer in the shared one."""

    def __init__(
        self,
        protocol: Any,
        shared: SharedLoop,
        accept: Callable[["Wire"], Peer],
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._peer: Peer
        self._closing = False
        self._is_idle = False  # every answer has come
        self._delivered: list[bytes] = []
        self._size = 0  # of what was delivered, in bytes
        self._received: deque[bytes] = deque()
        self._is_paused = False
        shared.call_soon(self._connect, accept)

    def write(self, data: Any) -> None:
        """Send, in the name of the running task."""
        sent = bytes(data)
        with suppress(RuntimeError):  # a connection is ended outside of any loop too
            self._loop = asyncio.get_running_loop()
            if self._is_idle:
                defer_alarms()
                answer = self._shared.at_once(self._peer.take_at_once, sent)
                if answer is not None:
                    self._is_idle = False
                    if answer:
                        self._loop.call_soon(self._receive, answer)
                    return
        self._is_idle = False
        self._shared.call_soon(self._peer_receive, sent, _task())

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(bytes(data) for data in list_of_data))

    def deliver(self, data: bytes) -> None:
        """Hand a piece of an answer to the application, by the next flush; called by the peer."""
        self._delivered.append(data)
        self._size += len(data)
        if self._size > _ENOUGH:
            self.flush()

    def flush(self) -> None:
        """Wake the application with all that was delivered; called by the peer."""
        if data := self._take_delivered():
            with suppress(RuntimeError):  # the loop has been closed: nobody waits there
                self._shared.answer(self._loop, self._receive, data)

    def lose(self) -> None:
        """Tell the application that the connection has ended; called by the peer.

        Who is woken by the last answer finds the connection ended already.
        """
        last = self._take_delivered()
        if self._loop.is_running():
            self._shared.answer(self._loop, self._receive_last, last)
        else:
            self._lose()

    def close(self) -> None:
        """End the connection from the application's side."""
        self.abort()

    def abort(self) -> None:
        """End the connection from the application's side, at once."""
        if self._closing:
            return
        self._shared.call_soon(self._hang_up)
        try:
            asyncio.get_running_loop().call_soon(self._lose)
        except RuntimeError:
            self._lose()

    def is_closing(self) -> bool:
        """Say whether the connection has ended."""
        return self._closing

    def pause_reading(self) -> None:
        """Keep what comes until reading is resumed."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Hand out what came meanwhile."""
        self._is_paused = False
        asyncio.get_running_loop().call_soon(self._drain)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Accept any amount."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002
        """Return the default: there is no socket."""
        return default

    def _connect(self, accept: Callable[["Wire"], Peer]) -> None:
        self._peer = accept(self)

    def _peer_receive(self, data: bytes, task: "asyncio.Task[Any] | None") -> None:
        self._peer.receive(data, task)

    def _hang_up(self) -> None:
        self._peer.hang_up()

    def _take_delivered(self) -> bytes:
        data = b"".join(self._delivered)
        self._delivered.clear()
        self._size = 0
        return data

    def _receive(self, data: bytes) -> None:
        self._is_idle = data[-6:-1] == READY
        self._received.append(data)
        self._drain()

    def _receive_last(self, data: bytes) -> None:
        if data:
            self._receive(data)
        self._lose()

    def _drain(self) -> None:
        while self._received and not self._is_paused and not self._closing:
            self._protocol.data_received(self._received.popleft())

    def _lose(self) -> None:
        if not self._closing:
            self._closing = True
            with suppress(RuntimeError) if self._loop.is_closed() else nullcontext():
                self._protocol.connection_lost(None)  # who waits in a closed loop is not told


UNDIVIDED.update(it.__code__ for it in vars(Wire).values() if isinstance(it, FunctionType))


class AnyLoop:
    """Stand for whichever event loop runs, and connect by wires."""

    def __init__(self, shared: SharedLoop, accept: Callable[[Wire], Peer]) -> None:
        self._shared = shared
        self._accept = accept

    def __getattr__(self, name: str) -> Any:
        """Return what the running loop has under that name."""
        return getattr(asyncio.get_running_loop(), name)

    def create_future(self) -> "asyncio.Future[Any]":
        """Make a future of the running loop; asyncpg keeps this method for good."""
        return asyncio.get_running_loop().create_future()

    def get_debug(self) -> bool:
        """Say no: a stack for each connection helps nobody here."""
        return False

    def is_closed(self) -> bool:
        """Say no: the shared loop runs as long as the run."""
        return False

    async def create_unix_connection(
        self, protocol_factory: Callable[[], Any], _path: str, **_: Any
    ) -> tuple[Wire, Any]:
        """Connect to the peer, whatever the path."""
        protocol = protocol_factory()
        wire = Wire(protocol, self._shared, self._accept)
        protocol.connection_made(wire)
        return wire, protocol


_ENOUGH = 65536
"""How much of an answer is handed on before its end, in bytes."""


@contextmanager
def in_the_name_of(task: "asyncio.Task[Any] | None") -> Generator[None]:
    """Let the running task count as another one, which waits for it and can do nothing else."""
    running = asyncio.current_task()
    token = _names.set(None if running is None or task is None else (running, task))
    try:
        yield
    finally:
        _names.reset(token)


def _task() -> "asyncio.Task[Any] | None":
    try:
        running, named = asyncio.current_task(), _names.get()
    except RuntimeError:
        return None
    return named[1] if named is not None and named[0] is running else running


# The running task is named too, because tasks that it starts inherit the context: nobody waits for
# those.
_names: ContextVar["tuple[asyncio.Task[Any], asyncio.Task[Any]] | None"] = ContextVar(
    "stillroom_names", default=None
)
