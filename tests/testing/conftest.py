"""One schema, on a plain connection and in a sandbox."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from stillroom.testing.engines import DatabaseTarget, SandboxTarget, Target, direct_to, install
from stillroom.testing.sandbox import Sandbox
from stillroom.testing.transport import AnyLoop
from tests.conftest import NewDatabase

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE author (id serial PRIMARY KEY, name text NOT NULL UNIQUE, feels mood,
    born timestamptz NOT NULL DEFAULT clock_timestamp(), data jsonb);
CREATE TABLE book (id serial PRIMARY KEY, title text NOT NULL,
    author_id int REFERENCES author (id) DEFERRABLE INITIALLY DEFERRED,
    pages int CHECK (pages > 0));
CREATE FUNCTION write_author(name text) RETURNS int LANGUAGE sql
    AS 'INSERT INTO author (name) VALUES ($1) RETURNING id';
"""

TRAP = "postgresql+asyncpg://nobody:secret@database.invalid:5432/production"
"""A URL that leads nowhere: who connects there instead of to the sandbox gets an error."""


class RunningSandbox:
    """A sandbox in a thread, driven from tests."""

    def __init__(self, url: str) -> None:
        """Open a sandbox on a database."""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.sandbox = self.call(self._open(url))
        self.target = SandboxTarget(AnyLoop(self.loop, self.sandbox.accept))

    def call(self, work: Any) -> Any:
        """Run a coroutine in the sandbox's thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        """End the thread."""
        self.call(self.sandbox.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @staticmethod
    async def _open(url: str) -> Sandbox:
        sandbox = Sandbox({"dsn": url}, wait=1.0)
        await sandbox.open()
        return sandbox


@pytest.fixture(scope="session")
def schema_url(new_database: NewDatabase) -> str:
    """Give the URL of a database with the schema."""
    url = new_database()
    asyncio.run(_create(url))
    return url


async def _create(url: str) -> None:
    connection = await cast("Any", asyncpg).connect(url)
    await connection.execute(SCHEMA)
    await connection.close()


@pytest.fixture(scope="session")
def running_sandbox(schema_url: str) -> Iterator[RunningSandbox]:
    """Run one sandbox for all tests."""
    running = RunningSandbox(schema_url)
    yield running
    running.close()


@pytest.fixture
def sandbox(running_sandbox: RunningSandbox, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Give the sandbox, rolled back after the test."""
    sandbox = running_sandbox.sandbox
    running_sandbox.call(sandbox.stand_at([request.node.nodeid]))
    sandbox.refusals.clear()
    yield sandbox
    running_sandbox.call(sandbox.stand_at([]))


@pytest.fixture(params=["plain", "sandbox"])
def target(request: pytest.FixtureRequest, new_database: NewDatabase) -> Target:
    """Give a database of the test's own, or the sandbox."""
    if request.param == "sandbox":
        request.getfixturevalue("sandbox")
        running: RunningSandbox = request.getfixturevalue("running_sandbox")
        return running.target
    url = new_database()
    asyncio.run(_create(url))
    return DatabaseTarget(url)


@pytest.fixture
async def engine(target: Target) -> AsyncIterator[AsyncEngine]:
    """Give an engine whose own URL leads nowhere."""
    async for engine in _engine(target):
        yield engine


@pytest.fixture
async def sandboxed(
    running_sandbox: RunningSandbox, sandbox: Sandbox
) -> AsyncIterator[AsyncEngine]:
    """Give such an engine in the sandbox."""
    async for engine in _engine(running_sandbox.target):
        yield engine


async def _engine(target: Target) -> AsyncIterator[AsyncEngine]:
    install()
    direct_to(target)
    engine = create_async_engine(TRAP, pool_size=20)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    yield engine
    await engine.dispose()
    direct_to(None)
