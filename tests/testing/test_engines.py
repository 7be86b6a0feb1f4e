"""Engines and their pools, from one target to the next."""

import asyncio
import gc
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.dialects.postgresql.pg8000 import PGDialect_pg8000
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import (
    AssertionPool,
    AsyncAdaptedQueuePool,
    NullPool,
    Pool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
)

from stillroom.engine import EngineSettings
from stillroom.manager import DatabaseSessionManager
from stillroom.testing.engines import (
    DatabaseTarget,
    StrayConnectionError,
    Target,
    direct_to,
    install,
    routed,
    take_strays,
    uninstall,
)
from stillroom.testing.engines.drivers import own_connections
from stillroom.testing.refusal import MARKER
from stillroom.testing.sandbox import Sandbox
from stillroom.testing.wire.relay import Relay
from stillroom.testing.wire.transport import AnyLoop
from tests.conftest import NewDatabase
from tests.testing.conftest import TRAP, RunningSandbox

WHERE = text("SELECT current_database()")
DATABASES = ("sandbox", "one", "two")


class Places:
    """The targets of a run, and the name of the database that each leads to."""

    def __init__(self, running: RunningSandbox, sandbox: str, one: str, two: str) -> None:
        """Take the sandbox, and URLs of databases."""
        self._running = running
        self.relays = {name: Relay({"dsn": url}) for name, url in (("one", one), ("two", two))}
        self.urls = {"sandbox": sandbox, "one": one, "two": two}
        self.names = {name: url.split("?")[0].rpartition("/")[2] for name, url in self.urls.items()}
        self._targets: dict[str, Target] = {"sandbox": running.target}
        for name, relay in self.relays.items():
            loop = AnyLoop(running.loop, relay.accept)
            self._targets[name] = DatabaseTarget(self.urls[name], loop)

    def enter(self, name: str) -> str:
        """Direct engines to a place; return the name of its database."""
        direct_to(self._targets[name])
        return self.names[name]

    async def leave(self, name: str) -> None:
        """End all connections of a clone, as when it is dropped."""
        await asyncio.to_thread(self._running.call, self.relays[name].close())


@pytest.fixture
def places(
    running_sandbox: RunningSandbox,
    sandbox: Sandbox,
    schema_url: str,
    new_database: NewDatabase,
) -> Iterator[Places]:
    """Give a sandbox and two databases."""
    install()
    places = Places(running_sandbox, schema_url, new_database(), new_database())
    yield places
    for relay in places.relays.values():
        running_sandbox.call(relay.close())
    uninstall()
    take_strays()


@pytest.fixture
def new_engine() -> Iterator[Callable[..., Engine]]:
    """Give a function that makes an engine of psycopg, with a URL that leads nowhere."""
    with ExitStack() as stack:

        def create(url: str = TRAP.replace("asyncpg", "psycopg"), **options: Any) -> Engine:
            engine = create_engine(url, **options)
            stack.callback(engine.dispose)
            return engine

        yield create


@pytest.fixture
async def new_async_engine() -> AsyncIterator[Callable[..., AsyncEngine]]:
    """Give a function that makes an asynchronous engine, with a URL that leads nowhere."""
    async with AsyncExitStack() as stack:

        def create(url: str = TRAP, **options: Any) -> AsyncEngine:
            engine = create_async_engine(url, **options)
            stack.push_async_callback(engine.dispose)
            return engine

        yield create


@pytest.mark.parametrize("pre_ping", [False, True])
@pytest.mark.parametrize("pool", [AsyncAdaptedQueuePool, NullPool, StaticPool, AssertionPool])
async def test_a_pool_follows_the_test(
    places: Places,
    new_async_engine: Callable[..., AsyncEngine],
    pool: type[Pool],
    pre_ping: bool,
) -> None:
    """From the sandbox to a clone, to another one, and back, in each kind of pool."""
    engine = new_async_engine(poolclass=pool, pool_pre_ping=pre_ping)
    for name in ("sandbox", "one", "two", "sandbox", "sandbox", "one"):
        expected = places.enter(name)
        for _ in range(2):
            async with engine.connect() as connection:
                assert await connection.scalar(WHERE) == expected


@pytest.mark.parametrize("pre_ping", [False, True])
@pytest.mark.parametrize("pool", [QueuePool, NullPool, StaticPool, SingletonThreadPool])
def test_a_pool_of_psycopg_follows_the_test(
    places: Places, new_engine: Callable[..., Engine], pool: type[Pool], pre_ping: bool
) -> None:
    """From one clone to the next; the sandbox is not for it."""
    engine = new_engine(poolclass=pool, pool_pre_ping=pre_ping)
    for name in ("one", "two", "one"):
        expected = places.enter(name)
        for _ in range(2):
            with engine.connect() as connection:
                assert connection.scalar(WHERE) == expected
    places.enter("sandbox")
    with pytest.raises(StrayConnectionError, match="knows asyncpg alone"):
        engine.connect()
    expected = places.enter("two")
    with engine.connect() as connection:
        assert connection.scalar(WHERE) == expected


