"""The advisory locks of one logical connection, on a real connection of their own."""

from collections.abc import Awaitable, Callable

from stillroom.testing.refusal import CANCELLED, Refusal, SandboxError
from stillroom.testing.sandbox.parameters import Values, apply
from stillroom.testing.sandbox.session import Savepoint, Session
from stillroom.testing.wire.backend import Answer, Backend
from stillroom.testing.wire.messages import Message, error_fields


class AdvisoryLocks:
    """Take and give back locks where those of two logical connections can meet.

    All logical connections are one holder on the physical connection that they share. Who waits
    for longer than `wait` seconds gets a Refusal, unless the session bounds the wait by itself.
    """

    def __init__(
        self, session: Session, connect: Callable[[], Awaitable[Backend]], wait: float
    ) -> None:
        self.is_busy = False
        self.depth: int | None = None
        """How many levels were wanted when something was first locked; None if nothing is."""
        self._releases = 0
        self._session = session
        self._connect = connect
        self._wait = wait
        self._backend: Backend | None = None
        self._applied: Values = {}
        self._has_begun = False

    async def run(self, data: bytes, deliver: Callable[[Message], None]) -> Answer:
        """Run statements that do nothing but lock, and deliver their answer."""
        depth, releases = self._session.depth, self._releases
        if self.depth is None or (self.depth < depth and not await self._holds_any()):
            self.depth = depth
        backend = await self._prepared()
        if releases != self._releases:  # its test has ended meanwhile
            raise SandboxError("57014", CANCELLED)
        refused: list[Message] = []

        def take(message: Message) -> None:
            is_late = message.kind == b"E" and error_fields(message.body).get("C") == "55P03"
            if is_late and not self._is_bounded():
                refused.append(message)
            else:
                deliver(message)

        self.is_busy = True
        try:
            answer = await backend.send(data, take).done
        finally:
            self.is_busy = False
        if refused:
            raise Refusal(
                f"{self._session.statement!r} has waited {self._wait:g} s for a lock that another "
                "connection holds and does not give back"
            )
        return answer

    async def roll_back_to(self, savepoint: Savepoint) -> None:
        """Give back what was locked since a savepoint."""
        if savepoint.is_aside and self._has_begun and self._backend is not None:
            await self._backend.query(f"ROLLBACK TO SAVEPOINT {savepoint.identifier}")

    async def end_transaction(self) -> None:
        """Give back what was locked until the end of the transaction."""
        if self._has_begun and self._backend is not None:
            await self._backend.query("ROLLBACK")  # nothing but locks is there
        self._has_begun = False
        self._applied.clear()

    async def cancel(self) -> None:
        """Cancel what waits for a lock."""
        if self._backend is not None:
            await self._backend.cancel()

    async def release(self) -> None:
        """Give back all; the connection stays, with the statements that are prepared on it."""
        self._releases += 1
        self.depth = None
        if self._backend is None:
            return
        if self.is_busy:
            await self._backend.cancel()
        await self.end_transaction()
        await self._backend.query("SELECT pg_advisory_unlock_all()")

    async def close(self) -> None:
        """Give back all, and hang up."""
        backend, self._backend, self._has_begun = self._backend, None, False
        self.depth = None
        self._applied.clear()
        if backend is not None:
            await backend.close()

    async def _prepared(self) -> Backend:
        """Return the connection, under the timeouts and within the savepoints of the session."""
        if self._backend is None:
            self._backend = await self._connect()
        sql: list[str] = []
        transaction = self._session.transaction
        if transaction is not None and not self._has_begun:
            sql.append("BEGIN")
            self._has_begun = True
        values = self._session.parameters.effective()
        wanted = {
            "lock_timeout": values["lock_timeout"] if self._is_bounded() else f"{self._wait}s",
            "statement_timeout": values.get("statement_timeout", "0"),
        }
        sql.append(apply(wanted, self._applied))
        self._applied = wanted
        for savepoint in transaction.savepoints if transaction is not None else ():
            if not savepoint.is_aside:
                savepoint.is_aside = True
                sql.append(f"SAVEPOINT {savepoint.identifier}")
        if text := "; ".join(filter(None, sql)):
            await self._backend.query(text)
        return self._backend

    async def _holds_any(self) -> bool:
        """Say whether anything is locked still, of what a wider scope has locked."""
        return self._backend is not None and bool(await self._backend.query(_HELD))

    def _is_bounded(self) -> bool:
        value = self._session.parameters.effective().get("lock_timeout", "0")
        return value.strip(" 0") != ""


_HELD = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
