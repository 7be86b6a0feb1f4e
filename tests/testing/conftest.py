"""One schema: in a sandbox, and in databases that are copied from one template."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from stillroom.postgres import Cluster
from stillroom.testing.engines import DatabaseTarget, SandboxTarget, direct_to, install
from stillroom.testing.engines.drivers import own_connections
from stillroom.testing.loop import SharedLoop
from stillroom.testing.sandbox import Sandbox
from stillroom.testing.wire.relay import Relay
from stillroom.testing.wire.transport import AnyLoop

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE author (id serial PRIMARY KEY, name text NOT NULL UNIQUE, feels mood,
    born timestamptz NOT NULL DEFAULT clock_timestamp(), data jsonb);
CREATE TABLE book (id serial PRIMARY KEY, title text NOT NULL,
    author_id int REFERENCES author (id),
    pages int CHECK (pages > 0));
CREATE FUNCTION write_author(name text) RETURNS int LANGUAGE sql
    AS 'INSERT INTO author (name) VALUES ($1) RETURNING id';
CREATE TABLE note (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant text NOT NULL);
ALTER TABLE note ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON note USING (tenant = current_setting('app.tenant', true));
CREATE ROLE tenant;
GRANT SELECT, INSERT, UPDATE ON note TO tenant;
"""

TEMPLATE = "conformance"

TRAP = "postgresql+asyncpg://nobody:secret@database.invalid:5432/production"
"""A URL that leads nowhere: who connects there instead of to the sandbox gets an error."""


@pytest.fixture
def shared() -> Iterator[SharedLoop]:
    """Give a loop that has started."""
    shared = SharedLoop()
    shared.start()
    yield shared
    shared.stop()


class RunningSandbox:
    """A sandbox in a shared loop, driven from tests."""

    def __init__(self, url: str) -> None:
        """Open a sandbox on a database."""
        self.url = url
        self.loop = SharedLoop()
        self.loop.start()
        self.sandbox = self.call(self._open(url))
        self.target = SandboxTarget(AnyLoop(self.loop, self.sandbox.accept))

    def stand_at(self, *levels: str) -> None:
        """Leave the levels that are not named, as between two tests."""
        if not self.loop.at_once(self.sandbox.stand_at_once, levels):
            self.call(self.sandbox.stand_at(levels))

    def call(self, work: Any) -> Any:
        """Run a coroutine in the sandbox's loop."""
        return self.loop.call(work)

    def close(self) -> None:
        """End the sandbox and its loop."""
        self.call(self.sandbox.close())
        self.loop.stop()

    @staticmethod
    async def _open(url: str) -> Sandbox:
        sandbox = Sandbox({"dsn": url}, wait=1.0)
        await sandbox.open()
        return sandbox


class Copies:
    """Databases with the schema, each of them a copy of one template."""

    def __init__(self, cluster: Cluster) -> None:
        """Create the template."""
        self._cluster = cluster
        self._numbers = count(1)
        cluster.create_database(TEMPLATE)
        asyncio.run(_execute(cluster.url(TEMPLATE), SCHEMA))

    def create(self) -> str:
        """Copy the template; return the URL."""
        name = f"test_copy_{next(self._numbers)}"
        self._administer(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        return self._cluster.url(name)

    def drop(self, url: str) -> None:
        """Drop a copy, with the connections to it."""
        self._administer(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def _administer(self, sql: str) -> None:
        asyncio.run(_execute(self._cluster.url("postgres"), sql))


async def _execute(url: str, sql: str) -> None:
    connection = await cast("Any", asyncpg).connect(url)
    await connection.execute(sql)
    await connection.close()


@pytest.fixture(scope="session")
def copies(cluster: Cluster) -> Copies:
    """Give the copies of the template."""
    return Copies(cluster)


@pytest.fixture(scope="session")
def schema_url(copies: Copies) -> str:
    """Give the URL of the database of the sandbox."""
    return copies.create()


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
    running_sandbox.stand_at(request.node.nodeid)
    sandbox.refusals.clear()
    yield sandbox
    running_sandbox.stand_at()


@pytest.fixture
async def sandboxed(
    running_sandbox: RunningSandbox, sandbox: Sandbox
) -> AsyncIterator[AsyncEngine]:
    """Give such an engine in the sandbox."""
    install()
    direct_to(running_sandbox.target)
    engine = create_async_engine(TRAP, pool_size=20)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    yield engine
    await engine.dispose()
    direct_to(None)


@pytest.fixture(scope="session")
def plain_url(copies: Copies) -> str:
    """Give the URL of one copy, for a test that empties it by itself."""
    return copies.create()


NewEngine = Callable[..., AsyncEngine]
"""Make an engine, disposed of after the test, by the arguments of create_async_engine()."""


@dataclass
class Target:
    """Say where the engines of a test connect to, and what goes on there."""

    name: str
    url: str
    running: RunningSandbox

    async def runs(self, words: str) -> None:
        """Return when PostgreSQL runs a statement with these words."""
        await self._see(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'active' "
            "AND position($1 IN query) > 0 AND pid <> pg_backend_pid())",
            words,
        )

    async def is_waited_for(self) -> None:
        """Return when a connection waits for another one's lock, or for its turn."""
        if self.name != "sandbox":
            await self._see("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
            return
        while not self.running.sandbox.gate.has_waiting:  # noqa: ASYNC110  (another thread's)
            await asyncio.sleep(0.001)

    async def _see(self, sql: str, *values: str) -> None:
        with own_connections():
            connection = await cast("Any", asyncpg).connect(self.url)
        while not await connection.fetchval(sql, *values):  # PostgreSQL has nothing to await
            pass
        await connection.close()


@pytest.fixture(params=["plain", "clone", "sandbox"])
def target(
    request: pytest.FixtureRequest, copies: Copies, running_sandbox: RunningSandbox
) -> Iterator[Target]:
    """Send every engine to a database of the test's own, or into the sandbox."""
    name: str = request.param
    install()
    if name == "sandbox":
        request.getfixturevalue("sandbox")
        direct_to(running_sandbox.target)
        yield Target(name, running_sandbox.url, running_sandbox)
        direct_to(None)
        return
    url = copies.create()
    relay = Relay({"dsn": url})
    loop = AnyLoop(running_sandbox.loop, relay.accept) if name == "clone" else None
    direct_to(DatabaseTarget(url, loop))
    yield Target(name, url, running_sandbox)
    direct_to(None)
    running_sandbox.call(relay.close())
    copies.drop(url)


@pytest.fixture
async def new_engine() -> AsyncIterator[NewEngine]:
    """Give a function that makes engines whose own URL leads nowhere."""
    engines: list[AsyncEngine] = []

    def make(**arguments: Any) -> AsyncEngine:
        engines.append(create_async_engine(TRAP, **arguments))
        return engines[-1]

    yield make
    for engine in engines:
        await engine.dispose()


@pytest.fixture
def engine(target: Target, new_engine: NewEngine) -> AsyncEngine:
    """Give an engine with a pool that is large enough, for each target in turn."""
    _ = target
    return new_engine(pool_size=20)
