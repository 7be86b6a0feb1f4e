"""The transactions of one logical connection and their savepoints, within the one of the test."""

import re
from typing import TYPE_CHECKING

from stillroom.testing.refusal import Refusal, SandboxError
from stillroom.testing.sandbox.execution import Execution, ignore
from stillroom.testing.sandbox.session import Savepoint, Session, Transaction, identifier, short
from stillroom.testing.sandbox.statements import Statement
from stillroom.testing.wire.backend import BackendError

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
        words, session, transaction = statement.words, self._session, self._session.transaction
        session.statement = short(statement.text)
        if re.match(r"BEGIN|START", words):
            return self.begin(statement)
        if statement.refusal:
            raise Refusal(f"{session.statement!r}: {statement.refusal}")
        if words.startswith("SET"):
            self._set_mode(statement)
            return "SET"
        if words.startswith(("CLOSE", "DEALLOCATE", "DISCARD")):
            session.refuse_where_failed()
            await self._execution.discard(words)
            return {"CLOSE": "CLOSE CURSOR ALL", "DEALLOCATE": "DEALLOCATE ALL"}.get(
                words.partition(" ")[0], words
            )
        if re.match(r"ROLLBACK( WORK| TRANSACTION)? TO\b|SAVEPOINT|RELEASE", words):
            return await self._savepoint(words, statement.text)
        if "AND CHAIN" in words and transaction is None:
            what = words.partition(" ")[0]
            raise SandboxError("25P01", f"{what} AND CHAIN can only be used in transaction blocks")
        tag = await self._finish(is_commit=bool(re.match(r"COMMIT|END", words)))
        if "AND CHAIN" in words and transaction is not None:
            session.begin(transaction.words)
        return tag

    def begin(self, statement: Statement) -> str:
        """Begin a transaction; return the command's tag."""
        session = self._session
        session.begin(statement.words)
        if session.transaction is not None and statement.refusal:
            session.transaction.refusal = f"{short(statement.text)!r}: {statement.refusal}"
        return "BEGIN"

    def leave(self, transaction: Transaction, *, commits: bool) -> None:
        """Forget a transaction, and the parameters that end with it."""
        session = self._session
        session.transaction = None
        if not commits:
            session.parameters.restore(transaction.earlier)
        session.parameters.local.clear()

    def _set_mode(self, statement: Statement) -> None:
        session = self._session
        session.refuse_where_failed()
        if found := _MODE.search(statement.text):
            session.set_mode(found["name"].lower(), found["value"])
            session.refuse_where_failed()
        elif session.transaction is not None:
            session.transaction.note(statement.words)

    async def _savepoint(self, words: str, sql: str) -> str:
        session, transaction = self._session, self._session.transaction
        if transaction is None:
            raise SandboxError(
                "25P01", f"{words.split(maxsplit=1)[0]} can only be used in transaction blocks"
            )
        if transaction.is_lost:
            session.refuse_where_failed()
        name = identifier(sql)
        if not words.startswith("ROLLBACK"):
            session.refuse_where_failed()
        if words.startswith("SAVEPOINT"):
            transaction.savepoints.append(
                Savepoint(name, session.parameters.copy(), transaction.is_read_only)
            )
            return "SAVEPOINT"
        names = [savepoint.name for savepoint in transaction.savepoints]
        if name not in names:
            transaction.has_failed = True
            raise SandboxError("3B001", f'savepoint "{name}" does not exist')
        index = len(names) - 1 - names[::-1].index(name)
        savepoint = transaction.savepoints[index]
        if words.startswith("RELEASE"):
            if savepoint.applied is not None:
                async with self._sandbox.gate.turn(session):
                    await self._sandbox.backend.query(f"RELEASE SAVEPOINT {savepoint.identifier}")
            del transaction.savepoints[index:]
            transaction.is_read_only = savepoint.is_read_only
            return "RELEASE"
        if savepoint.applied is not None:
            async with self._sandbox.gate.turn(session):
                await self._sandbox.undo_to(session, savepoint)
        await self._execution.locks.roll_back_to(savepoint)
        session.parameters.restore(savepoint.parameters)
        transaction.is_read_only = savepoint.is_read_only
        del transaction.savepoints[index + 1 :]
        transaction.has_failed = False
        return "ROLLBACK"

    async def _finish(self, *, is_commit: bool) -> str:
        session, transaction = self._session, self._session.transaction
        if transaction is None:
            return "COMMIT" if is_commit else "ROLLBACK"
        commits = is_commit and not transaction.has_failed
        self.leave(transaction, commits=commits)
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
                await sandbox.commit(session)
            elif sandbox.gate.owner is session:
                await sandbox.undo(session)
        except BackendError:
            session.parameters.restore(transaction.earlier)
            raise
        finally:
            sandbox.gate.release(session)


_MODE = re.compile(
    r"^\s*SET\s+(?:LOCAL\s+|SESSION\s+)?(?P<name>transaction_read_only|transaction_isolation)"
    r"\s*(?:=|\sTO\s)\s*'?(?P<value>\w+(?: \w+)?)'?\s*$",
    re.IGNORECASE,
)
