"""Connections that are opened past the engines: by a driver itself, whoever calls it."""

import inspect
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

import asyncpg
import psycopg
import pytest
from asyncpg import (  # held from their import on, as an application has them
    connect,  # pyright: ignore[reportUnknownVariableType]
    create_pool,  # pyright: ignore[reportUnknownVariableType]
)
from psycopg import connect as connect_psycopg
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

from stillroom.testing.engines import (
    DatabaseTarget,
    StrayConnectionError,
    allow,
    direct_to,
    disallow,
    install,
    take_strays,
    uninstall,
)
from stillroom.testing.engines.drivers import FUNNELS, own_connections
from stillroom.testing.refusal import MARKER
from stillroom.testing.sandbox import Sandbox
from tests.testing.conftest import RunningSandbox
from tests.testing.trap import Trap, set_trap

Way = Callable[[Trap], Awaitable[object]]


async def by_asyncpg(trap: Trap) -> None:
    """Call the plain function, imported by name."""
    await cast("Any", connect)(trap.url(), timeout=2)


async def by_keywords(trap: Trap) -> None:
    """Name several hosts."""
    await cast("Any", connect)(
        host=["127.0.0.1", "127.0.0.1"], port=[trap.port, trap.port], database="a", timeout=2
    )


async def by_a_pool_of_asyncpg(trap: Trap) -> None:
    """Fill a pool of the driver's own."""
    await cast("Any", create_pool)(trap.url(), min_size=1, timeout=2)


async def by_the_environment(trap: Trap) -> None:
    """Give no argument at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGHOST", "127.0.0.1")
        patch.setenv("PGPORT", str(trap.port))
        await cast("Any", connect)(timeout=2)


async def by_psycopg(trap: Trap) -> None:
    """Call the plain function, imported by name."""
    connect_psycopg(trap.url(), connect_timeout=2)


async def by_psycopg_async(trap: Trap) -> None:
    """Call its asynchronous form."""
    await psycopg.AsyncConnection.connect(trap.url(), connect_timeout=2)


async def by_several_hosts_of_psycopg(trap: Trap) -> None:
    """Name several hosts."""
    ports = f"{trap.port},{trap.port}"
    connect_psycopg(host="localhost,127.0.0.1", port=ports, connect_timeout=2)


async def by_a_service(trap: Trap) -> None:
    """Let a file say where to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSERVICE", "production")
        connect_psycopg("dbname=production", connect_timeout=2)


async def by_a_creator(trap: Trap) -> None:
    """Use an engine that does not connect by itself."""
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect_psycopg(trap.url(), connect_timeout=2)
    )
    engine.connect()


async def by_an_async_creator(trap: Trap) -> None:
    """Use an asynchronous one."""

    async def create() -> object:
        return await cast("Any", connect)(trap.url(), timeout=2)

    async with create_async_engine("postgresql+asyncpg://", async_creator=create).connect():
        pass


async def by_a_pool(trap: Trap) -> None:
    """Use a pool of SQLAlchemy's without an engine."""
    pool = QueuePool(lambda: cast("Any", connect_psycopg(trap.url(), connect_timeout=2)))
    pool.connect()


async def by_a_listener(trap: Trap) -> None:
    """Let a listener of the engine's own have the last word about the host."""
    engine = create_async_engine("postgresql+asyncpg://a@127.0.0.1/b")

    def lead(_dialect: object, _record: object, _arguments: object, named: dict[str, Any]) -> None:
        named.update(host="127.0.0.1", port=trap.port, timeout=2)

    event.listen(engine.sync_engine, "do_connect", lead)
    async with engine.connect():
        pass


WAYS: list[Way] = [
    by_asyncpg,
    by_keywords,
    by_a_pool_of_asyncpg,
    by_the_environment,
    by_psycopg,
    by_psycopg_async,
    by_several_hosts_of_psycopg,
    by_a_service,
    by_a_creator,
    by_an_async_creator,
    by_a_pool,
    by_a_listener,
]


@pytest.fixture
def trap() -> Iterator[Trap]:
    """Set a trap, which must be empty at the end."""
    with set_trap() as trap:
        yield trap


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    """Undo what the test has hooked."""
    install()
    yield
    uninstall()
    take_strays()


