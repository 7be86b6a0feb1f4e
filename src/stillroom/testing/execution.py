"""The statements of one logical connection, run in turns on the physical one."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stillroom.testing import messages
from stillroom.testing.advisory import AdvisoryLocks
from stillroom.testing.backend import Answer
from stillroom.testing.messages import Message, Messages
from stillroom.testing.parameters import changes
from stillroom.testing.prepared import Prepared, Request
from stillroom.testing.refusal import Refusal
from stillroom.testing.session import Session, savepoint, short
from stillroom.testing.statements import Kind, Statement
from stillroom.testing.temporary import TemporaryTables

if TYPE_CHECKING:
    from stillroom.testing.sandbox import Sandbox


class Execution:
    """Run what is no transaction control, under the session's parameters and within its rights."""

    def __init__(
        self, sandbox: "Sandbox", session: Session, deliver: Callable[[bytes], None]
    ) -> None:
        self.prepared = Prepared(session.number)
        self.temporary = TemporaryTables()
        self.locks = AdvisoryLocks(session, sandbox.open_aside)
        self._sandbox = sandbox
        self._session = session
        self._deliver = deliver
        self._request: Request

    async def run(self, request: Request) -> bool:
        """Run statements in a turn, their answer is delivered; say whether they succeeded."""
        session, gate = self._session, self._sandbox.gate
        looked_at = (*request.executed, *request.parsed)
        session.refuse_where_failed(looked_at)
        for statement in looked_at:
            if statement.refusal:
                raise Refusal(f"{short(statement.text)!r}: {statement.refusal}")
        session.note(looked_at)
        self._request = request
        if any(statement.is_advisory for statement in looked_at):
            if all(statement.is_alone for statement in looked_at):
                return await self._lock()
            self._sandbox.lock_rows(session)
        passes = self.prepared.only_fetches(request.unit) or (
            bool(looked_at) and all(statement.sees_no_work for statement in looked_at)
        )
        async with gate.turn(session, passes_owner=passes):
            return await self._run_in_turn()

    async def close(self, request: Request) -> None:
        """Run a unit that only closes statements and portals."""
        async with self._sandbox.gate.turn(self._session, passes_owner=True):
            await self._sandbox.backend.send(request.data, self._forward).done

    async def clear(self) -> None:
        """Leave nothing of the session on the physical connection."""
        gate = self._sandbox.gate
        if gate.owner is not self._session and not self.prepared and not self.temporary:
            return
        async with gate.turn(self._session, passes_owner=True):
            if gate.owner is self._session:
                await self._sandbox.undo()
                gate.release(self._session)
            await self._sandbox.backend.send(self.prepared.close_statements(), ignore).done

    async def _lock(self) -> bool:
        answer = await self.locks.run(self._request.data, self._forward)
        if answer.error is not None:
            self._session.fail()
        return answer.error is None

    async def _run_in_turn(self) -> bool:
        sandbox, session, gate = self._sandbox, self._session, self._sandbox.gate
        statements = self._request.executed
        await sandbox.prepare(session.parameters.startup)
        session.refuse_older_snapshot(sandbox.commits)
        within = gate.owner is not None and gate.owner is not session  # it passes
        writes = any(self._writes(statement) for statement in statements)
        read_only = session.is_read_only and any(
            writes or not _is_plain(statement) for statement in statements
        )
        if writes and not read_only:
            gate.own(session)
        prefix = sandbox.switch(session.wanted(statements))
        if read_only:
            prefix += messages.query("SAVEPOINT r; SET LOCAL transaction_read_only = on")
        elif within:
            prefix += messages.query("SAVEPOINT r")
        answer = await self._exchange(prefix, guarded=read_only or within)
        if answer.error is not None:
            await self._roll_back("r" if within else "s")
            return False
        await self._learn(answer)
        opens = session.transaction is not None and self.prepared.note_open(self._request, answer)
        if gate.owner is session and session.transaction is None:
            await sandbox.commit(session, self.temporary.at_commit())
        elif opens and gate.owner is None:
            await sandbox.seal()
        return True

    async def _exchange(self, prefix: bytes, *, guarded: bool) -> Answer:
        """Send it all at once, and wait for the last answer."""
        backend, request = self._sandbox.backend, self._request
        before = [backend.send(part, ignore) for part in _queries(prefix)]
        pending = backend.send(request.data, self._forward)
        after = backend.send(messages.query("RELEASE SAVEPOINT r"), ignore) if guarded else None
        answer = await pending.done
        request.unit.end_copy()
        for sent in (*before, *((after,) if after is not None else ())):
            other = await sent.done
            if sent is not after and other.error is not None:
                self._deliver(Message(b"E", other.error).encode())
                answer.error = answer.error or other.error
        return answer

    def _forward(self, message: Message) -> None:
        if message.kind == b"A" or self.prepared.drops(message):
            return
        if message.kind == b"G":
            self._request.unit.start_copy(self._sandbox.backend.write)
        self._deliver(message.encode())

    async def _roll_back(self, name: str) -> None:
        """Undo what failed: the statement of a reader, all of a writer, back to its savepoint.

        The physical connection runs on: others pass, whether or not this one rolls back soon.
        """
        sandbox, session, gate = self._sandbox, self._session, self._sandbox.gate
        if name == "r":
            await sandbox.undo("r")
            await sandbox.backend.query("RELEASE SAVEPOINT r")
        elif gate.owner is session and session.transaction and session.transaction.savepoints:
            last, parameters = session.transaction.savepoints[-1]
            await sandbox.undo(savepoint(last))
            sandbox.assume(parameters.effective())
        else:
            await sandbox.undo()
            gate.release(session)
        session.fail()

    def _writes(self, statement: Statement) -> bool:
        if statement.kind is Kind.WRITE:
            return True
        return bool(statement.functions & self._sandbox.writing_functions)

    async def _learn(self, answer: Answer) -> None:
        """Note what later statements depend on."""
        for statement in self._request.executed:
            if self._writes(statement) and not _wrote_nothing(answer):
                self._session.xid = str(1000 + self._sandbox.commits)
            self.temporary.note(statement)
            if statement.changes_schema:
                self._sandbox.forget_checks()
            if found := _FUNCTION.search(statement.text):
                self._sandbox.writing_functions.add(found[1].upper())
        for statement in self._request.executed:
            if statement.is_setting:
                await self._learn_parameters(statement, self._request.bound)

    async def _learn_parameters(self, statement: Statement, bound: Sequence[bytes | None]) -> None:
        parameters = self._session.parameters
        for change in changes(statement, bound):
            if change.is_reset or change.name is None:
                parameters.reset(change.name)
                continue
            values = parameters.local if change.is_local else parameters.session
            name = change.name.replace("'", "''")
            rows = await self._sandbox.backend.query(f"SELECT current_setting('{name}', true)")
            if change.is_local and self._session.transaction is None:
                continue
            parameters.local.pop(change.name, None)
            values[change.name] = rows[0][0] or ""
        self._sandbox.assume(parameters.effective())


def ignore(_message: Message) -> None:
    """Drop what answers a statement of the sandbox's own."""


def _queries(data: bytes) -> list[bytes]:
    return [message.encode() for message in Messages().feed(data)]


def _is_plain(statement: Statement) -> bool:
    """Say whether a read is the same in a READ ONLY transaction."""
    return statement.kind is Kind.READ and not statement.words.startswith(("SHOW", "SET"))


def _wrote_nothing(answer: Answer) -> bool:
    return bool(answer.tags) and all(
        re.match(r"(INSERT 0|UPDATE|DELETE|MERGE|SELECT) 0$", tag) for tag in answer.tags
    )


_FUNCTION = re.compile(
    r"^\s*CREATE\s+(?:OR\s+REPLACE\s+)?FUNCTION\s+(?:\w+\.)?\"?(\w+)", re.IGNORECASE
)
