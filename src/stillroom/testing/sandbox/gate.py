"""Who may speak on the one connection of a sandbox: one at a time, and one that writes at most."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from stillroom.testing.refusal import Refusal
from stillroom.testing.sandbox.session import Session


class Gate:
    """Give turns in the order in which they were asked for.

    While one connection has uncommitted writes (the owner) all others wait, so none reads what
    PostgreSQL would not show it yet, and savepoints never interleave. Only a plain read passes an
    owner that has locked rows and written nothing. Who waits for an owner that
    its own task holds would wait for ever: that is a Refusal at once, any other one when an owner
    has not ended after `wait` seconds. A long queue of those who come and go is waited for.
    """

    def __init__(self, wait: float) -> None:
        self.wait = wait
        self.owner: Session | None = None
        self.busy: Session | None = None
        self._is_closed = False
        self._waiting: deque[_Waiting] = deque()
        self._free: asyncio.Future[None] | None = None
        self._owned_since = 0.0

    @property
    def has_waiting(self) -> bool:
        """Say whether anybody has asked for a turn and not had it."""
        return bool(self._waiting)

    @asynccontextmanager
    async def turn(
        self, session: Session, *, passes_owner: bool = False, only_reads: bool = False
    ) -> AsyncGenerator[None]:
        """Wait for the session's turn, which lasts as long as the block."""
        await self._enter(_Waiting(session, passes_owner, only_reads))
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def closed(self) -> Generator[None]:
        """Give no turns as long as the block lasts; who has one keeps it."""
        self._is_closed = True
        try:
            yield
        finally:
            self._is_closed = False
            self._wake()

    async def free(self) -> None:
        """Return when no turn is taken, of a gate that is closed."""
        if self.busy is not None:
            self._free = asyncio.get_running_loop().create_future()
            await self._free

    def own(self, session: Session) -> None:
        """Note that the session, whose turn it is, has uncommitted writes."""
        if self.owner is None:
            self.owner = session
            session.has_written = False
            self._owned_since = asyncio.get_running_loop().time()
        session.last_write = session.statement

    def release(self, session: Session) -> None:
        """Note that the session has no uncommitted writes any more."""
        if self.owner is session:
            self.owner = None

    def withdraw(self, session: Session, error: Exception) -> bool:
        """Let a session that waits go on with an error; say whether it waited."""
        for waiting in self._waiting:
            if waiting.session is session and not waiting.turn.done():
                waiting.turn.set_exception(error)
                return True
        return False

    def dismiss(self, error: Exception) -> None:
        """Let all who wait go on with an error."""
        for waiting in self._waiting:
            if not waiting.turn.done():
                waiting.turn.set_exception(error)

    async def _enter(self, waiting: "_Waiting") -> None:
        if not self._waiting and self._may_run(waiting):
            self.busy = waiting.session
            return
        self._refuse_deadlock(waiting)
        self._waiting.append(waiting)
        self._give_up_after(self.wait, waiting)
        try:
            self._wake()
            await waiting.turn
        finally:
            waiting.timer.cancel()
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _leave(self) -> None:
        self.busy = None
        if self._free is not None:
            self._free.set_result(None)
            self._free = None
        self._wake()

    def _may_run(self, waiting: "_Waiting") -> bool:
        return not (self._is_closed or self.busy or self._blocker(waiting))

    def _blocker(self, waiting: "_Waiting") -> Session | None:
        """Return the owner that somebody waits for, whoever speaks just now."""
        owner = self.owner
        if owner is None or owner is waiting.session or waiting.passes_owner:
            return None
        return None if waiting.only_reads and not owner.has_written else owner

    def _wake(self) -> None:
        for waiting in list(self._waiting):
            if waiting.turn.done():
                continue
            if self._may_run(waiting):
                self.busy = waiting.session
                waiting.turn.set_result(None)
                return
            try:
                self._refuse_deadlock(waiting)
            except Refusal as refusal:
                waiting.turn.set_exception(refusal)

    def _refuse_deadlock(self, waiting: "_Waiting") -> None:
        owner, session = self._blocker(waiting), waiting.session
        if owner is None or owner.is_ending:
            return
        if session.never_waits:
            raise Refusal(
                f"{session.statement!r} asks for rows that nobody has locked, while connection "
                f"{owner.number} has uncommitted work ({owner.last_write!r}). The sandbox cannot "
                "tell which rows are locked"
            )
        if owner.task is not None and owner.task is session.task:
            raise Refusal(_DEADLOCK.format(**self._names(waiting, owner)), _FORGOTTEN)

    def _give_up_after(self, seconds: float, waiting: "_Waiting") -> None:
        waiting.timer = asyncio.get_running_loop().call_later(seconds, self._give_up, waiting)

    def _give_up(self, waiting: "_Waiting") -> None:
        if waiting.turn.done():
            return
        owner = self._blocker(waiting)
        held = asyncio.get_running_loop().time() - self._owned_since
        if owner is None:
            self._give_up_after(self.wait, waiting)  # a statement still runs, as it may
        elif held < self.wait:
            self._give_up_after(self.wait - held, waiting)
        else:
            refusal = _TIMEOUT.format(seconds=self.wait, **self._names(waiting, owner))
            waiting.turn.set_exception(Refusal(refusal))

    def _names(self, waiting: "_Waiting", owner: Session) -> dict[str, object]:
        return {
            "waiter": waiting.session.number,
            "statement": waiting.session.statement,
            "owner": owner.number,
            "write": owner.last_write,
        }


class _Waiting:
    def __init__(self, session: Session, passes_owner: bool, only_reads: bool) -> None:
        self.session = session
        self.passes_owner = passes_owner
        self.only_reads = only_reads
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle


_DEADLOCK = (
    "Connection {waiter} runs {statement!r} while connection {owner} has uncommitted writes "
    "({write!r}), and the same task holds both: neither could ever go on. On PostgreSQL the "
    "statement would not see those writes, or wait for them for ever"
)
_TIMEOUT = (
    "Connection {waiter} has waited {seconds:g} s to run {statement!r}: connection {owner} has "
    "uncommitted writes ({write!r}) and neither commits nor rolls back. On PostgreSQL the "
    "statement would not see those writes"
)
_FORGOTTEN = "Was a commit() forgotten? Commit first."
