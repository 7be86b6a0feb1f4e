"""All of a test's connections in one transaction of PostgreSQL, which is rolled back.

One physical connection lives in an event loop of its own. What the application takes for
connections are logical ones (`connection.py`), whose COMMIT releases a savepoint.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from stillroom.errors import DatabaseUnavailableError
from stillroom.testing.cost import Cost
from stillroom.testing.refusal import Refusal
from stillroom.testing.sandbox.catalog import WRITERS, Writers, read_checks, read_sequences
from stillroom.testing.sandbox.connection import LogicalConnection
from stillroom.testing.sandbox.connections import Connections
from stillroom.testing.sandbox.gate import Gate
from stillroom.testing.sandbox.levels import Levels
from stillroom.testing.sandbox.parameters import Values, apply
from stillroom.testing.sandbox.session import Savepoint, Session
from stillroom.testing.sandbox.temporary import TABLES, TemporaryTables
from stillroom.testing.wire.backend import Backend, BackendError, Pending
from stillroom.testing.wire.messages import query
from stillroom.testing.wire.transport import Wire


class Sandbox:
    """Own the physical connection, the levels of rollback and the logical connections.

    Everything runs in that loop. A level is entered when a statement first
    needs it, so a test that uses no database costs nothing.
    """

    def __init__(
        self, connect_arguments: dict[str, Any], *, wait: float = 3.0, cost: Cost | None = None
    ) -> None:
        self.gate = Gate(wait)
        self.connections = Connections()
        self.refusals: list[Refusal] = []
        self.commits = 0
        self.temporary = TemporaryTables()
        self.drawer: Session | None = None  # who drew the last number of a sequence
        self.writers = Writers()
        self.backend: Backend
        self._cost = cost or Cost()
        self._connect_arguments = connect_arguments
        self._levels = Levels()
        self._startup: Values = {}
        self._applied: Values = {}
        self._kept_applied: Values = {}
        self._checks: str | None = None  # what a COMMIT checks; None when it has to be read
        self._row_locker: Session | None = None

    @property
    def is_at_rest(self) -> bool:
        """Say whether no level is open: the database is as it was in the beginning."""
        return not self._levels

    @property
    def depth(self) -> int:
        """Return how many levels are wanted."""
        return len(self._levels.wanted)

    async def open(self) -> None:
        """Connect, and read what the sandbox has to know of the database."""
        self.backend = await Backend.open(**self._connect_arguments)
        await self.read_writers()
        self._checks = await read_checks(self.backend)

    async def close(self) -> None:
        """Hang up; PostgreSQL rolls back."""
        await self.connections.abandon()
        if not self.backend.ended.done():
            await self.backend.settle()
        await self.backend.close()

    def accept(self, wire: Wire) -> LogicalConnection:
        """Take a new connection of the application."""
        connection = LogicalConnection(self, wire, self.connections.next_number)
        self.connections.add(connection)
        for depth in range(self.depth):  # it comes to those that are open with nothing set
            connection.session.enter(depth)
        return connection

    async def stand_at(self, levels: Sequence[str]) -> None:
        """Leave the levels that are not named, undoing their work; the others are entered later."""
        wanted = ("run", *levels)
        stay = self._levels.stay(wanted)
        has_locks = self.connections.may_hold_locks(stay)
        self._levels.wanted = wanted
        if self.backend.ended.done():
            await self._reopen()
        kept = self._levels.kept(wanted)
        has_levels = kept < len(self._levels)
        with self.gate.closed():  # who comes now, comes after it
            if has_levels:
                await self.backend.settle()
            if has_levels or has_locks:
                await self._end_statements(kept if has_levels else len(wanted), stay)
            if has_levels:
                self._leave(kept)
                await self._note_rollback(Session(0))

    def stands_at(self, levels: Sequence[str]) -> bool:
        """Say whether these are the levels already; called from any thread."""
        return self._levels.wanted == ("run", *levels) and not self.backend.is_gone

    def has_work(self, levels: Sequence[str]) -> bool:
        """Say whether a level has been entered that is not named; called from any thread."""
        return self._levels.kept(("run", *levels)) < len(self._levels)

    def stand_at_once(self, levels: Sequence[str]) -> bool:
        """Do what stand_at does where that waits for nothing; else do nothing, and say so.

        Called with the loop halted.
        """
        wanted = ("run", *levels)
        if self.backend.is_gone or self.connections.may_hold_locks(self._levels.stay(wanted)):
            return False
        if (kept := self._levels.kept(wanted)) < len(self._levels):
            if not self._is_quiet():
                return False
            self._lose_work(kept)
            self._leave(kept)
            self.writers.note_rollback()
        self._levels.wanted = wanted
        return True

    async def keep(self) -> None:
        """Make all that is not somebody's uncommitted work real, in the database itself."""
        with self.gate.closed():
            await self._end_statements(0, 0)
            await self.backend.query("ROLLBACK TO SAVEPOINT s; COMMIT" if self._levels else "")
            self._levels.forget()

    async def prepare(self, startup: Values) -> list[Pending]:
        """Enter the levels that are wanted; called with the turn.

        Returns what was sent and not waited for: what fails of it is the failure of what follows.
        """
        if not self._levels.are_wanted:
            self._refuse_unfinished()
            with self._cost.measured():
                await self._enter(startup)
        return self.backend.take_posted()

    async def read_writers(self) -> None:
        """Read by which functions and views a statement may write that looks like a read."""
        self.writers.learn(await self.backend.query(WRITERS))

    def switch(self, session: Session, wanted: Values) -> list[bytes]:
        """Return the queries that give a session its parameters and its temporary tables.

        Who passes the owner asks for none, and they are part of the owner's work.
        """
        queries: list[bytes] = []
        is_free = self.gate.owner in (None, session)
        if is_free and self.temporary and (sql := self.temporary.arrange(session)):
            queries.append(query(sql))
        if wanted != self._applied:
            if sql := apply(wanted, self._applied):
                queries.append(query(sql))
            self._applied = dict(wanted)
        return queries

    def assume(self, applied: Values) -> None:
        """Note what a statement of the application has made of the parameters."""
        self._applied = dict(applied)

    async def commit(self, session: Session) -> None:
        """Make what the owner did the work of the level; raises BackendError when it is lost."""
        before = self.temporary.at_commit(session)
        try:
            if self._checks is None:
                self._checks = await read_checks(self.backend)
            await self.backend.query(f"{self._checks}{before}RELEASE SAVEPOINT s; SAVEPOINT s")
            if before:
                await self.note_temporary(session)
        except BackendError:
            await self.undo(session)
            self.forget_checks()
            raise
        finally:
            self.gate.release(session)
        if before:
            self.forget_checks()
        self._note_commit()

    def may_commit_at_once(self, session: Session) -> bool:
        """Say whether a COMMIT of the session can neither fail nor make anybody go on."""
        gate = self.gate
        is_alone = gate.owner is session and gate.busy is None and not gate.has_waiting
        return (
            is_alone and self._checks == "" and not self.temporary and not self.backend.ended.done()
        )

    def commit_at_once(self, session: Session) -> None:
        """Do what commit does, where it may be done at once; called with the loop halted."""
        released = query("RELEASE SAVEPOINT s; SAVEPOINT s")
        self.backend.post(released)
        self.gate.release(session)
        self._note_commit()

    def _note_commit(self) -> None:
        self.commits += 1
        self._levels.note_commit()
        self._kept_applied = dict(self._applied)

    async def seal(self) -> None:
        """Keep open cursors from a later rollback of somebody else's work."""
        await self.backend.query("RELEASE SAVEPOINT s; SAVEPOINT s")
        self._kept_applied = dict(self._applied)

    async def undo(self, session: Session, savepoint: str = "s") -> None:
        """Roll back to a savepoint; parameters that were set since are gone too."""
        await self.backend.query(f"ROLLBACK TO SAVEPOINT {savepoint}")
        self._levels.note_rollback()
        if savepoint == "s":
            self._applied = dict(self._kept_applied)
        await self._note_rollback(session)

    async def undo_to(self, session: Session, savepoint: Savepoint) -> None:
        """Roll back to a savepoint of the application."""
        await self.backend.query(f"ROLLBACK TO SAVEPOINT {savepoint.identifier}")
        self._levels.note_rollback()
        self._applied = dict(savepoint.applied or {})
        await self._note_rollback(session)

    def set_savepoints(self, savepoints: Iterable[Savepoint]) -> list[bytes]:
        """Return the queries that set the savepoints that are not set yet."""
        queries: list[bytes] = []
        for savepoint in savepoints:
            if savepoint.applied is None:
                savepoint.applied = dict(self._applied)
                queries.append(query(f"SAVEPOINT {savepoint.identifier}"))
        return queries

    def forget_checks(self) -> None:
        """Note that constraints may have come or gone."""
        self._checks = None

    async def note_temporary(self, session: Session, words: str = "") -> None:
        """Read which temporary tables there are; new ones are the session's."""
        self.temporary.learn(await self.backend.query(TABLES), session, words)

    async def _note_rollback(self, session: Session) -> None:
        self.writers.note_rollback()
        if self.temporary:
            await self.note_temporary(session)

    def refuse(self, refusal: Refusal) -> None:
        """Remember a refusal, for an application may pass over the error."""
        self.refusals.append(refusal)

    async def open_aside(self) -> Backend:
        """Open a real connection for the advisory locks of one logical connection."""
        return await Backend.open(**self._connect_arguments)

    def lock_rows(self, session: Session) -> None:
        """Let one connection take advisory locks by the rows of a table. Raises Refusal for more.

        The rows are in the shared transaction alone, where all connections are one holder.
        """
        if self._row_locker not in (None, session):
            raise Refusal(
                f"{session.statement!r} takes advisory locks by the rows of a table, as another "
                "connection has done in this test: whether they meet is not known here"
            )
        self._row_locker = session

    def forget(self, connection: LogicalConnection) -> None:
        """Drop a connection that has ended."""
        self.connections.remove(connection)

    def _refuse_unfinished(self) -> None:
        """Raise Refusal where a scope begins while work of the one around it is not committed."""
        if (owner := self.gate.owner) is not None and self._levels:
            raise Refusal(
                f"Connection {owner.number} has uncommitted writes of a wider scope "
                f"({owner.last_write!r}), and a narrower one begins: its end could not be told "
                "from the end of that transaction. Commit in the fixture"
            )

    async def _enter(self, startup: Values) -> None:
        count = len(self._levels)
        if not count:
            if startup != self._startup:
                # Not with the BEGIN: what is sent in one message is one transaction, whose ROLLBACK
                # at the end of the test would undo it.
                if sql := apply(startup, self._startup):
                    await self.backend.query(sql)
                self._startup = dict(startup)
            self._applied = dict(self._startup)
        self._kept_applied = dict(self._applied)
        self.backend.post(query(self._levels.enter(self._applied, self._checks)))
        numbers = self._levels.around(count).within
        if numbers is None:
            numbers = await read_sequences(self.backend)
        self._levels.begin_with(count, numbers)
        for depth in range(count, len(self._levels)):
            self.connections.enter(depth)

    async def _reopen(self) -> None:
        """Go on after PostgreSQL has ended the connection, which has rolled all back."""
        await self.connections.abandon()
        for pending in self.backend.take_posted():
            await asyncio.wait([pending.done])  # it has ended too, and what it says is known
        try:
            self.backend = await Backend.open(**self._connect_arguments)
        except (OSError, asyncpg.PostgresError) as error:
            msg = f"The server of the tests is gone: {type(error).__name__}: {error}"
            raise DatabaseUnavailableError(msg) from error
        self.gate.owner = None
        self.temporary = TemporaryTables()
        self._levels.forget()
        self._startup, self._applied, self._kept_applied = {}, {}, {}
        self._checks = None

    def _is_quiet(self) -> bool:
        """Say whether no statement is under way, nothing has failed, and no table is temporary."""
        return not (self.temporary or self.backend.has_failed) and self.connections.are_idle

    async def _end_statements(self, depth: int, stay: int) -> None:
        lost = Refusal(_OVER)
        self.gate.dismiss(lost)
        if self.gate.busy is not None:
            self.connections.end_statement(self.gate.busy, _OVER)
        await self.gate.free()
        await self.connections.release_locks(stay)
        self.gate.dismiss(lost)  # who has come meanwhile is of the same test
        self._lose_work(depth)

    def _lose_work(self, depth: int) -> None:
        self.connections.leave(depth)
        self._row_locker = self.drawer = None
        if self.gate.owner is not None:
            self._levels.note_rollback()
            self.gate.owner = None

    def _leave(self, count: int) -> None:
        gone, sql = self._levels.leave(count)
        self._checks = gone.checks
        self._applied = dict(gone.applied if self._levels else self._startup)
        self._kept_applied = dict(self._applied)
        if not self._levels:
            self.temporary = TemporaryTables()
        # Sent and not waited for: what comes next is sent behind it.
        self.backend.post(query(sql))
        self.backend.send_out()


_OVER = "The test has ended while this statement waited for its turn"
