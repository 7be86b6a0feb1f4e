"""Read sessions: a SELECT by itself is one round trip, and nobody can tell."""

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Integer, Select, column, func, literal, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.engine import reading
from stillroom.manager import DatabaseSessionManager


@pytest.fixture
async def manager(driver_url: str) -> AsyncIterator[DatabaseSessionManager]:
    """Give a manager of an empty database, by each driver."""
    manager = DatabaseSessionManager()
    manager.init(driver_url)
    yield manager
    await manager.close()


NUMBERS = select(func.generate_series(1, 3).label("n"))

ALONE = [
    NUMBERS,
    select(func.count()).select_from(NUMBERS.subquery()),
    select(func.lower("A"), literal(1).in_([1, 2])).order_by(func.coalesce(1, 2)),
    NUMBERS.union_all(select(func.max(column("n", Integer))).select_from(NUMBERS.alias("n"))),
    text("SELECT 1 WHERE (1, 2) IN ((1, 2))"),
]
WITHIN = [
    select(func.now()),
    select(func.pg_advisory_xact_lock(7)),
    select(func.set_config("work_mem", "9MB", False)),
    text("SELECT /* lower( */ 1"),
    text("SELECT \"lower\"('A')"),
    text("SHOW work_mem"),
    text("SET LOCAL work_mem = '9MB'"),
]


@pytest.mark.parametrize("statement", ALONE, ids=str)
async def test_a_select_needs_no_transaction(
    manager: DatabaseSessionManager, statement: Select[Any]
) -> None:
    """It would read the same in one; so there is neither a BEGIN nor a ROLLBACK."""
    async with manager.session(read_only=True) as session:
        await session.execute(statement)
        assert not await in_transaction(session)


@pytest.mark.parametrize("statement", WITHIN, ids=str)
async def test_a_statement_that_could_tell_has_a_transaction(
    manager: DatabaseSessionManager, statement: Select[Any]
) -> None:
    """It lasts until the session ends, and takes with it what was set."""
    async with manager.session(read_only=True) as session:
        await session.execute(NUMBERS)
        await session.execute(statement)
        assert await in_transaction(session)
        await session.execute(NUMBERS)
        assert await in_transaction(session)
    async with manager.session(read_only=True) as session:
        await session.execute(NUMBERS)
        assert not await in_transaction(session)
        assert await session.scalar(text("SHOW work_mem")) == "4MB"


async def test_a_savepoint_and_a_cursor_have_one(manager: DatabaseSessionManager) -> None:
    """PostgreSQL has neither of them outside of a transaction."""
    async with manager.session(read_only=True) as session, session.begin_nested():
        assert await in_transaction(session)
    async with manager.session(read_only=True) as session:
        assert await session.scalar(NUMBERS) == 1
        rows = await session.stream_scalars(NUMBERS)
        assert [row async for row in rows] == [1, 2, 3]
        assert await in_transaction(session)


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE jar (id integer)", "SELECT 1 INTO jar", "SELECT nextval('numbers')"],
)
async def test_no_form_of_a_read_can_write(
    manager: DatabaseSessionManager, database_url: str, statement: str
) -> None:
    """Alone or in a transaction, at first or later, PostgreSQL itself refuses."""
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE SEQUENCE numbers")
    for before in ([], [NUMBERS], [text("SHOW work_mem")]):
        async with manager.session(read_only=True) as session:
            for first in before:
                await session.execute(first)
            with pytest.raises(DBAPIError, match="read-only transaction"):
                await session.execute(text(statement))


async def test_a_database_of_repeatable_reads_has_them(
    manager: DatabaseSessionManager, database_url: str
) -> None:
    """Where READ COMMITTED is not the default, statements of a session share a snapshot."""
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("CREATE TABLE jar (id integer)")
        database = sql.Identifier(other.info.dbname)
        default = "SET default_transaction_isolation TO 'repeatable read'"
        other.execute(sql.SQL("ALTER DATABASE {} " + default).format(database))
        count = select(func.count()).select_from(text("jar"))
        async with manager.session(read_only=True) as session:
            assert await session.scalar(count) == 0
            other.execute("INSERT INTO jar VALUES (1)")
            assert await session.scalar(count) == 0
        async with manager.session(read_only=True) as session:
            assert await session.scalar(count) == 1


def test_what_is_taken_to_be_harmless_is_not_volatile(database_url: str) -> None:
    """Of each function in the list PostgreSQL says that it changes nothing."""
    query = """SELECT proname FROM pg_proc WHERE provolatile = 'v' AND proname = ANY(%s)
        AND pronamespace = 'pg_catalog'::regnamespace"""
    with psycopg.connect(database_url) as connection:
        names = reading._HARMLESS.pattern.replace("|", " ").split()
        assert "row_to_json" in names
        assert connection.execute(query, [names]).fetchall() == []


async def in_transaction(session: AsyncSession) -> bool:
    """Say whether the driver has begun one."""
    connection = await session.connection()
    proxy = await connection.get_raw_connection()
    driver_connection: Any = proxy.driver_connection
    if hasattr(driver_connection, "is_in_transaction"):
        return bool(driver_connection.is_in_transaction())
    return bool(driver_connection.info.transaction_status)
