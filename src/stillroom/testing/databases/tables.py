"""The tables of a project without revisions, made from its metadata."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import MetaData, UpdateBase, create_mock_engine

from stillroom.engine import EngineSettings, create_engine
from stillroom.testing.databases.sources import digest, loaded
from stillroom.testing.named import find
from stillroom.url import parse_url


class Tables:
    """The tables of a metadata, of a project without revisions."""

    def __init__(self, name: str) -> None:
        """Take where the metadata is, as in app.models:Base.metadata."""
        self._name = name

    def digest(self) -> str:
        """Name the statements that make the tables, and the values that they send.

        Where they cannot be told without a database (a listener that asks it something) the name
        is that of all modules of the project that are loaded. It is also in the name where rows are
        written, for a default may be any function.
        """
        metadata = self._metadata()
        statements: list[str] = []
        writes = False

        def take(statement: Any, parameters: object = None) -> None:
            nonlocal writes
            writes = writes or isinstance(statement, UpdateBase)
            compiled = statement.compile(dialect=engine.dialect)
            statements.append(f"{compiled}\0{compiled.params}\0{parameters}")

        engine = create_mock_engine("postgresql+asyncpg://", take)
        try:
            metadata.create_all(engine, checkfirst=False)
        except Exception:  # noqa: BLE001  (whatever a listener raises, the answer is below)
            return digest(loaded())
        if writes:
            statements.append(digest(loaded()))
        return hashlib.sha256("\0".join(statements).encode()).hexdigest()[:16]

    def build(self, url: str) -> None:
        """Create all tables. Raises ConfigurationError when there is no such metadata."""
        metadata = self._metadata()
        with ThreadPoolExecutor(1) as executor:
            executor.submit(lambda: asyncio.run(_create(metadata, url))).result()

    def _metadata(self) -> MetaData:
        return find("stillroom_metadata", self._name, MetaData)


async def _create(metadata: MetaData, url: str) -> None:
    engine = create_engine(parse_url(url), EngineSettings(statement_timeout=0))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
