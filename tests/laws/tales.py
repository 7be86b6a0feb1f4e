"""The ways by which a secret of a request comes into an error, and from there into a log."""

import asyncio
import logging
import threading
import warnings
from typing import Any

from pydantic import BaseModel
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.manager import DatabaseSessionManager
from tests.laws.models import Item


class Number(BaseModel):
    """Hold a number, and refuse all else by quoting it."""

    number: int


class Tales:
    """Tell a secret, each method in another way."""

    def __init__(self, manager: DatabaseSessionManager, db: AsyncSession, secret: str) -> None:
        self._manager = manager
        self._db = db
        self._secret = secret
        self._tasks: list[asyncio.Task[None]] = []

    async def refused(self) -> None:
        """Insert a row that breaks a rule, in a session of its own."""
        async with self._manager.begin() as session:
            await self._insert(session)

    async def message(self) -> None:
        """Put it into the message of an exception."""
        msg = f"somebody came who is named {self._secret}"
        raise RuntimeError(msg)

    async def key(self) -> None:
        """Look it up where it is not."""
        _ = {"one": "1"}[self._secret]

    async def number(self) -> None:
        """Take it for a number."""
        int(self._secret)

    async def argument(self) -> None:
        """Take it for the name of an argument."""
        method: Any = self.argument
        method(**{self._secret: 1})

    async def keyword(self) -> None:
        """Take it for the name of a column."""
        Item(**{self._secret: 1})

    async def attribute(self) -> None:
        """Take it for the name of an attribute."""
        getattr(Item, self._secret)

    async def model(self) -> None:
        """Give it to a model that refuses it."""
        Number.model_validate({"number": self._secret})

    async def note(self) -> None:
        """Add it to an exception as a note."""
        error = RuntimeError("noted")
        error.add_note(self._secret)
        raise error

    async def context(self) -> None:
        """Raise while an error that quotes it is handled."""
        try:
            await self._insert(self._db)
        except DBAPIError:
            msg = "it went wrong"
            raise RuntimeError(msg)  # noqa: B904  (that is the way)

    async def group(self) -> None:
        """Raise two errors at once."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.number())
            group.create_task(self.refused())

    async def task(self) -> None:
        """Never ask what has become of a task."""
        task = asyncio.create_task(self.refused())
        await asyncio.wait([task])

    async def callback(self) -> None:
        """Fail in a callback of the event loop."""
        asyncio.get_running_loop().call_soon(int, self._secret)

    async def thread(self) -> None:
        """Fail in a thread that nobody asks."""
        thread = threading.Thread(target=int, args=[self._secret])
        thread.start()
        await asyncio.to_thread(thread.join)

    async def warning(self) -> None:
        """Quote it in a warning, as SQLAlchemy does with the key of a row."""
        warnings.warn(f"identity key ('{self._secret}',)", SAWarning, stacklevel=1)

    async def notice(self) -> None:
        """Let PostgreSQL say it, which psycopg's dialect logs."""
        await self._db.execute(text(f"DO $$ BEGIN RAISE WARNING '{self._secret}'; END $$"))

    async def echo(self) -> None:
        """Let SQLAlchemy log statements, parameters and rows."""
        engine: Any = self._manager.engine.sync_engine
        engine.echo = "debug"
        async with self._manager.session() as session:
            query = text("SELECT CAST(:secret AS text)")
            assert await session.scalar(query, {"secret": self._secret}) == self._secret
        engine.echo = False

    async def log(self) -> None:
        """Log an error of the database, as an application does."""
        logger = logging.getLogger("application")
        try:
            await self._insert(self._db)
        except DBAPIError as error:
            logger.exception("it went wrong: %s %r", error, error)  # noqa: TRY401  (that is the way)
            logger.warning(error)
            logger.warning("it went wrong: %(error)s", {"error": error})

    async def _insert(self, session: AsyncSession) -> None:
        await session.execute(insert(Item).values(name=self._secret, size=9999))
