"""The statements of one logical connection, run in turns on the physical one."""

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stillroom.testing.refusal import CANCELLED, Refusal, SandboxError
from stillroom.testing.sandbox.advisory import AdvisoryLocks
from stillroom.testing.sandbox.parameters import OF_ONE, Values, changes, shared
from stillroom.testing.sandbox.prepared import Prepared, Request
from stillroom.testing.sandbox.session import Session, short
from stillroom.testing.sandbox.statements import Kind, Statement
from stillroom.testing.sandbox.translation import OF_THE_TRANSACTION, mirrored
from stillroom.testing.wire import messages
from stillroom.testing.wire.backend import Answer, Pending
from stillroom.testing.wire.messages import Message, error_fields
from stillroom.testing.wire.transport import Wire

if TYPE_CHECKING:
    from stillroom.testing.sandbox import Sandbox


class Execution:
    """Run what is no transaction control, under the session's parameters and within its rights."""

    def __init__(self, sandbox: "Sandbox", session: Session, wire: Wire) -> None:
        self.prepared = Prepared(session.number)
        self.locks = AdvisoryLocks(session, sandbox.open_aside, sandbox.gate.wait)
        self._sandbox = sandbox
        self._session = session
        self._wire = wire
        self.is_cancelled = False
        """What is to run next must not: the application has given it up."""
        self._request: Request
        self._before: list[Pending] = []
        self._running: Pending | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._refusal = ""

    async def run(self, request: Request) -> bool:
        """Run statements in a turn, their answer is delivered; say whether they succeeded."""
        session, gate = self._session, self._sandbox.gate
        looked_at = (*request.executed, *request.parsed)
        session.refuse_where_failed(looked_at)
        for statement in looked_at:
            if statement.refusal:
                raise Refusal(f"{short(statement.text)!r}: {statement.refusal}")
        session.note(looked_at)
        self._refuse_alone(request.executed)
        self._refuse_last_value(looked_at)
        self._request = request
        if any(statement.is_advisory for statement in looked_at):
            if all(statement.is_alone for statement in looked_at):
                return await self._lock()
            self._sandbox.lock_rows(session)
        passes = self.prepared.only_fetches(request.unit) or (
            bool(looked_at) and all(statement.sees_no_work for statement in looked_at)
        )
        only_reads = bool(looked_at) and self._only_reads(request, looked_at)
        self._refuse_cancelled()
        async with gate.turn(session, passes_owner=passes, only_reads=only_reads):
            self._refuse_cancelled()
            return await self._run_in_turn()

    def cancel(self) -> None:
        """Cancel what runs; what has not begun to run is not begun."""
        if self._running is None:
            self.is_cancelled = True
        elif self._cancelling is None:
            self._cancelling = asyncio.ensure_future(self._cancel(self._running))

    async def close(self, request: Request) -> None:
        """Run a unit that only closes statements and portals."""
        async with self._sandbox.gate.turn(self._session, passes_owner=True):
            await self._sandbox.backend.send(request.data, self._forward).done

    async def clear(self) -> None:
        """Leave nothing of the session on the physical connection."""
        gate = self._sandbox.gate
        if gate.owner is not self._session and not self.prepared:
            return
        async with gate.turn(self._session, passes_owner=True):
            if gate.owner is self._session:
                await self._sandbox.undo(self._session)
                gate.release(self._session)
            await self._sandbox.backend.send(self.prepared.close_statements(), ignore).done

    async def discard(self, words: str) -> None:
        """Do what CLOSE ALL, DEALLOCATE ALL and DISCARD say, to what is the session's own."""
        sandbox, session, prepared = self._sandbox, self._session, self.prepared
        is_all = words.startswith("DISCARD ALL")
        if is_all and session.transaction is not None:
            raise SandboxError("25001", "DISCARD ALL cannot run inside a transaction block")
        sent: list[bytes] = []
        if is_all or words.startswith("CLOSE"):
            sent.append(prepared.close_portals(prepared.translation.cursors))
        if is_all or words.startswith("DEALLOCATE"):
            sent.append(prepared.close_statements())
        async with sandbox.gate.turn(session, passes_owner=not words.startswith("DISCARD")):
            for data in sent:
                await sandbox.backend.send(data, ignore).done
            if words.startswith(("DISCARD ALL", "DISCARD TEMP")) and sandbox.temporary:
                await sandbox.backend.query(sandbox.temporary.drop(session) or ";")
                await sandbox.note_temporary(session)
                gate_owner = sandbox.gate.owner
                if gate_owner is None and session.transaction is None:
                    await sandbox.seal()
        if is_all:
            session.parameters.reset(None)
            await self.locks.close()

    async def _cancel(self, running: Pending) -> None:
        # PostgreSQL forgets a request that comes before the statement, which was sent elsewhere.
        while not running.done.done():
            await self._sandbox.backend.cancel()
            await asyncio.wait({running.done}, timeout=_CANCEL_AGAIN)

    def _refuse_cancelled(self) -> None:
        if self.is_cancelled:
            raise SandboxError("57014", CANCELLED)

    def _refuse_alone(self, statements: Sequence[Statement]) -> None:
        """Raise what PostgreSQL says to what makes no sense outside of a transaction."""
        if self._session.transaction is None and len(statements) == 1:
            (statement,) = statements
            if statement.needs_transaction:
                what = "LOCK TABLE" if statement.words.startswith("LOCK") else "DECLARE CURSOR"
                raise SandboxError("25P01", f"{what} can only be used in transaction blocks")

    def _refuse_last_value(self, statements: Sequence[Statement]) -> None:
        """Raise Refusal where the last number of a sequence is another connection's."""
        asked = {"LASTVAL", "CURRVAL"}
        if not any(statement.functions & asked for statement in statements):
            return
        if not self._session.has_drawn:
            raise SandboxError("55000", "lastval is not yet defined in this session")
        if self._sandbox.drawer is not self._session:
            raise Refusal(
                f"{self._session.statement!r} asks for the last number that this connection drew "
                "from a sequence, and another connection has written since"
            )

    async def _setting(self, name: str) -> str:
        if name in OF_THE_TRANSACTION:
            name = f"stillroom.{name}"
        quoted = name.replace("'", "''")
        rows = await self._sandbox.backend.query(f"SELECT current_setting('{quoted}', true)")
        return rows[0][0] or ""

    async def _lock(self) -> bool:
        answer = await self.locks.run(self._request.data, self._forward)
        if answer.error is not None:
            self._session.fail()
        return answer.error is None

    async def _run_in_turn(self) -> bool:
        sandbox, session, gate = self._sandbox, self._session, self._sandbox.gate
        statements = self._request.executed
        self._before = await sandbox.prepare(shared(session.parameters.startup))
        session.refuse_older_snapshot(sandbox.commits)
        within = gate.owner is not None and gate.owner is not session  # it passes
        writes = await self._may_write(statements)
        read_only = session.is_read_only and any(
            writes or not _is_plain(statement) for statement in statements
        )
        if writes and not read_only:
            gate.own(session)
        mirrors = {name for statement in statements for name in mirrored(statement)}
        prefix = sandbox.switch(session, session.wanted(mirrors))
        if gate.owner is session and session.transaction is not None:
            prefix += sandbox.set_savepoints(session.transaction.savepoints)
        if read_only:
            prefix.append(messages.query("SAVEPOINT r; SET LOCAL transaction_read_only = on"))
        elif within:
            prefix.append(messages.query("SAVEPOINT r"))
        if session.transaction is not None and any(it.is_query for it in statements):
            session.transaction.has_queried = True
        answer = await self._exchange(prefix, guarded=read_only or within)
        if answer.error is not None:
            await self._roll_back("r" if within else "s")
            if self._refusal:
                raise Refusal(f"{session.statement!r}: {self._refusal}")
            return False
        await self._learn(answer)
        opens = session.transaction is not None and self.prepared.note_open(self._request, answer)
        if gate.owner is session and session.transaction is None:
            await sandbox.commit(session)
        elif opens and gate.owner is None:
            await sandbox.seal()
        return True

    async def _exchange(self, prefix: list[bytes], *, guarded: bool) -> Answer:
        """Send it all at once, and wait for the last answer."""
        backend, request = self._sandbox.backend, self._request
        self._refusal = ""
        self._before += [backend.send(part, ignore) for part in prefix]
        pending = backend.send(request.data, self._forward)
        after = backend.send(messages.query("RELEASE SAVEPOINT r"), ignore) if guarded else None
        for before in self._before:
            await before.done  # what is not the application's no cancellation may meet
        self._running = pending
        if self.is_cancelled:
            self.cancel()
        try:
            answer = await pending.done
        finally:
            self._running = None
        if self._cancelling is not None:
            await self._cancelling  # else it would meet what runs next
            self._cancelling = None
        request.unit.end_copy()
        first = next((it.error for it in self._before if it.error is not None), None)
        if answer.error is None and first is not None:
            self._wire.deliver(Message(b"E", first).encode())
        answer.error = answer.error or first
        if after is not None and (late := (await after.done).error) and answer.error is None:
            self._wire.deliver(Message(b"E", late).encode())
            answer.error = late
        return answer

    def _forward(self, message: Message) -> None:
        if message.kind == b"A" or self.prepared.drops(message):
            return
        if message.kind == b"G":
            self._request.unit.start_copy(self._sandbox.backend.write)
            self._wire.deliver(message.encode())
            self._wire.flush()  # else the data would not come
            return
        if message.kind == b"E":
            self._refusal = self._reason_to_refuse(message)
            if self._refusal:
                return
            # What went before has failed first, and is what the statement has failed by.
            failed = next((it.error for it in self._before if it.error is not None), message.body)
            message = Message(b"E", self.prepared.translation.back(failed))
        self._wire.deliver(message.encode())

    def _reason_to_refuse(self, error: Message) -> str:
        """Say why production would not have had the error; empty where it would."""
        sqlstate = error_fields(error.body).get("C", "")
        if sqlstate in ("25001", "2D000") and self._session.transaction is None:
            return "it needs a transaction of its own, and all connections share one"
        return _ERRORS_OF_SHARING.get(sqlstate, "")

    async def _roll_back(self, name: str) -> None:
        """Undo what failed: the statement of a reader, all of a writer, back to its savepoint.

        The physical connection runs on: others pass, whether or not this one rolls back soon.
        """
        sandbox, session, gate = self._sandbox, self._session, self._sandbox.gate
        if name == "r":
            await sandbox.undo(gate.owner or session, "r")
            await sandbox.backend.query("RELEASE SAVEPOINT r")
        elif gate.owner is session and session.transaction and session.transaction.savepoints:
            await sandbox.undo_to(session, session.transaction.savepoints[-1])
        else:
            await sandbox.undo(session)
            gate.release(session)
        session.fail()

    def _only_reads(self, request: Request, statements: Sequence[Statement]) -> bool:
        """Say whether it would do no harm within the work of another, as far as is known."""
        sandbox = self._sandbox
        if sandbox.writers.are_stale or sandbox.temporary or self.prepared.names_portal(request):
            return False
        return all(it.is_plain_query and not sandbox.writers.may_write(it) for it in statements)

    async def _may_write(self, statements: Sequence[Statement]) -> bool:
        writers = self._sandbox.writers
        if writers.are_stale and any(map(_asks_for_names, statements)):
            await self._sandbox.read_writers()
        return any(map(writers.may_write, statements))

    async def _learn(self, answer: Answer) -> None:
        """Note what later statements depend on."""
        for statement in self._request.executed:
            if self._sandbox.writers.may_write(statement) and not _wrote_nothing(answer):
                self._session.xid = str(1000 + self._sandbox.commits)
                self._session.has_drawn = True
                self._sandbox.drawer = self._session
            if statement.changes_schema or self._sandbox.writers.may_do_anything(statement):
                self._sandbox.forget_checks()
                self._sandbox.writers.note_change()
            if self._sandbox.writers.wrote(statement, no_rows=_wrote_nothing(answer)):
                self._session.has_written = True
        if self._sandbox.temporary.may_change(self._request.executed):
            words = " ".join(statement.words for statement in self._request.executed)
            await self._sandbox.note_temporary(self._session, words)
        for statement in self._request.executed:
            if statement.is_setting:
                await self._learn_parameters(statement, self._request.bound)

    async def _learn_parameters(self, statement: Statement, bound: Sequence[bytes | None]) -> None:
        session, parameters = self._session, self._session.parameters
        passing: Values = {}  # set on the physical connection, and not for the session
        unset: set[str] = set()  # there, and not what the session started with
        for change in changes(statement, bound):
            if change.is_reset or change.name is None:
                unset |= set(parameters.effective() if change.name is None else [change.name])
                parameters.reset(change.name)
                continue
            values = parameters.local if change.is_local else parameters.session
            value = await self._setting(change.name)
            if change.name in OF_ONE:
                await self._sandbox.backend.query(f"RESET {change.name}")
            if change.is_local and session.transaction is None:
                passing[change.name] = value
            elif change.name in OF_THE_TRANSACTION:
                session.set_mode(change.name, value)
                session.refuse_where_failed()
            else:
                parameters.local.pop(change.name, None)
                values[change.name] = value
        applied = {**parameters.effective(), **passing}
        self._sandbox.assume({name: applied[name] for name in applied if name not in unset})


def ignore(_message: Message) -> None:
    """Drop what answers a statement of the sandbox's own."""


def _asks_for_names(statement: Statement) -> bool:
    """Say whether the names in it tell what it writes."""
    return not (statement.changes_schema or statement.sees_no_work)


def _is_plain(statement: Statement) -> bool:
    """Say whether a read is the same in a READ ONLY transaction."""
    return statement.kind is Kind.READ and not statement.words.startswith(("SHOW", "SET"))


def _wrote_nothing(answer: Answer) -> bool:
    return bool(answer.tags) and all(
        re.match(r"(INSERT 0|UPDATE|DELETE|MERGE|SELECT) 0$", tag) for tag in answer.tags
    )


_CANCEL_AGAIN = 0.1  # seconds

# What PostgreSQL says because connections share one transaction.
_ERRORS_OF_SHARING = {
    "55006": "another connection has an open cursor there, for whose end it would wait",
    "55P04": "the value was added in this test, whose transaction is not over",
}