@pytest.mark.parametrize("pre_ping", [False, True])
@pytest.mark.parametrize("is_dropped", [False, True])
async def test_a_whole_pool_that_has_gone_stale_follows(
    places: Places, new_async_engine: Callable[..., AsyncEngine], pre_ping: bool, is_dropped: bool
) -> None:
    """Twenty connections at once, each replaced when it is taken; their clone may be gone."""
    engine = new_async_engine(pool_size=20, max_overflow=0, pool_pre_ping=pre_ping)

    async def take_all() -> set[str]:
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(engine.connect()) for _ in range(20)]
            return {str(await connection.scalar(WHERE)) for connection in connections}

    for name in ("one", "sandbox", "two", "sandbox"):
        expected = places.enter(name)
        assert await take_all() == {expected}
        if is_dropped and name in places.relays:
            await places.leave(name)
    assert cast("Any", engine.pool).checkedin() == 20


async def test_a_pool_that_is_older_than_the_run_follows(
    places: Places, new_async_engine: Callable[..., AsyncEngine], database_url: str
) -> None:
    """Its real connections are closed, and none of them is used."""
    uninstall()
    engine = new_async_engine(database_url.replace("://", "+asyncpg://", 1))
    async with engine.connect() as connection:
        assert (await connection.scalar(WHERE)) in database_url
    install()

    expected = places.enter("sandbox")
    async with engine.connect() as connection:
        assert await connection.scalar(WHERE) == expected


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_pool_of_a_loop_that_has_ended_follows(
    places: Places, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A real connection from before the run cannot be closed any more; it is let go."""
    caplog.set_level(logging.CRITICAL, "sqlalchemy.pool")  # a log would keep the connection
    uninstall()
    engine = create_async_engine(TRAP)
    with routed(database_url):
        asyncio.run(_fill(engine))
    expected = places.enter("sandbox")

    async def read() -> str:
        async with engine.connect() as connection:
            name = str(await connection.scalar(WHERE))
        await engine.dispose()
        return name

    assert asyncio.run(read()) == expected
    gc.collect()  # now, so that it warns of the socket here


async def _fill(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(WHERE)


async def test_a_pool_that_outlives_the_run_goes_where_its_url_says(
    places: Places, new_async_engine: Callable[..., AsyncEngine], database_url: str
) -> None:
    """A connection of the sandbox would lead nowhere any more."""
    engine = new_async_engine(database_url.replace("://", "+asyncpg://", 1))
    expected = places.enter("sandbox")
    async with engine.connect() as connection:
        assert await connection.scalar(WHERE) == expected

    direct_to(None)
    async with engine.connect() as connection:
        assert (await connection.scalar(WHERE)) in database_url


async def test_a_pool_with_a_creator_of_its_own_follows(
    places: Places, new_async_engine: Callable[..., AsyncEngine]
) -> None:
    """What its creator has made for one clone is not used in the next one."""

    async def create() -> object:
        return await cast("Any", asyncpg).connect(places.urls[name])

    engine = new_async_engine(async_creator=create)
    for name in ("one", "two", "one"):
        expected = places.enter(name)
        async with engine.connect() as connection:
            assert await connection.scalar(WHERE) == expected
    places.enter("sandbox")
    with pytest.raises(StrayConnectionError, match="past the engines"):
        async with engine.connect():
            pass


def test_an_engine_for_another_database_is_left_alone(
    places: Places, new_engine: Callable[..., Engine]
) -> None:
    """SQLite's pool keeps its connection, which would be its data."""
    engine = new_engine("sqlite://")
    for name in DATABASES:
        places.enter(name)
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {name} (id int)"))

    assert inspect(engine).get_table_names() == sorted(DATABASES)


@pytest.mark.parametrize(("start", "end"), [("sandbox", "one"), ("one", "sandbox"), ("one", "two")])
async def test_a_connection_that_is_kept_open_does_not_cross_over(
    places: Places, new_async_engine: Callable[..., AsyncEngine], start: str, end: str
) -> None:
    """It would write where nobody looks: its next statement is refused, and nothing is sent."""
    engine = new_async_engine()
    places.enter(start)
    async with AsyncSession(engine) as session:
        await session.execute(WHERE)
        expected = places.enter(end)
        with pytest.raises(StrayConnectionError, match=r"test_engines\.py.*kept open") as caught:
            await session.execute(WHERE)
        assert MARKER in str(caught.value)
        assert len(take_strays()) == 1
        await session.rollback()
        assert await session.scalar(WHERE) == expected  # on a connection that it takes anew


async def test_an_open_transaction_of_a_clone_is_lost_with_it(
    places: Places, new_async_engine: Callable[..., AsyncEngine]
) -> None:
    """Its end is an error, as when PostgreSQL drops a database; the pool goes on in the next."""
    engine = new_async_engine()
    places.enter("one")
    session = AsyncSession(engine)
    await session.execute(text("CREATE TABLE kept (id int)"))
    await places.leave("one")
    expected = places.enter("sandbox")
    with pytest.raises(StrayConnectionError):
        await session.execute(WHERE)
    with pytest.raises(InterfaceError, match="connection is closed"):
        await session.close()
    async with AsyncSession(engine) as another:
        assert await another.scalar(WHERE) == expected
    await engine.dispose()
    places.enter("two")
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT to_regclass('kept')")) is None


async def test_a_kept_connection_works_again_in_its_own_place(
    places: Places, new_async_engine: Callable[..., AsyncEngine]
) -> None:
    """A session of the sandbox that was idle in the test of a clone."""
    engine = new_async_engine()
    expected = places.enter("sandbox")
    async with engine.connect() as connection:
        await connection.scalar(WHERE)
        await connection.rollback()
        places.enter("one")
        places.enter("sandbox")
        assert await connection.scalar(WHERE) == expected


@pytest.mark.parametrize("ping_after", [0.0, 60.0])
async def test_the_pool_of_the_manager_follows(places: Places, ping_after: float) -> None:
    """With its own listeners at checkout and checkin, for reads and writes."""
    settings = EngineSettings(pool_size=20, ping_after=ping_after)
    manager = DatabaseSessionManager()
    manager.init(TRAP, settings=settings)

    async def take_all(read_only: bool) -> set[str]:
        async with AsyncExitStack() as stack:
            sessions = [
                await stack.enter_async_context(manager.new_session(read_only=read_only))
                for _ in range(20)
            ]
            return {str(await session.scalar(WHERE)) for session in sessions}

    for name in ("sandbox", "one", "sandbox", "two", "one"):
        expected = places.enter(name)
        assert await take_all(read_only=False) == {expected}
        assert await take_all(read_only=True) == {expected}
    await manager.close()


async def test_the_manager_replaces_a_pool_that_was_cut_off(places: Places) -> None:
    """Its ping finds one connection dead and trusts none of the others, as with a real server."""
    manager = DatabaseSessionManager()
    manager.init(TRAP, settings=EngineSettings(pool_size=5, ping_after=0))
    expected = places.enter("one")

    async def take_all() -> set[str]:
        async with AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(manager.new_session()) for _ in range(5)]
            return {str(await session.scalar(WHERE)) for session in sessions}

    assert await take_all() == {expected}
    with own_connections():
        administrator = await cast("Any", asyncpg).connect(places.urls["two"])
    sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1"
    assert len(await administrator.fetch(sql, expected)) == 5
    await administrator.close()
    await places.leave("one")
    assert await take_all() == {expected}
    await manager.close()