@pytest.fixture(params=["sandbox", "database"])
def directed(request: pytest.FixtureRequest, schema_url: str) -> None:
    """Direct engines into the sandbox, or to a database."""
    if request.param == "database":
        direct_to(DatabaseTarget(schema_url))
        return
    request.getfixturevalue("sandbox")
    direct_to(cast("RunningSandbox", request.getfixturevalue("running_sandbox")).target)


@pytest.mark.parametrize("way", WAYS)
async def test_no_driver_connects_by_itself(directed: None, trap: Trap, way: Way) -> None:
    """It is an error that names the caller and what to do, and shows no password."""
    with pytest.raises(StrayConnectionError) as caught:
        await way(trap)

    message = str(caught.value)
    assert message.startswith(f"tests/testing/test_drivers.py:{line_of(caught.value, way)} asked")
    assert MARKER in message
    assert "secret" not in message


def line_of(error: BaseException, way: Way) -> int:
    """Return the line of this file at which the error passed last."""
    lines: list[int] = []
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == __file__:
            lines.append(traceback.tb_lineno)
        traceback = traceback.tb_next
    first = inspect.getsourcelines(way)[1]
    assert lines[-1] > first
    return lines[-1]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_an_engine_is_led_away_from_the_trap(
    trap: Trap, driver: str, schema_url: str
) -> None:
    """Whatever server its URL names."""
    direct_to(DatabaseTarget(schema_url))
    engine = create_async_engine(trap.url(f"+{driver}"))
    async with engine.connect() as connection:
        assert (await connection.scalar(text("SELECT current_user"))) == "postgres"
    await engine.dispose()


async def test_an_engine_gets_the_sandbox_instead_of_the_trap(
    trap: Trap, running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """Whatever server its URL names."""
    direct_to(running_sandbox.target)
    engine = create_async_engine(trap.url("+asyncpg"))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    await engine.dispose()


async def test_the_message_names_what_was_tried(schema_url: str, trap: Trap) -> None:
    """Database, host and port."""
    direct_to(DatabaseTarget(schema_url))
    named = f"database production, host 127.0.0.1, port {trap.port}"
    with pytest.raises(StrayConnectionError, match=named):
        await by_asyncpg(trap)
    with pytest.raises(StrayConnectionError, match=named):
        await by_psycopg(trap)
    with pytest.raises(StrayConnectionError, match="of the service production"):
        await by_a_service(trap)


async def test_what_an_application_passes_over_is_remembered(schema_url: str, trap: Trap) -> None:
    """The plugin can fail the test all the same."""
    direct_to(DatabaseTarget(schema_url))
    with suppress(Exception):
        await by_psycopg(trap)

    assert len(take_strays()) == 1
    assert take_strays() == []


async def test_drivers_connect_to_the_database_of_the_test(schema_url: str) -> None:
    """And to no other one of the same server."""
    direct_to(DatabaseTarget(schema_url))
    connection = await cast("Any", asyncpg).connect(schema_url)
    assert await connection.fetchval("SELECT count(*) FROM author") == 0
    await connection.close()
    with connect_psycopg(schema_url) as plain:
        assert plain.execute("SELECT count(*) FROM author").fetchone() == (0,)
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect_psycopg(schema_url))
    with engine.connect() as created:
        assert created.scalar(text("SELECT count(*) FROM author")) == 0
    engine.dispose()
    other = schema_url.replace("/test_", "/other_")
    assert other != schema_url
    with pytest.raises(StrayConnectionError, match="database other_"):
        connect_psycopg(other)


async def test_a_service_or_an_address_leads_away_from_the_test(
    schema_url: str, monkeypatch: pytest.MonkeyPatch, trap: Trap
) -> None:
    """Libpq takes an address of the environment before the host of the URL."""
    direct_to(DatabaseTarget(schema_url))
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    with pytest.raises(StrayConnectionError, match=r"host 127\.0\.0\.1"):
        connect_psycopg(schema_url)
    monkeypatch.delenv("PGHOSTADDR")
    monkeypatch.setenv("PGSERVICE", "production")
    with pytest.raises(StrayConnectionError, match="of the service production"):
        connect_psycopg(schema_url)


