"""The private server of a run: what tests may do on it, and what becomes of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from stillroom.testing.databases import Databases
from stillroom.testing.databases.server import PrivateServer
from stillroom.testing.databases.template import Template, TemplateError
from stillroom.testing.isolation.clone import CloneIsolation
from stillroom.testing.loop import SharedLoop


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    """Give the private server of a project that keeps nothing elsewhere."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "caches"))
        server = PrivateServer(folder)
        server.launch()
        yield server
        server.stop()


class OneTable:
    """A schema of one table."""

    def digest(self) -> str:
        """Name it."""
        return "one_table"

    def build(self, url: str) -> None:
        """Create it."""
        asyncio.run(execute(url, "CREATE TABLE thing ()"))


async def execute(url: str, *statements: str) -> None:
    """Run statements over a connection of their own."""
    connection = await cast("Any", asyncpg).connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def prepare(url: str, name: str) -> None:
    """Leave a transaction behind that is only prepared."""
    await execute(url, "BEGIN; CREATE TABLE left_behind ()", f"PREPARE TRANSACTION '{name}'")


async def test_a_database_with_a_prepared_transaction_is_dropped(server: PrivateServer) -> None:
    """The server allows one, and it outlives its connection: nothing but its rollback ends it."""
    run = Databases(server)
    name, other = await run.create(), await run.create()
    await prepare(server.url(name), "it''s one")
    await prepare(server.url(other), "another")

    await run.drop(name)

    names = [row[0] for row in await run.rows("SELECT database FROM pg_prepared_xacts")]
    assert names == [other]
    await run.close()


async def test_the_next_run_drops_what_a_killed_one_has_prepared(server: PrivateServer) -> None:
    """A test may be killed between the two phases, and no run after it would begin."""
    killed, watching = Databases(server), Databases(server)
    name = await killed.create()
    await prepare(server.url(name), "of a killed run")
    pid = await killed.value("SELECT pg_backend_pid()")
    await watching.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    killed._connection.terminate()

    later = Databases(server)

    sql = "SELECT count(*) FROM pg_database WHERE datname = $1"
    assert await later.value(sql, name) == 0
    for run in (watching, later):
        await run.close()


def test_a_clone_that_cannot_be_dropped_stops_no_other(
    server: PrivateServer, shared: SharedLoop
) -> None:
    """It is dropped with the run; the tests that come have their databases."""
    databases = Databases(server)
    clones = CloneIsolation(
        shared, server, databases, Template(OneTable(), shared, server, databases)
    )
    clones.stand_at(["first"])
    shared.call(databases.execute(f"ALTER DATABASE {name_in(clones.url())} IS_TEMPLATE true"))
    first = name_in(clones.url())
    clones.stand_at(["second"])

    assert name_in(clones.url()) != first

    shared.call(databases.execute(f"ALTER DATABASE {first} IS_TEMPLATE false"))
    clones.close()
    assert first in databases.made
    shared.call(databases.close())


async def test_many_connections_are_closed_before_the_next_test(
    server: PrivateServer, shared: SharedLoop
) -> None:
    """The server has places for so many, and the next test may want them all."""
    databases = Databases(server)
    clones = CloneIsolation(
        shared, server, databases, Template(OneTable(), shared, server, databases)
    )
    target = clones.stand_at(["first"])
    arguments: dict[str, Any] = {}
    await asyncio.to_thread(
        target.direct, create_async_engine("postgresql+asyncpg://").dialect, arguments
    )
    opened = [await cast("Any", asyncpg).connect(**arguments) for _ in range(30)]
    counted = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
    first = name_in(await asyncio.to_thread(clones.url))
    assert await opened[0].fetchval(counted, first) == 30
    relay = clones._levels[-1]._relay
    clones._clones._may_rest = True  # as where clones are ready

    await asyncio.to_thread(clones.stand_at, ["second"])

    assert relay is not None
    assert not relay.connections
    assert all(connection.is_closed() for connection in opened)
    await asyncio.to_thread(clones.close)
    await asyncio.to_thread(shared.call, databases.close())


async def test_what_is_planned_ahead_is_not_done(server: PrivateServer, shared: SharedLoop) -> None:
    """A connection plans what the last test has sent before a test has it, and changes nothing."""
    databases = Databases(server)
    clones = CloneIsolation(
        shared, server, databases, Template(OneTable(), shared, server, databases)
    )
    insert = "INSERT INTO thing DEFAULT VALUES"
    clones.note([insert, f"{insert}; {insert}", "DROP TABLE thing", "SELECT * FROM nowhere"])
    clones.stand_at(["a test"])
    connection = await cast("Any", asyncpg).connect(await asyncio.to_thread(clones.url))
    assert await connection.fetch("SELECT * FROM thing") == []
    await connection.close()
    await asyncio.to_thread(clones.close)
    await asyncio.to_thread(shared.call, databases.close())


def test_a_server_that_has_not_started_ends_each_test_and_nothing_else(
    shared: SharedLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test without a database has cost nothing, and the end of the run has its words to say."""
    monkeypatch.setenv("STILLROOM_POSTGRES_BIN", str(tmp_path))
    server = PrivateServer(tmp_path)
    assert server.origin == "private, not started"
    server.launch()
    databases = Databases(server)
    clones = CloneIsolation(
        shared, server, databases, Template(OneTable(), shared, server, databases)
    )
    clones.stand_at(["a test"])

    with pytest.raises(TemplateError, match="PostgresNotFoundError"):
        clones.url()

    assert clones.cost.tests == 0
    assert server.origin == "private, not started"
    clones.close()
    server.stop()


def name_in(url: str) -> str:
    """Return the name of the database of a URL."""
    return url.rpartition("/")[2].partition("?")[0]
