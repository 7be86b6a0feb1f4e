"""The transactions of one logical connection and their savepoints, within the one of the test."""

import re
from typing import TYPE_CHECKING

from stillroom.testing.backend import BackendError
from stillroom.testing.execution import Execution, ignore
from stillroom.testing.refusal import Refusal, SandboxError
from stillroom.testing.session import Session, Transaction, identifier, savepoint, short
from stillroom.testing.statements import Statement

if TYPE_CHECKING:
    from stillroom.testing.sandbox import Sandbox


class Transactions:
    """Do what BEGIN, COMMIT, ROLLBACK and SAVEPOINT say; none of them reaches PostgreSQL."""

    def __init__(self, sandbox: "Sandbox", session: Session, execution: Execution) -> None:
        self._sandbox = sandbox
        self._session = session
        self._execution = execution

    async def control(self, statement: Statement) -> str:
        """Run a statement; return the command's tag."""
        words, session = statement.words, self._session
        session.statement = short(statement.text)
        refusal = f"{session.statement!r}: {statement.refusal}" if statement.refusal else ""
        if re.match(r"BEGIN|START", words):
            session.begin(words)
            if session.transaction is not None:
                session.transaction.refusal = refusal or session.transaction.refusal
            return "BEGIN"
        if refusal:
            raise Refusal(refusal)
        if words.startswith("SET"):
            if session.transaction is not None:
                session.transaction.note(words)
            return "SET"
        if re.match(r"ROLLBACK( WORK| TRANSACTION)? TO\b|SAVEPOINT|RELEASE", words):
            return await self._savepoint(words, statement.text)
        return await self._finish(is_commit=bool(re.match(r"COMMIT|END", words)))

    async def _savepoint(self, words: str, sql: str) -> str:
        session, transaction = self._session, self._session.transaction
        if transaction is None:
            raise SandboxError(
                "25P01", f"{words.split(maxsplit=1)[0]} can only be used in transaction blocks"
            )
        if transaction.is_lost:
            session.refuse_where_failed()
        name = identifier(sql)
        if words.startswith("SAVEPOINT"):
            session.refuse_where_failed()
            await self._run(f"SAVEPOINT {savepoint(name)}")
            transaction.savepoints.append((name, session.parameters.copy()))
            return "SAVEPOINT"
        names = [known for known, _ in transaction.savepoints]
        if name not in names:
            transaction.has_failed = True
            raise SandboxError("3B001", f'savepoint "{name}" does not exist')
        index = len(names) - 1 - names[::-1].index(name)
        if words.startswith("RELEASE"):
            session.refuse_where_failed()
            await self._run(f"RELEASE SAVEPOINT {savepoint(name)}")
            del transaction.savepoints[index:]
            return "RELEASE"
        await self._run(f"ROLLBACK TO SAVEPOINT {savepoint(name)}")
        session.parameters.restore(transaction.savepoints[index][1])
        self._sandbox.assume(session.parameters.effective())
        del transaction.savepoints[index + 1 :]
        transaction.has_failed = False
        return "ROLLBACK"

    async def _run(self, sql: str) -> None:
        """Run a statement on savepoints, which makes the session the owner."""
        sandbox, session = self._sandbox, self._session
        async with sandbox.gate.turn(session):
            await sandbox.prepare(session.parameters.startup)
            sandbox.gate.own(session)
            switch = sandbox.switch(session.parameters.effective())
            if switch and not sql.startswith("ROLLBACK"):
                await sandbox.backend.send(switch, ignore).done
            await sandbox.backend.query(sql)

    async def _finish(self, *, is_commit: bool) -> str:
        session, transaction = self._session, self._session.transaction
        if transaction is None:
            return "COMMIT" if is_commit else "ROLLBACK"
        commits = is_commit and not transaction.has_failed
        session.transaction = None
        if not commits:
            session.parameters.restore(transaction.earlier)
        session.parameters.local.clear()
        await self._execution.locks.end_transaction()
        if self._sandbox.gate.owner is session or self._execution.prepared.open_portals:
            async with self._sandbox.gate.turn(session):
                await self._finish_in_turn(transaction, commits=commits)
        return "COMMIT" if commits else "ROLLBACK"

    async def _finish_in_turn(self, transaction: Transaction, *, commits: bool) -> None:
        sandbox, session, execution = self._sandbox, self._session, self._execution
        try:
            if execution.prepared.open_portals:
                await sandbox.backend.send(execution.prepared.close_portals(), ignore).done
            if sandbox.gate.owner is session and commits:
                await sandbox.commit(session, execution.temporary.at_commit())
            elif sandbox.gate.owner is session:
                await sandbox.undo()
        except BackendError:
            session.parameters.restore(transaction.earlier)
            raise
        finally:
            execution.temporary.clear()
            sandbox.gate.release(session)
