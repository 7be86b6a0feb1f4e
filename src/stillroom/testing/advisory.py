"""The advisory locks of one logical connection, on a real connection of their own."""

from collections.abc import Awaitable, Callable

from stillroom.testing.backend import Answer, Backend
from stillroom.testing.messages import Message
from stillroom.testing.session import Session


class AdvisoryLocks:
    """Take and give back locks where those of two logical connections can meet.

    All logical connections are one holder on the physical connection that they share.
    """

    def __init__(self, session: Session, connect: Callable[[], Awaitable[Backend]]) -> None:
        self.is_busy = False
        self._session = session
        self._connect = connect
        self._backend: Backend | None = None
        self._has_begun = False

    async def run(self, data: bytes, sink: Callable[[Message], None]) -> Answer:
        """Run statements that do nothing but lock; their answer goes to the sink."""
        if self._backend is None:
            self._backend = await self._connect()
        if self._session.transaction is not None and not self._has_begun:
            await self._backend.query("BEGIN")
            self._has_begun = True
        self.is_busy = True
        try:
            return await self._backend.send(data, sink).done
        finally:
            self.is_busy = False

    async def end_transaction(self) -> None:
        """Give back what was locked until the end of the transaction."""
        if self._has_begun and self._backend is not None:
            await self._backend.query("ROLLBACK")  # nothing but locks is there
        self._has_begun = False

    async def cancel(self) -> None:
        """Cancel what waits for a lock."""
        if self._backend is not None:
            await self._backend.cancel()

    async def close(self) -> None:
        """Give back all."""
        backend, self._backend, self._has_begun = self._backend, None, False
        if backend is not None:
            await backend.close()