async def test_databases_that_the_run_has_made_are_allowed(
    schema_url: str, database_url: str
) -> None:
    """For drivers, and for engines too: their own databases are not the test's."""
    direct_to(DatabaseTarget(schema_url))
    allow(database_url)
    with connect_psycopg(database_url) as plain:
        assert plain.info.dbname in database_url
    engine = create_async_engine(database_url.replace("://", "+asyncpg://", 1))
    async with engine.connect() as connection:
        assert (await connection.scalar(text("SELECT current_database()"))) in database_url
    await engine.dispose()
    disallow(database_url)
    async with engine.connect() as connection:
        assert (await connection.scalar(text("SELECT current_database()"))) in schema_url
    await engine.dispose()
    with pytest.raises(StrayConnectionError):
        connect_psycopg(database_url)


async def test_the_connections_of_the_run_itself_pass(schema_url: str, database_url: str) -> None:
    """They say so."""
    direct_to(DatabaseTarget(schema_url))
    with own_connections():
        connection = await cast("Any", asyncpg).connect(database_url)
    await connection.close()
    with pytest.raises(StrayConnectionError):
        await cast("Any", asyncpg).connect(database_url)


async def test_without_a_target_all_is_as_ever(database_url: str) -> None:
    """Before a run, after it, and in a test that has no database."""
    connection = await cast("Any", asyncpg).connect(database_url)
    await connection.close()
    connect_psycopg(database_url).close()


def test_the_drivers_are_left_as_they_were() -> None:
    """`uninstall()` restores each function, and what finds the modules."""
    uninstall()
    before = {name: getattr(import_module(name), FUNNELS[name][0]) for name in INSTALLED}
    finders = list(sys.meta_path)
    install()
    install()
    during = {name: getattr(import_module(name), FUNNELS[name][0]) for name in INSTALLED}
    uninstall()
    after = {name: getattr(import_module(name), FUNNELS[name][0]) for name in INSTALLED}

    assert all(during[name] is not before[name] for name in INSTALLED)
    assert after == before
    assert sys.meta_path == finders


INSTALLED = [name for name in FUNNELS if name != "psycopg2"]


def test_a_driver_is_watched_from_its_import_on() -> None:
    """Psycopg is not imported for the sake of watching it, which would cost its users' peers."""
    script = (
        "import sys\n"
        "from stillroom.testing.engines import *\n"
        "install()\n"
        "direct_to(DatabaseTarget('postgresql://a@/b?host=/nowhere'))\n"
        "assert 'psycopg' not in sys.modules\n"
        "import psycopg\n"
        "assert psycopg.connection.__spec__.loader is psycopg.connection.__loader__\n"
        "try: psycopg.connect('host=/elsewhere')\n"
        "except StrayConnectionError as error: print(error)\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "host /elsewhere" in answer.stdout, answer.stderr


def test_the_inner_functions_of_the_drivers_are_there() -> None:
    """What is watched are inner names: a release that changes them is found out here."""

    def parameters(module: str) -> list[str]:
        return list(
            inspect.signature(getattr(import_module(module), FUNNELS[module][0])).parameters
        )

    uninstall()
    inner = ["addr", "loop", "params", "config", "connection_class", "record_class"]
    assert parameters("asyncpg.connect_utils") == inner
    assert parameters("psycopg.connection") == ["params"]
    assert parameters("psycopg.connection_async") == ["params"]


def test_psycopg2_is_watched_where_it_is_installed(schema_url: str, trap: Trap) -> None:
    """It is not a driver of Stillroom's, and yet may be one of the project's."""
    psycopg2: Any = import_module("psycopg2")
    direct_to(DatabaseTarget(schema_url))
    with pytest.raises(StrayConnectionError, match="database production"):
        psycopg2.connect(trap.url(), connect_timeout=2)
    psycopg2.connect(schema_url).close()
    engine = create_engine(trap.url("+psycopg2"))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_user")) == "postgres"
    engine.dispose()