async def test_a_session_of_the_manager_that_is_kept_open_loses_no_slot(places: Places) -> None:
    """The one connection of its pool is there again in the next database."""
    manager = DatabaseSessionManager()
    manager.init(TRAP, settings=EngineSettings(pool_size=1, pool_timeout=0.5))
    places.enter("one")
    session = manager.new_session()
    await session.execute(WHERE)
    await places.leave("one")
    expected = places.enter("sandbox")
    with pytest.raises(StrayConnectionError):
        await session.execute(WHERE)
    await session.close()
    async with manager.new_session() as another:
        assert await another.scalar(WHERE) == expected
    await manager.close()


def test_a_pool_is_bound_to_no_event_loop(places: Places) -> None:
    """An application that is built once serves tests that each have a loop of their own."""
    engine = create_async_engine(TRAP, pool_size=5)

    async def take_all() -> set[str]:
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(engine.connect()) for _ in range(5)]
            return {str(await connection.scalar(WHERE)) for connection in connections}

    for name in ("sandbox", "sandbox", "one", "one", "sandbox"):
        expected = places.enter(name)
        assert asyncio.run(take_all()) == {expected}
    asyncio.run(engine.dispose())


async def test_only_its_own_threads_are_routed(
    places: Places, database_url: str, new_engine: Callable[..., Engine]
) -> None:
    """A database that is being built is not for the threads of the application."""
    engine = new_engine(poolclass=NullPool)
    go, found = threading.Event(), list[str]()

    def read() -> None:
        with engine.connect() as connection:
            found.append(str(connection.scalar(WHERE)))

    def wait_and_read() -> None:
        go.wait()
        read()

    expected = places.enter("one")
    older = threading.Thread(target=wait_and_read)
    older.start()
    with routed(database_url):
        go.set()
        older.join()
        assert found.pop() == expected
        for work in (read, lambda: _in_a_thread(read)):
            work()
            assert found.pop() in database_url
    read()
    assert found.pop() == expected


