"""A logical connection: what the application takes for a connection of its own to PostgreSQL."""

import asyncio
import re
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stillroom.testing.refusal import CANCELLED, Refusal, SandboxError
from stillroom.testing.sandbox.execution import Execution
from stillroom.testing.sandbox.prepared import Request
from stillroom.testing.sandbox.session import Session, Transaction
from stillroom.testing.sandbox.statements import Kind, Statement, read_statements
from stillroom.testing.sandbox.timeouts import IdleTimeouts
from stillroom.testing.sandbox.transactions import Transactions
from stillroom.testing.sandbox.units import Inbox, Unit
from stillroom.testing.wire import messages
from stillroom.testing.wire.backend import BackendError
from stillroom.testing.wire.messages import Message
from stillroom.testing.wire.transport import Wire

if TYPE_CHECKING:
    from stillroom.testing.sandbox import Sandbox


class LogicalConnection:
    """Speak the protocol as PostgreSQL would; the work is that of what it is made of."""

    def __init__(self, sandbox: "Sandbox", wire: Wire, number: int) -> None:
        self.session = Session(number)
        self._sandbox = sandbox
        self._wire = wire
        self._execution = Execution(sandbox, self.session, wire)
        self._transactions = Transactions(sandbox, self.session, self._execution)
        self._inbox = Inbox()
        self._is_started = False
        self._has_ended = False
        self._is_working = False  # a unit is being answered
        self._skips = False  # after an error, until the Sync
        self._unit = Unit()  # that is being answered, or was the last
        self._units: deque[Unit] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Future[None] | None = None
        self._timeouts = IdleTimeouts(self.session, self._expire)

    def receive(self, data: bytes, task: asyncio.Task[Any] | None) -> None:
        """Take bytes of the application, sent by one of its tasks."""
        if not self._is_started:
            startup = self._inbox.take_startup(data)
            if startup is None:
                return
            self._start(*startup)
            data = b""
        for unit in self._inbox.feed(data, task):
            self._timeouts.stop()
            self._units.append(unit)
            self._run()

    def take_at_once(self, data: bytes) -> bytes | None:
        """Begin a transaction, or end one where that needs nobody else; return the answer.

        None of it can fail, and it makes nobody wait or go on. For all else it returns None.
        """
        sql, transaction = data[5:-1] if data[:1] == b"Q" else b"", self.session.transaction
        if self._has_ended or self._timeouts.may_expire():
            return None
        if transaction is None and _BEGIN.fullmatch(sql):
            (statement,) = read_statements(sql.decode())
            self.session.depth = self._sandbox.depth
            return messages.complete(self._transactions.begin(statement)) + messages.ready(b"T")
        if transaction is None or sql not in _ENDS or not self._is_simple(transaction):
            return None
        commits = sql.startswith(b"COMMIT")
        if self._sandbox.gate.owner is self.session:
            if not (commits and self._sandbox.may_commit_at_once(self.session)):
                return None
            self._sandbox.commit_at_once(self.session)
        self._transactions.leave(transaction, commits=commits)
        return messages.complete(_ENDS[sql]) + messages.ready(b"I")

    def hang_up(self) -> None:
        """End the connection as its user wants it."""
        self.session.is_ending = True
        self._units.append(Unit([Message(b"X")]))
        self._run()

    def lose(self) -> None:
        """End the connection: the sandbox has ended."""
        self._has_ended = True
        self._timeouts.stop()
        self._sandbox.forget(self)
        self._wire.lose()

    def cancel(self) -> None:
        """Cancel the statement that was sent and is not answered, wherever it is; else nothing."""
        if not self._units and not self._is_working:
            return
        cancelled = SandboxError("57014", CANCELLED)
        if self._sandbox.gate.withdraw(self.session, cancelled):
            return
        if self._execution.locks.is_busy:
            self._cancelling = asyncio.ensure_future(self._execution.locks.cancel())
        else:
            self._execution.cancel()

    def end_statement(self, reason: str) -> None:
        """Cancel what runs; also a COPY, which would wait for the rest of its data first."""
        self._unit.fail_copy(reason)
        self._execution.cancel()

    async def abandon(self) -> None:
        """Lose the transaction in progress and then the connection."""
        await self._execution.locks.close()
        self.leave_level(0)
        self.lose()

    @property
    def is_idle(self) -> bool:
        """Say whether it waits for nothing but its user."""
        return not (self._units or self._is_working)

    def may_hold_locks(self, depth: int) -> bool:
        """Say whether it may hold advisory locks, taken since a level of this depth began."""
        since = self._execution.locks.depth
        return since is not None and since > depth

    async def release_locks(self, depth: int) -> None:
        """Release the advisory locks of the session, unless it has held some for longer."""
        if self.may_hold_locks(depth):
            await self._execution.locks.release()

    def leave_level(self, depth: int) -> None:
        """Note that all that was done in a level has been rolled back, and in those within it.

        A transaction that was begun around it and has only read goes on.
        """
        transaction, prepared = self.session.transaction, self._execution.prepared
        if transaction is not None and (
            transaction.depth > depth
            or self._sandbox.gate.owner is self.session
            or prepared.open_portals
            or any(savepoint.applied is not None for savepoint in transaction.savepoints)
        ):
            self.session.lose()
        prepared.open_portals.clear()
        self.session.leave(depth)

    def _start(self, code: int, body: bytes) -> None:
        if code == messages.CANCEL_REQUEST:
            number = int.from_bytes(body[:4], "big")
            if (connection := self._sandbox.connections.find(number)) is not None:
                connection.cancel()
            self.lose()
            return
        try:
            self._sandbox.backend.check()
        except ConnectionError as error:
            self._wire.deliver(messages.error("57P01", str(error), severity="FATAL"))
            self.lose()
            return
        self._is_started = True
        given = messages.startup_parameters(body)
        self.session.parameters.startup = {
            name.lower(): value
            for name, value in given.items()
            if name and name not in ("user", "database", "client_encoding", "options")
        }
        number = self.session.number
        self._wire.deliver(
            messages.AUTHENTICATION_OK
            + self._sandbox.backend.greeting
            + messages.key_data(number, number)
            + messages.ready(b"I")
        )
        self._wire.flush()

    def _is_simple(self, transaction: Transaction) -> bool:
        """Say whether nothing but what it wrote ends with a transaction."""
        return not (
            transaction.has_failed
            or transaction.refusal
            or transaction.savepoints
            or self._sandbox.temporary
            or self.session.parameters.local
            or self._execution.prepared.open_portals
            or self._execution.locks.depth is not None
        )

    def _run(self) -> None:
        if self._runner is None or self._runner.done():
            self._runner = asyncio.ensure_future(self._run_units())

    async def _run_units(self) -> None:
        while self._units and not self._has_ended:
            unit = self._unit = self._units.popleft()
            self._is_working = True
            self.session.task, self.session.depth = unit.task, self._sandbox.depth
            try:
                await self._run_unit(unit)
            except SandboxError as failure:
                if isinstance(failure, Refusal):
                    self._sandbox.refuse(failure)
                self._fail(messages.error(failure.sqlstate, str(failure)), unit)
            except BackendError as error:
                self._fail(Message(b"E", error.body).encode(), unit)
            except ConnectionError as error:
                self._end_with(messages.error("57P01", str(error)))
            except Exception as error:  # noqa: BLE001  (the application would wait for ever)
                fault = Refusal(
                    f"The sandbox itself has failed at {self.session.statement!r}: {error!r}",
                    "Please report it.",
                )
                self._sandbox.refuse(fault)
                self._end_with(messages.error("XX000", str(fault)))
            finally:
                self._wire.flush()
                self._is_working = False
                if not self._units:
                    self._execution.is_cancelled = False

    def _fail(self, error: bytes, unit: Unit) -> None:
        self.session.fail()
        self._wire.deliver(error)
        if unit.kind == b"H":
            self._skips = True
        else:
            self._say_ready()

    def _end_with(self, error: bytes) -> None:
        """End the connection, and let who waits learn why.

        A driver that has sent a Flush waits, after an error, for the answer to a Sync, which
        nobody would give any more.
        """
        self.session.fail()
        self._wire.deliver(error)
        self._say_ready()
        self.lose()

    def _expire(self, sqlstate: str, message: str) -> None:
        self._wire.deliver(messages.error(sqlstate, message, severity="FATAL"))
        self.hang_up()

    def _say_ready(self) -> None:
        self._timeouts.start()
        self._wire.deliver(messages.ready(self.session.status))

    async def _run_unit(self, unit: Unit) -> None:
        if unit.kind == b"X":
            await self._end()
        elif self._skips:
            if unit.kind == b"S":
                self._skips = False
                self._say_ready()
        elif unit.kind == b"Q":
            await self._run_query(unit, messages.text(unit.messages[0].body))
        else:
            await self._run_extended(unit)

    async def _end(self) -> None:
        self._has_ended = True
        try:
            await self._execution.locks.close()
            with suppress(Refusal):  # its test has ended first, and all is undone
                await self._execution.clear()
        finally:
            self.lose()

    async def _run_query(self, unit: Unit, sql: str) -> None:
        statements, translation = read_statements(sql), self._execution.prepared.translation
        if not statements:
            self._wire.deliver(messages.EMPTY_QUERY)
        elif all(statement.kind is not Kind.CONTROL for statement in statements):
            data = messages.query(translation.of(statements, sql))
            await self._execution.run(Request(unit, data, statements))
        else:
            for statement in statements:
                if statement.kind is Kind.CONTROL:
                    tag = await self._transactions.control(statement)
                    self._wire.deliver(messages.complete(tag))
                    continue
                data = messages.query(translation.of((statement,), statement.text))
                if not await self._execution.run(Request(unit, data, (statement,))):
                    break
        self._say_ready()

    async def _run_extended(self, unit: Unit) -> None:
        request = self._execution.prepared.read(unit)
        control = next((it for it in request.executed if it.kind is Kind.CONTROL), None)
        kinds = {message.kind for message in unit.messages}
        if kinds <= {b"C", b"S", b"H"}:
            if b"C" in kinds:
                await self._execution.close(request)
        elif control is not None or self._execution.prepared.is_control(unit):
            await self._run_control(unit, control)
        else:
            succeeded = await self._execution.run(request)
            self._skips = unit.kind == b"H" and not succeeded
        if unit.kind != b"H":
            self._say_ready()

    async def _run_control(self, unit: Unit, control: Statement | None) -> None:
        for kind, body in unit.messages:
            match kind:
                case b"P":
                    self._wire.deliver(messages.PARSE_COMPLETE)
                case b"B":
                    self._wire.deliver(messages.BIND_COMPLETE)
                case b"D" if body[:1] == b"S":
                    self._wire.deliver(messages.NO_PARAMETERS + messages.NO_DATA)
                case b"D":
                    self._wire.deliver(messages.NO_DATA)
                case b"E" if control is not None:
                    tag = await self._transactions.control(control)
                    self._wire.deliver(messages.complete(tag))
                case b"C":
                    self._wire.deliver(messages.CLOSE_COMPLETE)
                case _:
                    pass


# What asyncpg sends: https://www.postgresql.org/docs/current/sql-begin.html
_BEGIN = re.compile(
    rb"BEGIN( ISOLATION LEVEL (READ (UN)?COMMITTED|REPEATABLE READ|SERIALIZABLE))?"
    rb"( READ ONLY)?( DEFERRABLE)?;"
)
_ENDS = {b"COMMIT;": "COMMIT", b"ROLLBACK;": "ROLLBACK"}
