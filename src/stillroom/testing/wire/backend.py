"""One physical connection to PostgreSQL, spoken to in messages."""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import asyncpg

from stillroom.errors import StillroomError
from stillroom.testing.engines.drivers import own_connections
from stillroom.testing.wire.messages import (
    REPORTED,
    Message,
    Messages,
    error_fields,
    parameter_status,
    query,
    row,
    text,
)


class BackendError(StillroomError):
    """Report what PostgreSQL said to a statement of the sandbox's own."""

    def __init__(self, body: bytes) -> None:
        """Take the body of the ErrorResponse."""
        super().__init__(error_fields(body).get("M", "?"))
        self.body = body


@dataclass
class Answer:
    """What came back until the ReadyForQuery."""

    error: bytes | None = None
    tags: list[str] = field(default_factory=list[str])
    is_suspended: bool = False
    rows: list[list[str | None]] = field(default_factory=list[list[str | None]])


class Backend(asyncio.Protocol):
    """Send messages to a server and hand each answer to whom it belongs, in order."""

    def __init__(self, connection: Any) -> None:
        self.greeting = b""
        """The parameters that the server has reported when the connection started."""
        self._driver_connection = connection
        self._transport: Any = connection._transport
        self._messages = Messages()
        self._pending: deque[Pending] = deque()
        self._unsent: list[bytes] = []
        self._posted: list[Pending] = []
        self._is_sending = False
        self._rest: Callable[[Message], None] = _drop
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hang_up = select.poll()
        self._hang_up.register(self._transport.get_extra_info("socket"), _HANG_UP)

    @classmethod
    async def open(cls, **arguments: Any) -> "Backend":
        """Connect as asyncpg does, so that each way to authenticate is known, and take over."""
        with own_connections():
            connection = await cast("Any", asyncpg).connect(**arguments)
        backend = cls(connection)
        backend._transport.set_protocol(backend)
        settings = connection.get_settings()
        reported = {name: getattr(settings, name, None) for name in REPORTED}
        backend.greeting = b"".join(
            parameter_status(name, value) for name, value in reported.items() if value is not None
        )
        return backend

    def send(self, data: bytes, sink: Callable[[Message], None] | None = None) -> "Pending":
        """Send messages that end with one ReadyForQuery; what comes back goes to the sink.

        Raises ConnectionResetError when the connection has ended: no answer would ever come.
        """
        pending = self.send_later(data, sink)
        self.flush()
        return pending

    def send_later(self, data: bytes, sink: Callable[[Message], None] | None = None) -> "Pending":
        """Do what `send` does, with what is sent next: nobody waits for the answer."""
        self.check()
        pending = Pending(sink, self.ended.get_loop())
        self._pending.append(pending)
        self._unsent.append(data)
        return pending

    def post(self, data: bytes) -> None:
        """Do what `send_later` does; `take_posted` tells later how it went."""
        self._posted.append(self.send_later(data))

    def take_posted(self) -> "list[Pending]":
        """Return what was posted since the last call."""
        posted, self._posted = self._posted, []
        return posted

    async def settle(self) -> None:
        """Return when all that was posted is answered. Raises BackendError where it has failed."""
        self.flush()
        for pending in self.take_posted():
            if (answer := await pending.done).error is not None:
                raise BackendError(answer.error)

    @property
    def has_failed(self) -> bool:
        """Say whether anything that was posted is known to have failed."""
        return any(pending.error is not None for pending in self._posted)

    @property
    def is_gone(self) -> bool:
        """Say whether the connection has ended, be it that its loop has not been told yet."""
        return self._transport.is_closing() or bool(self._hang_up.poll(0))

    def check(self) -> None:
        """Raise ConnectionResetError when the connection has ended."""
        if self.ended.done():
            raise ConnectionResetError(_CLOSED)

    def write(self, data: bytes) -> None:
        """Send more of what is under way: the data of a COPY.

        What is sent in one turn of the loop goes out at once, for each packet wakes the server.
        """
        self._unsent.append(data)
        self.flush()

    def write_at_once(self, data: bytes) -> None:
        """Do the same in this turn; called with the loop halted."""
        self._unsent.append(data)
        self.send_out()

    def flush(self) -> None:
        """Send what was to be sent later, too."""
        if self._unsent and not self._is_sending:
            self._is_sending = True
            asyncio.get_running_loop().call_soon(self.send_out)

    def send_out(self) -> None:
        """Send all of it now."""
        self._is_sending = False
        unsent, self._unsent = self._unsent, []
        self._transport.write(b"".join(unsent))

    def pass_on(self, sink: Callable[[Message], None]) -> None:
        """Hand each message that answers nothing of the backend's own to the sink."""
        self._rest = sink

    async def query(self, sql: str) -> list[list[str | None]]:
        """Run statements; return the rows. Raises BackendError."""
        pending = self.send(query(sql))
        answer = await pending.done
        if answer.error is not None:
            raise BackendError(answer.error)
        return answer.rows

    async def cancel(self) -> None:
        """Ask the server to cancel what runs; return when it has passed that on."""
        cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._driver_connection._cancel(cancelled)

    async def close(self) -> None:
        """Say goodbye, and return when the connection has ended."""
        if not self._transport.is_closing():
            self.write(Message(b"X").encode())
            self.send_out()
        self._transport.close()
        await self.ended

    def data_received(self, data: bytes) -> None:
        """Route each message to the first of those who wait."""
        for message in self._messages.feed(data):
            if not self._pending:
                self._rest(message)
            elif self._pending[0].take(message):
                self._pending.popleft()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Tell all who wait."""
        for pending in self._pending:
            pending.lose()
        self._pending.clear()
        self._driver_connection.terminate()  # asyncpg's own object learns it only so
        self.ended.set_result(None)


def _drop(_message: Message) -> None:
    """Leave a notice aside."""


class Pending:
    """What was sent and is being answered."""

    def __init__(
        self, sink: Callable[[Message], None] | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.done: asyncio.Future[Answer] = loop.create_future()
        self._sink = sink
        self._answer = Answer()

    @property
    def error(self) -> bytes | None:
        """Return the error that has come, if one has."""
        return self._answer.error

    def take(self, message: Message) -> bool:
        """Take a message; say whether it was the last."""
        answer = self._answer
        match message.kind:
            case b"Z":
                if not self.done.done():
                    self.done.set_result(answer)
                return True
            case b"E":
                answer.error = answer.error or message.body
            case b"C":
                answer.tags.append(text(message.body))
            case b"s":
                answer.is_suspended = True
            case b"D" if self._sink is None:
                answer.rows.append(row(message.body))
            case _:
                pass
        if self._sink is not None:
            self._sink(message)
        return False

    def lose(self) -> None:
        """Note that no answer comes any more."""
        if self.done.done():
            return
        if self._answer.error is not None:
            self.done.set_result(self._answer)
        else:
            self.done.set_exception(ConnectionResetError(_CLOSED))
            self.done.exception()  # not everybody waits for it


_HANG_UP = getattr(select, "POLLRDHUP", 0)
"""The event that comes before what was sent last is read; not every system has it."""

_CLOSED = (
    "PostgreSQL has closed the connection that the tests share, with all that they wrote. Look at "
    "the server's log for the reason, and run the tests again"
)
