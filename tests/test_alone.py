"""Statements that are transactions by themselves, past SQLAlchemy's Connection."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.pool import NullPool

from stillroom.engine import EngineSettings, create_engine
from stillroom.json import JSONRow
from stillroom.manager import DatabaseSessionManager
from stillroom.session import ServiceSession
from stillroom.url import parse_url
from tests.test_json_inserts import Base, Jar, JarView, names, new
from tests.test_manager import nothing_left

ONE_JAR = JSONRow(Jar, JarView)


@pytest.fixture
async def manager(driver_url: str) -> AsyncIterator[DatabaseSessionManager]:
    """Give a manager of a database with the table and one connection, which is soon too old."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(driver_url, settings=EngineSettings(pool_size=1, recycle_after=0.3))
    async with manager.connect() as connection:
        await manager.create_all(connection)
    yield manager
    if manager.is_open:
        await manager.close()


@pytest.fixture
def database(database_url: str) -> Iterator["psycopg.Connection[Any]"]:
    """Give a connection of somebody else."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def insert(manager: DatabaseSessionManager, name: str) -> bytes:
    """Insert a jar by a statement alone."""
    async with manager.session() as session:
        return await session.commit_with(*new(name=name))


async def read(manager: DatabaseSessionManager) -> bytes | None:
    """Read a jar that is not there by a statement alone."""
    async with manager.session(read_only=True) as session:
        return await ONE_JAR.get(session, "00000000-0000-0000-0000-000000000000")


async def grow_old(manager: DatabaseSessionManager, *, read_only: bool, waiting: Any) -> Any:
    """Hold the only connection, while somebody waits for it, until it is too old."""
    engine = manager.read_engine if read_only else manager.engine
    makers: list[Any] = []
    async with manager.session(read_only=read_only) as session:
        connection: Any = await (await session.connection()).get_raw_connection()
        event.listen(
            engine.sync_engine, "connect", lambda *_: makers.append(asyncio.current_task())
        )
        task = asyncio.ensure_future(waiting)
        record = connection._connection_record
        pool: Any = engine.pool
        async with asyncio.timeout(10):
            while not (pool._is_stale(record) and len(pool._line)):  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)
    answer = await task
    assert len(makers) == 1
    assert task not in makers
    return answer


async def test_who_has_waited_for_a_connection_gets_none_that_is_too_old(
    manager: DatabaseSessionManager,
) -> None:
    """It is made anew in the background, whoever hands it over."""
    await insert(manager, "before")
    assert b'"after"' in await grow_old(manager, read_only=False, waiting=insert(manager, "after"))
    assert await grow_old(manager, read_only=True, waiting=read(manager)) is None
    assert await names(manager) == ["after", "before"]
    await nothing_left(manager)


@pytest.mark.parametrize("name", ["checkin", "checkout", "reset"])
async def test_a_listener_of_the_pool_may_ask_the_database(
    manager: DatabaseSessionManager, name: str
) -> None:
    """What it does is waited for, on the way from the pool and back; no connection is lost."""
    await insert(manager, "before")
    asked: list[str] = []
    made: list[str] = []

    def ask(connection: Any, *_: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SELECT 'a connection that is asked'")
        asked.append(cursor.fetchone()[0])
        cursor.close()
        connection.rollback()

    for engine in (manager.engine, manager.read_engine):
        event.listen(engine.sync_engine, name, ask)
    pool: Any = manager.engine.pool
    pool._recycle = -1
    event.listen(manager.engine.sync_engine, "connect", lambda *_: made.append("anew"))
    for number in range(4):
        await insert(manager, f"jar {number}")
    assert len(asked) == 4
    assert not made
    assert await read(manager) is None
    if name != "reset":  # a read engine resets nothing
        assert len(asked) == 5
    assert len(await names(manager)) == 5
    await nothing_left(manager)


async def test_a_type_that_is_made_anew_costs_one_error(
    manager: DatabaseSessionManager, database: "psycopg.Connection[Any]"
) -> None:
    """As with SQLAlchemy's own cursors: every connection looks at the types once more."""
    await insert(manager, "before")
    pool: Any = manager.engine.pool
    pool._recycle = -1
    database.execute("ALTER TABLE jars ALTER colour TYPE text")
    database.execute("DROP TYPE colour")
    database.execute("CREATE TYPE colour AS ENUM ('RED', 'BLUE')")
    database.execute("ALTER TABLE jars ALTER colour TYPE colour USING colour::colour")
    failures: list[DBAPIError] = []
    for number in range(5):
        try:
            await insert(manager, f"jar {number}")
        except DBAPIError as error:
            failures.append(error)
    assert len(failures) <= 1
    assert len(await names(manager)) == 6 - len(failures)
    await nothing_left(manager)


async def test_a_manager_that_is_closed_meanwhile_keeps_no_connection(
    manager: DatabaseSessionManager, database: "psycopg.Connection[Any]"
) -> None:
    """Who has waited is served, by the pool that has its connection."""
    async with manager.session() as session:
        await session.connection()
        waiting = asyncio.ensure_future(insert(manager, "late"))
        pool: Any = manager.engine.pool
        async with asyncio.timeout(10):
            while not len(pool._line):  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0)
        await manager.close()
    assert b'"late"' in await waiting
    others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    async with asyncio.timeout(10):
        while len(database.execute(others).fetchall()) > 1:  # noqa: ASYNC110  (they are on their way)
            await asyncio.sleep(0.01)


async def test_what_fails_at_a_new_connection_is_an_error_of_sqlalchemy(driver_url: str) -> None:
    """As it is in `Engine.connect`."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(driver_url)

    def fail(connection: Any, _record: Any) -> None:
        connection.cursor().execute("SELECT 1/0")

    event.listen(manager.engine.sync_engine, "connect", fail)
    with pytest.raises(DBAPIError, match="division by zero"):
        await insert(manager, "never")
    await manager.close()


async def test_a_row_that_a_trigger_leaves_out_is_an_error(
    manager: DatabaseSessionManager, database: "psycopg.Connection[Any]"
) -> None:
    """There is nothing to answer, and nothing was written."""
    database.execute(
        "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    database.execute(
        "CREATE TRIGGER out BEFORE INSERT ON jars FOR EACH ROW EXECUTE FUNCTION leave_out()"
    )
    with pytest.raises(NoResultFound, match="has written no row"):
        await insert(manager, "never")
    await nothing_left(manager)


async def test_any_pool_will_do(manager: DatabaseSessionManager, driver_url: str) -> None:
    """A session may be one of an engine that keeps no connection."""
    engine = create_engine(parse_url(driver_url), EngineSettings(), poolclass=NullPool)
    async with ServiceSession(engine, info={}) as session:
        await session.commit_with(*new(name="one"))
    assert await names(manager) == ["one"]
    await engine.dispose()
