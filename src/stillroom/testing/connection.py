"""A logical connection: what the application takes for a connection of its own to PostgreSQL."""

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stillroom.testing import messages
from stillroom.testing.backend import Answer, Backend, BackendError
from stillroom.testing.messages import Message, Messages
from stillroom.testing.parameters import Parameters, Values, changes
from stillroom.testing.refusal import Refusal, SandboxError
from stillroom.testing.statements import Kind, Statement, emulate_transaction_id, read_statements
from stillroom.testing.transport import Wire

if TYPE_CHECKING:
    from stillroom.testing.sandbox import Sandbox

Unit = list[Message]
"""The messages up to a Sync, a Flush or a simple Query: what is answered as one."""


@dataclass
class _Transaction:
    """What a BEGIN began; `earlier` are the parameters that a rollback brings back."""

    earlier: Parameters
    is_read_only: bool
    is_repeatable: bool
    commits: int | None = None  # of the sandbox, when the first statement ran
    has_failed: bool = False
    is_lost: bool = False
    is_aside: bool = False  # begun on the connection for advisory locks too
    savepoints: list[tuple[str, Parameters]] = field(default_factory=list[tuple[str, Parameters]])


class LogicalConnection:
    """Answer as PostgreSQL would, with a savepoint of the sandbox for a transaction."""

    def __init__(self, sandbox: "Sandbox", wire: Wire, number: int) -> None:
        self.number = number
        self.task: asyncio.Task[Any] | None = None
        self.statement = ""
        self.last_write = ""
        self.never_waits = False
        self._sandbox = sandbox
        self._wire = wire
        self._incoming = Messages()
        self._is_started = False
        self._has_ended = False
        self._skips = False  # after an error, until the Sync
        self._copies = False  # what comes is data of a COPY
        self._copy_data: list[bytes] = []  # what came since the last query
        self._copied: list[bytes] = []  # what came since the query that runs
        self._unit: Unit = []
        self._units: deque[tuple[Unit, asyncio.Task[Any] | None, list[bytes]]] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._parameters = Parameters()
        self._transaction: _Transaction | None = None
        self._statements: dict[str, Statement] = {}
        self._portals: dict[str, Statement] = {}
        self._open_portals: set[str] = set()
        self._temporary: dict[str, str] = {}  # a table's name, and what a COMMIT does to it
        self._xid = ""
        self._drops = 0
        self._aside: Backend | None = None  # where this connection's advisory locks are
        self._is_aside_busy = False

    def receive(self, data: bytes, task: asyncio.Task[Any] | None) -> None:
        """Take bytes of the application, sent by one of its tasks."""
        if not self._is_started:
            startup = self._incoming.take_startup(data)
            if startup is None:
                return
            self._start(*startup)
            data = b""
        for message in self._incoming.feed(data):
            self._take(message, task)

    def hang_up(self) -> None:
        """End the connection as its user wants it."""
        self._units.append(([Message(b"X")], None, []))
        self._run()

    def lose(self) -> None:
        """End the connection: the sandbox has ended."""
        self._has_ended = True
        self._sandbox.forget(self)
        self._wire.lose()

    def cancel(self) -> None:
        """Cancel the statement that waits or runs."""
        cancelled = SandboxError("57014", "canceling statement due to user request")
        if self._sandbox.gate.withdraw(self, cancelled):
            return
        if self._aside is not None and self._is_aside_busy:
            self._cancelling = asyncio.ensure_future(self._aside.cancel())
        elif self._sandbox.gate.busy is self:
            self._cancelling = asyncio.ensure_future(self._sandbox.backend.cancel())

    async def leave_level(self) -> None:
        """Note that the transaction in progress has been rolled back with its test."""
        await self._close_aside()
        self._open_portals.clear()
        self._temporary.clear()
        if self._transaction is not None:
            self._transaction.has_failed = self._transaction.is_lost = True
            self._transaction.savepoints.clear()

    # What comes in.

    def _start(self, code: int, body: bytes) -> None:
        if code == messages.CANCEL_REQUEST:
            number = int.from_bytes(body[:4], "big")
            if (connection := self._sandbox.connections.get(number)) is not None:
                connection.cancel()
            self.lose()
            return
        self._is_started = True
        given = messages.startup_parameters(body)
        self._parameters.startup = {
            name.lower(): value
            for name, value in given.items()
            if name and name not in ("user", "database", "client_encoding", "options")
        }
        self._wire.deliver(
            messages.AUTHENTICATION_OK
            + self._sandbox.greeting
            + messages.key_data(self.number, self.number)
            + messages.ready(b"I")
        )

    def _take(self, message: Message, task: asyncio.Task[Any] | None) -> None:
        if message.kind in (b"d", b"c", b"f"):
            if self._copies and self._copy_data is self._copied:
                self._sandbox.backend.write(message.encode())
            else:
                self._copy_data.append(message.encode())  # asyncpg does not wait for the "go on"
            return
        if self._copies and message.kind in (b"S", b"H"):
            return  # "ignored during a COPY"
        self._unit.append(message)
        if message.kind in (b"S", b"H", b"Q", b"X"):
            self._copy_data = []
            self._units.append((self._unit, task, self._copy_data))
            self._unit = []
            self._run()

    def _run(self) -> None:
        if self._runner is None or self._runner.done():
            self._runner = asyncio.ensure_future(self._run_units())

    async def _run_units(self) -> None:
        while self._units and not self._has_ended:
            unit, self.task, self._copied = self._units.popleft()
            self._answers: list[bytes] = []
            try:
                await self._run_unit(unit)
            except SandboxError as failure:
                if isinstance(failure, Refusal):
                    self._sandbox.refuse(failure)
                self._fail(messages.error(failure.sqlstate, str(failure)), unit)
            except BackendError as error:
                self._fail(Message(b"E", error.body).encode(), unit)
            except ConnectionError:
                self.lose()

    def _fail(self, error: bytes, unit: Unit) -> None:
        if self._transaction is not None:
            self._transaction.has_failed = True
        self._wire.deliver(error)
        if unit[-1].kind == b"H":
            self._skips = True
        else:
            self._say_ready()

    def _say_ready(self) -> None:
        transaction = self._transaction
        status = b"I" if transaction is None else b"E" if transaction.has_failed else b"T"
        self._wire.deliver(messages.ready(status))

    async def _run_unit(self, unit: Unit) -> None:
        kind = unit[-1].kind
        if kind == b"X":
            await self._end()
        elif self._skips:
            if kind == b"S":
                self._skips = False
                self._say_ready()
        elif kind == b"Q":
            await self._run_query(messages.text(unit[0].body))
        else:
            await self._run_extended(unit)

    async def _end(self) -> None:
        self._has_ended = True
        await self._close_aside()
        gate = self._sandbox.gate
        if gate.owner is self or self._statements or self._temporary:
            await gate.enter(self, passes_owner=True)
            try:
                await self._clear()
            finally:
                gate.leave()
        self.lose()

    async def _clear(self) -> None:
        if self._sandbox.gate.owner is self:
            await self._sandbox.undo()
            self._sandbox.gate.release(self)
        names = [self._name(name) for name in self._statements]
        closes = b"".join(Message(b"C", b"S" + name + b"\0").encode() for name in names)
        await self._sandbox.backend.send(closes + messages.SYNC, _ignore).done

    # A simple query.

    async def _run_query(self, sql: str) -> None:
        statements = read_statements(sql)
        if not statements:
            self._wire.deliver(messages.EMPTY_QUERY)
        elif all(statement.kind is not Kind.CONTROL for statement in statements):
            await self._execute(statements, messages.query(_text(statements, sql)))
        else:
            for statement in statements:
                if statement.kind is Kind.CONTROL:
                    self._wire.deliver(messages.complete(await self._control(statement)))
                elif not await self._execute(
                    (statement,), messages.query(_text((statement,), statement.text))
                ):
                    break
        self._say_ready()

    # The extended protocol.

    async def _run_extended(self, unit: Unit) -> None:
        parts, executed, bound = self._read(unit)
        is_flush = unit[-1].kind == b"H"
        control = next((found for found in executed if found.kind is Kind.CONTROL), None)
        if not executed and all(message.kind in (b"C", b"S", b"H") for message in unit):
            await self._close(parts)
        elif control is not None or self._is_local(unit):
            await self._run_local(unit, control)
        else:
            parsed = [self._statements[messages.text(m.body)] for m in unit if m.kind == b"P"]
            succeeded = await self._execute(
                tuple(executed), b"".join(parts) + messages.SYNC, unit=unit, bound=bound,
                parsed=parsed,
            )  # fmt: skip
            self._skips = is_flush and not succeeded
        if not is_flush:
            self._say_ready()

    def _read(self, unit: Unit) -> tuple[list[bytes], list[Statement], list[bytes | None]]:
        """Return the messages under the sandbox's names, what they execute, and with what."""
        parts: list[bytes] = []
        executed: list[Statement] = []
        bound: list[bytes | None] = []
        for kind, body in unit:
            match kind:
                case b"P":
                    name = messages.text(body)
                    parts += self._parse(name, body)
                case b"B":
                    portal = messages.text(body)
                    start = len(portal.encode()) + 1
                    name = messages.text(body, start)
                    self._portals[portal] = self._statement_of(name)
                    rest = body[start + len(name.encode()) + 1 :]
                    names = self._portal(portal) + b"\0" + self._name(name) + b"\0"
                    parts.append(Message(kind, names + rest).encode())
                    bound = messages.parameters(body)
                case b"E":
                    portal = messages.text(body)
                    executed.append(self._portals.get(portal, _UNKNOWN))
                    rest = body[len(portal.encode()) :]
                    parts.append(Message(kind, self._portal(portal) + rest).encode())
                case b"D" | b"C":
                    name = messages.text(body, 1)
                    if kind == b"C":
                        self._forget(body[:1], name)
                    own = self._name(name) if body[:1] == b"S" else self._portal(name)
                    renamed = body[:1] + own + b"\0"
                    parts.append(Message(kind, renamed).encode())
                case _:
                    pass
        return parts, executed, bound

    def _parse(self, name: str, body: bytes) -> list[bytes]:
        start = len(name.encode()) + 1
        sql = messages.text(body, start)
        rest = body[start + len(sql.encode()) + 1 :]
        found = read_statements(sql)
        self._statements[name] = found[0] if found else _UNKNOWN
        text = _text(found, sql)
        own = self._name(name) + b"\0"
        parse = Message(b"P", own + text.encode() + b"\0" + rest).encode()
        if name:
            return [parse]
        self._drops += 1  # the answer to this Close, for the unnamed one is replaced
        return [Message(b"C", b"S" + own).encode(), parse]

    def _statement_of(self, name: str) -> Statement:
        return self._statements.get(name, _UNKNOWN)

    def _forget(self, what: bytes, name: str) -> None:
        if what == b"S":
            self._statements.pop(name, None)
        else:
            self._portals.pop(name, None)
            self._open_portals.discard(name)

    def _name(self, name: str) -> bytes:
        return f"{self.number}.{name}".encode()

    def _portal(self, name: str) -> bytes:
        return self._name(name) if name else b""

    def _is_local(self, unit: Unit) -> bool:
        """Say whether a unit only prepares, or describes, what the sandbox does by itself."""
        names = [messages.text(m.body) for m in unit if m.kind == b"P"]
        names += [messages.text(m.body, 1) for m in unit if m.kind == b"D" and m.body[:1] == b"S"]
        return any(self._statement_of(name).kind is Kind.CONTROL for name in names)

    async def _run_local(self, unit: Unit, control: Statement | None) -> None:
        for kind, body in unit:
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
                    self._wire.deliver(messages.complete(await self._control(control)))
                case b"C":
                    self._wire.deliver(messages.CLOSE_COMPLETE)
                case _:
                    pass

    async def _close(self, parts: list[bytes]) -> None:
        if not parts:
            return
        await self._sandbox.gate.enter(self, passes_owner=True)
        try:
            await self._sandbox.backend.send(b"".join(parts) + messages.SYNC, self._forward).done
        finally:
            self._sandbox.gate.leave()

    # Running on the physical connection.

    async def _execute(
        self,
        statements: tuple[Statement, ...],
        data: bytes,
        *,
        unit: Unit | None = None,
        bound: Sequence[bytes | None] = (),
        parsed: Iterable[Statement] = (),
    ) -> bool:
        """Run statements in a turn; say whether they succeeded, their answer is delivered."""
        self._refuse_where_failed()
        looked_at = (*statements, *parsed)
        for statement in looked_at:
            if statement.refusal:
                raise Refusal(f"{_short(statement.text)!r}: {statement.refusal}")
        self._note(looked_at)
        if any(statement.is_advisory for statement in looked_at):
            if all(statement.is_alone for statement in looked_at):
                return await self._run_aside(data)
            self._sandbox.lock_rows(self)
        gate = self._sandbox.gate
        await gate.enter(self, passes_owner=unit is not None and self._only_fetches(unit))
        try:
            return await self._run_in_turn(statements, data, bound, unit)
        finally:
            gate.leave()

    async def _run_aside(self, data: bytes) -> bool:
        """Take or give back advisory locks on a real connection: there two can meet on one."""
        if self._aside is None:
            self._aside = await self._sandbox.open_aside()
        transaction = self._transaction
        if transaction is not None and not transaction.is_aside:
            await self._aside.query("BEGIN")
            transaction.is_aside = True
        self._is_aside_busy = True
        answer = await self._aside.send(data, self._forward).done
        self._is_aside_busy = False
        if answer.error is not None and transaction is not None:
            transaction.has_failed = True
        return answer.error is None

    async def _close_aside(self) -> None:
        if self._aside is not None:
            await self._aside.close()
            self._aside = None

    async def _run_in_turn(
        self,
        statements: tuple[Statement, ...],
        data: bytes,
        bound: Sequence[bytes | None],
        unit: Unit | None,
    ) -> bool:
        sandbox, gate = self._sandbox, self._sandbox.gate
        await sandbox.prepare(self._parameters.startup)
        self._refuse_repeatable()
        within = gate.owner is not None and gate.owner is not self  # a FETCH of an open cursor
        writes = any(self._writes(statement) for statement in statements)
        read_only = self._is_read_only() and any(
            writes or not _is_plain(statement) for statement in statements
        )
        if writes and not read_only:
            self._own()
        prefix = sandbox.switch(self._wanted(statements))
        if read_only:
            prefix += messages.query("SAVEPOINT r; SET LOCAL transaction_read_only = on")
        elif within:
            prefix += messages.query("SAVEPOINT r")
        answer = await self._exchange(prefix, data, guarded=read_only or within)
        if answer.error is not None:
            await self._roll_back_statement("r" if within else "s")
            return False
        self._learn(statements, answer)
        for statement in statements:
            await self._note_parameters(statement, bound)
        opened = self._opened(unit, answer, statements)
        self._open_portals |= opened
        if gate.owner is self and self._transaction is None:
            await self._commit_owned()
        elif opened and gate.owner is None:
            await sandbox.seal()
        return True

    async def _exchange(self, prefix: bytes, data: bytes, *, guarded: bool) -> Answer:
        """Send it all at once, and wait for the last answer."""
        backend = self._sandbox.backend
        before = [backend.send(part, _ignore) for part in _queries(prefix)]
        pending = backend.send(data, self._forward)
        after = backend.send(messages.query("RELEASE SAVEPOINT r"), _ignore) if guarded else None
        answer = await pending.done
        self._copies = False
        for sent in (*before, *((after,) if after is not None else ())):
            other = await sent.done
            if sent is not after and other.error is not None:
                self._wire.deliver(Message(b"E", other.error).encode())
                answer.error = answer.error or other.error
        return answer

    def _forward(self, message: Message) -> None:
        if message.kind == b"A":
            return
        if message.kind == b"G":
            self._copies = True
            self._sandbox.backend.write(b"".join(self._copied))
        if message.kind == b"3" and self._drops:
            self._drops -= 1
            return
        self._wire.deliver(message.encode())

    def _own(self) -> None:
        gate = self._sandbox.gate
        if gate.owner is None:
            gate.owner = self
        self.last_write = self.statement

    async def _roll_back_statement(self, savepoint: str) -> None:
        """Undo what failed: the statement of a reader, or all of a writer without savepoints."""
        sandbox, gate, transaction = self._sandbox, self._sandbox.gate, self._transaction
        if savepoint == "r":
            await sandbox.undo("r")
            await sandbox.backend.query("RELEASE SAVEPOINT r")
        elif gate.owner is not self:
            await sandbox.undo()
        elif transaction is None or not transaction.savepoints:
            await sandbox.undo()
            gate.release(self)
        if transaction is not None:
            transaction.has_failed = True

    def _refuse_where_failed(self) -> None:
        transaction = self._transaction
        if transaction is None or not transaction.has_failed:
            return
        if transaction.is_lost:
            raise Refusal(
                "This transaction was begun in a test that has ended; its work was rolled back "
                "with the test. Close sessions before the test ends"
            )
        raise SandboxError("25P02", _ABORTED)

    def _refuse_repeatable(self) -> None:
        transaction = self._transaction
        if transaction is None or not transaction.is_repeatable:
            return
        if transaction.commits is None:
            transaction.commits = self._sandbox.commits
        elif transaction.commits != self._sandbox.commits:
            raise Refusal(
                f"{self.statement!r} runs in a transaction of REPEATABLE READ, and another "
                "connection has committed since it began: the sandbox has no older snapshot"
            )

    def _note(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            self.statement = _short(statement.text)
            self.never_waits = statement.never_waits

    def _writes(self, statement: Statement) -> bool:
        if statement.kind is Kind.WRITE:
            return True
        return bool(statement.functions & self._sandbox.writing_functions)

    def _only_fetches(self, unit: Unit) -> bool:
        return all(
            message.kind in (b"S", b"H", b"C")
            or (message.kind == b"E" and messages.text(message.body) in self._open_portals)
            for message in unit
        )

    def _is_read_only(self) -> bool:
        if self._transaction is not None:
            return self._transaction.is_read_only
        return _is_on(self._parameters.effective().get("default_transaction_read_only"))

    def _wanted(self, statements: Iterable[Statement]) -> Values:
        wanted = self._parameters.effective()
        if any(statement.sees_transaction_id for statement in statements):
            wanted["stillroom.xid"] = self._xid
        return wanted

    def _learn(self, statements: Iterable[Statement], answer: Answer) -> None:
        """Note what later statements depend on."""
        for statement in statements:
            if self._writes(statement) and not _wrote_nothing(answer):
                self._xid = str(1000 + self._sandbox.commits)
            if found := _TEMPORARY.search(statement.words):
                self._note_temporary(statement.text, found)
            if found := _FUNCTION.search(statement.text):
                self._sandbox.writing_functions.add(found[1].upper())

    def _note_temporary(self, sql: str, found: "re.Match[str]") -> None:
        name = _TEMPORARY_NAME.search(sql)
        if name is not None and found["action"]:
            self._temporary[name[1]] = found["action"]

    async def _note_parameters(self, statement: Statement, bound: Sequence[bytes | None]) -> None:
        if not statement.is_setting:
            return
        parameters = self._parameters
        for change in changes(statement, bound):
            if change.is_reset or change.name is None:
                parameters.reset(change.name)
                continue
            values = parameters.local if change.is_local else parameters.session
            name = change.name.replace("'", "''")
            rows = await self._sandbox.backend.query(f"SELECT current_setting('{name}', true)")
            if change.is_local and self._transaction is None:
                continue
            parameters.local.pop(change.name, None)
            values[change.name] = rows[0][0] or ""
        self._sandbox.assume(parameters.effective())

    def _opened(
        self, unit: Unit | None, answer: Answer, statements: Iterable[Statement]
    ) -> set[str]:
        """Return the portals that stay open after the unit."""
        if self._transaction is None:
            return set()
        declared = {
            found[1]
            for statement in statements
            if (found := re.match(r"\s*DECLARE\s+\"?([^\s\"]+)", statement.text, re.IGNORECASE))
            if "WITH HOLD" not in statement.words
        }
        bound = {messages.text(m.body) for m in unit or () if m.kind == b"B"}
        executed = {messages.text(m.body) for m in unit or () if m.kind == b"E"}
        kept = {name for name in bound if name and (name not in executed or answer.is_suspended)}
        return kept | declared

    # Transactions.

    async def _control(self, statement: Statement) -> str:
        """Do what BEGIN, COMMIT, SAVEPOINT and the like say; return the command's tag."""
        words = statement.words
        self.statement = _short(statement.text)
        if statement.refusal:
            raise Refusal(f"{self.statement!r}: {statement.refusal}")
        if re.match(r"BEGIN|START", words):
            self._begin(words)
            return "BEGIN"
        if words.startswith("SET"):
            self._set_transaction(words)
            return "SET"
        if re.match(r"ROLLBACK( WORK| TRANSACTION)? TO\b|SAVEPOINT|RELEASE", words):
            return await self._savepoint(words, statement.text)
        return await self._finish(is_commit=bool(re.match(r"COMMIT|END", words)))

    def _begin(self, words: str) -> None:
        if self._transaction is not None:
            return  # PostgreSQL warns
        values = self._parameters.effective()
        isolation = values.get("default_transaction_isolation", "").lower()
        if isolation == "serializable":
            raise Refusal("The transaction would be SERIALIZABLE, by a parameter of the session")
        read_only = _is_on(values.get("default_transaction_read_only"))
        self._xid = ""
        self._transaction = _Transaction(
            self._parameters.copy(), read_only, isolation == "repeatable read"
        )
        self._set_transaction(words)

    def _set_transaction(self, words: str) -> None:
        if (transaction := self._transaction) is None:
            return
        if "READ ONLY" in words or "READ WRITE" in words:
            transaction.is_read_only = "READ ONLY" in words
        if "ISOLATION LEVEL" in words:
            transaction.is_repeatable = "REPEATABLE READ" in words

    async def _savepoint(self, words: str, sql: str) -> str:
        transaction = self._transaction
        if transaction is None:
            raise SandboxError(
                "25P01", f"{words.split(maxsplit=1)[0]} can only be used in transaction blocks"
            )
        if transaction.is_lost:
            self._refuse_where_failed()
        name = _identifier(sql)
        if words.startswith("SAVEPOINT"):
            self._refuse_where_failed()
            await self._own_savepoint(f"SAVEPOINT {_own(name)}")
            transaction.savepoints.append((name, self._parameters.copy()))
            return "SAVEPOINT"
        names = [known for known, _ in transaction.savepoints]
        if name not in names:
            transaction.has_failed = True
            raise SandboxError("3B001", f'savepoint "{name}" does not exist')
        index = len(names) - 1 - names[::-1].index(name)
        if words.startswith("RELEASE"):
            self._refuse_where_failed()
            await self._own_savepoint(f"RELEASE SAVEPOINT {_own(name)}")
            del transaction.savepoints[index:]
            return "RELEASE"
        await self._own_savepoint(f"ROLLBACK TO SAVEPOINT {_own(name)}")
        self._parameters.restore(transaction.savepoints[index][1])
        self._sandbox.assume(self._parameters.effective())
        del transaction.savepoints[index + 1 :]
        transaction.has_failed = False
        return "ROLLBACK"

    async def _own_savepoint(self, sql: str) -> None:
        gate = self._sandbox.gate
        await gate.enter(self)
        try:
            await self._sandbox.prepare(self._parameters.startup)
            self._own()
            switch = self._sandbox.switch(self._parameters.effective())
            if switch and not sql.startswith("ROLLBACK"):
                await self._sandbox.backend.send(switch, _ignore).done
            await self._sandbox.backend.query(sql)
        finally:
            gate.leave()

    async def _finish(self, *, is_commit: bool) -> str:
        transaction, gate = self._transaction, self._sandbox.gate
        if transaction is None:
            return "COMMIT" if is_commit else "ROLLBACK"
        commits = is_commit and not transaction.has_failed
        self._transaction = None
        if not commits:
            self._parameters.restore(transaction.earlier)
        self._parameters.local.clear()
        if transaction.is_aside and self._aside is not None:
            await self._aside.query("ROLLBACK")  # nothing but locks is there
        if gate.owner is self or self._open_portals:
            await gate.enter(self)
            try:
                await self._finish_in_turn(commits)
            except BackendError:
                await self._sandbox.undo()
                self._parameters.restore(transaction.earlier)
                raise
            finally:
                self._temporary.clear()
                gate.release(self)
                gate.leave()
        return "COMMIT" if commits else "ROLLBACK"

    async def _finish_in_turn(self, commits: bool) -> None:
        if self._open_portals:
            names = [*self._open_portals, *(self._name(x).decode() for x in self._open_portals)]
            self._open_portals.clear()
            await self._sandbox.backend.send(messages.close_portals(names), _ignore).done
        if self._sandbox.gate.owner is not self:
            return
        if commits:
            await self._commit_owned()
        else:
            await self._sandbox.undo()

    async def _commit_owned(self) -> None:
        before = "".join(
            f"DROP TABLE IF EXISTS {name}; " if action == "DROP" else f"TRUNCATE {name}; "
            for name, action in self._temporary.items()
        )
        try:
            await self._sandbox.keep(before)
        except BackendError:
            await self._sandbox.undo()
            raise
        finally:
            self._sandbox.gate.release(self)


def _ignore(_message: Message) -> None:
    """Drop what answers a statement of the sandbox's own."""


def _queries(data: bytes) -> list[bytes]:
    return [message.encode() for message in Messages().feed(data)]


def _text(statements: Iterable[Statement], sql: str) -> str:
    if any(statement.sees_transaction_id for statement in statements):
        return emulate_transaction_id(sql)
    return sql


def _short(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def _is_on(value: str | None) -> bool:
    return (value or "").lower() in ("on", "true", "1", "yes", "t")


def _is_plain(statement: Statement) -> bool:
    """Say whether a read is the same in a READ ONLY transaction."""
    return statement.kind is Kind.READ and not statement.words.startswith(("SHOW", "SET"))


def _wrote_nothing(answer: Answer) -> bool:
    return bool(answer.tags) and all(
        re.match(r"(INSERT 0|UPDATE|DELETE|MERGE|SELECT) 0$", tag) for tag in answer.tags
    )


def _identifier(sql: str) -> str:
    """Return the name at the end of SAVEPOINT, RELEASE or ROLLBACK TO, as PostgreSQL folds it."""
    found = re.search(r"(?:\"((?:[^\"]|\"\")+)\"|([\w$]+))\s*;?\s*$", sql)
    if found is None:
        raise SandboxError("42601", f"syntax error: {_short(sql)}")
    return found[1].replace('""', '"') if found[1] else found[2].lower()


def _own(name: str) -> str:
    return '"app ' + name.replace('"', '""') + '"'


_TEMPORARY = re.compile(
    r"^CREATE (?:(?:GLOBAL|LOCAL) )?TEMP(?:ORARY)? TABLE.*ON COMMIT (?P<action>DROP|DELETE)?"
)
_TEMPORARY_NAME = re.compile(
    r"\bTABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\"[^\"]+\"|[\w.]+)", re.IGNORECASE
)
_FUNCTION = re.compile(
    r"^\s*CREATE\s+(?:OR\s+REPLACE\s+)?FUNCTION\s+(?:\w+\.)?\"?(\w+)", re.IGNORECASE
)
_UNKNOWN = Statement("", "", Kind.WRITE, frozenset(), "")
_ABORTED = "current transaction is aborted, commands ignored until end of transaction block"