def _in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


async def test_uninstalled_engines_are_left_alone(
    places: Places, new_async_engine: Callable[..., AsyncEngine], database_url: str
) -> None:
    """They connect to where their URLs say, and a pool goes with them."""
    engine = new_async_engine(database_url.replace("://", "+asyncpg://", 1))
    places.enter("sandbox")
    uninstall()
    connection: AsyncConnection
    async with engine.connect() as connection:
        assert (await connection.scalar(WHERE)) in database_url


def test_an_unknown_driver_is_refused(running_sandbox: RunningSandbox, schema_url: str) -> None:
    """What it would take from the environment is not known."""
    for target in (running_sandbox.target, DatabaseTarget(schema_url)):
        with pytest.raises(StrayConnectionError, match="An engine for pg8000"):
            target.direct(cast("Any", PGDialect_pg8000)(), {})


async def test_a_refusal_of_psycopg_is_remembered(
    places: Places, new_async_engine: Callable[..., AsyncEngine], new_engine: Callable[..., Engine]
) -> None:
    """By either form of the driver: it names the caller and the marker."""
    places.enter("sandbox")
    with pytest.raises(StrayConnectionError, match=r"psycopg was used by tests/testing/test_eng"):
        new_engine().connect()
    with pytest.raises(StrayConnectionError) as caught:
        async with new_async_engine(TRAP.replace("asyncpg", "psycopg")).connect():
            pass
    assert MARKER in str(caught.value)
    assert [str(stray) for stray in take_strays()][1:] == [str(caught.value)]


async def test_an_open_transaction_of_the_sandbox_is_lost_with_the_test(
    places: Places,
    new_async_engine: Callable[..., AsyncEngine],
    running_sandbox: RunningSandbox,
    sandbox: Sandbox,
) -> None:
    """From one test of the sandbox to the next a connection stays, and says what it has lost."""
    places.enter("sandbox")
    engine = new_async_engine()
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO author (name) VALUES ('a')"))
        await asyncio.to_thread(running_sandbox.stand_at, "next")
        with pytest.raises(DBAPIError, match="begun in a test that has ended"):
            await connection.execute(WHERE)


async def test_the_settings_that_an_engine_starts_with_hold_in_each_test(
    places: Places,
    new_async_engine: Callable[..., AsyncEngine],
    running_sandbox: RunningSandbox,
    sandbox: Sandbox,
) -> None:
    """The rollback of one test does not take them from the next one."""
    places.enter("sandbox")
    settings = {"server_settings": {"work_mem": "5MB"}}
    engine = new_async_engine(connect_args=settings)
    for name in ("one", "two"):
        await asyncio.to_thread(running_sandbox.stand_at, name)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SHOW work_mem")) == "5MB"


def test_a_pool_that_was_waited_on_is_waited_on_in_the_next_loop(
    running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """Asyncio's queue belongs to the loop of its first wait; the pool of an engine does not."""
    assert sandbox
    install()
    direct_to(running_sandbox.target)
    engine = create_async_engine(TRAP, pool_size=1, max_overflow=0)

    async def one(_: int) -> int:
        async with engine.connect() as connection:
            return int((await connection.execute(text("SELECT 1"))).scalar_one())

    async def several() -> list[int]:
        return await asyncio.gather(*map(one, range(5)))

    assert [asyncio.run(several()) for _ in range(3)] == [[1] * 5] * 3
    asyncio.run(engine.dispose())
    direct_to(None)


def test_a_forked_process_is_refused(running_sandbox: RunningSandbox, sandbox: Sandbox) -> None:
    """The sandbox is in a thread, and a fork has none of the threads of its parent."""
    assert sandbox
    install()
    direct_to(running_sandbox.target)
    engine = create_async_engine(TRAP)

    async def connect() -> str:
        try:
            async with engine.connect():
                return "connected"
        except StrayConnectionError as error:
            return str(error)

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, asyncio.run(connect()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert "forked from that of the tests" in answer.read()
    os.waitpid(child, 0)
    direct_to(None)


async def test_a_connection_that_is_dropped_outside_of_a_loop_gives_its_work_up(
    sandboxed: AsyncEngine,
) -> None:
    """SQLAlchemy ends a connection that nobody holds when it is collected, in any thread."""
    connection = await sandboxed.connect()
    await connection.execute(text("INSERT INTO author (name) VALUES ('a')"))
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None

    await asyncio.to_thread(driver.terminate)

    async with sandboxed.connect() as other:
        assert (await other.execute(text("SELECT name FROM author"))).all() == []
    await connection.invalidate()
    await connection.close()
