"""The driver itself: prepared statements, its caches, notices, batches."""

import asyncio
from itertools import count
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import (
    add,
    driver_of,
    names,
    rows,
    run,
    value,
)  # fmt: skip
from tests.testing.conftest import NewEngine

ALL = "SELECT * FROM author"


async def test_a_prepared_statement_is_outdated_by_ddl(engine: AsyncEngine) -> None:
    """In a transaction it is an error; after that the statement is prepared anew."""
    async with engine.connect() as one, engine.connect() as two:
        assert await rows(one, ALL) == []
        await one.commit()
        await run(two, "ALTER TABLE author ADD COLUMN age int")
        await add(two, "a")
        await two.commit()
        with pytest.raises(DBAPIError, match="cached statement plan is invalid"):
            await rows(one, ALL)
        await one.rollback()
        assert len((await rows(one, ALL))[0]) == 6


async def test_the_driver_prepares_anew_outside_of_a_transaction(engine: AsyncEngine) -> None:
    """Asyncpg repeats a statement whose plan is outdated; nobody notices."""
    async with engine.connect() as one, engine.connect() as two:
        driver = await driver_of(one)
        assert await driver.fetch(ALL) == []
        await add(two, "a")
        await run(two, "ALTER TABLE author ALTER COLUMN name TYPE varchar(50)")
        await two.commit()
        assert [row["name"] for row in await driver.fetch(ALL)] == ["a"]


async def test_names_of_prepared_statements_are_a_connections_own(engine: AsyncEngine) -> None:
    """PREPARE, EXECUTE and DEALLOCATE, by one name on two connections."""
    async with engine.connect() as one, engine.connect() as two:
        drivers = [await driver_of(it) for it in (one, two)]
        for number, driver in enumerate(drivers):
            await driver.execute(f"PREPARE own (int) AS SELECT $1 + {number} * 10")
        assert [await driver.fetchval("EXECUTE own (1)") for driver in drivers] == [1, 11]
        await drivers[0].execute("DEALLOCATE own")
        with pytest.raises(Exception, match='prepared statement "own" does not exist'):
            await drivers[0].execute("EXECUTE own (1)")
        await drivers[0].execute("DEALLOCATE ALL")
        assert await drivers[1].fetchval("EXECUTE own (2)") == 12


async def test_names_may_be_left_to_the_application(new_engine: NewEngine) -> None:
    """No cache, unnamed statements, names of the application's: as behind a pooler."""
    numbers = count()
    for arguments in (
        {"prepared_statement_cache_size": 0, "statement_cache_size": 0},
        {"prepared_statement_name_func": lambda: "", "statement_cache_size": 0},
        {"prepared_statement_name_func": lambda: f"own_{next(numbers)}"},
    ):
        engine = new_engine(connect_args=arguments)
        for _ in range(3):
            async with engine.connect() as connection:
                assert await value(connection, "SELECT CAST(:n AS int) + 1", n=1) == 2


async def test_notices_reach_the_application(engine: AsyncEngine) -> None:
    """RAISE NOTICE comes to the connection that caused it, and to no other."""
    async with engine.connect() as one, engine.connect() as two:
        heard: list[tuple[int, str]] = []
        for number, connection in enumerate((one, two)):
            driver = await driver_of(connection)

            def listen(_: Any, notice: Any, number: int = number) -> None:
                heard.append((number, notice.message))

            driver.add_log_listener(listen)
        await run(two, "DO $$ BEGIN RAISE NOTICE 'here'; END $$")
        await two.commit()
        await run(one, "SELECT 1")
        await asyncio.sleep(0)

    assert heard == [(1, "here")]


async def test_a_statement_describes_itself(engine: AsyncEngine) -> None:
    """The parameters and columns of a prepared statement are PostgreSQL's."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        prepared = await driver.prepare("SELECT id, name AS called FROM author WHERE id = $1")
        parameters = [it.name for it in prepared.get_parameters()]
        columns = [(it.name, it.type.name) for it in prepared.get_attributes()]

    assert (parameters, columns) == (["int4"], [("id", "int4"), ("called", "text")])


async def test_a_connection_does_one_thing_at_a_time(engine: AsyncEngine) -> None:
    """Two tasks on one connection are the driver's error."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        first = asyncio.ensure_future(driver.fetchval("SELECT pg_sleep(0.05)"))
        await asyncio.sleep(0)
        with pytest.raises(Exception, match="another operation is in progress"):
            await driver.fetchval("SELECT 1")
        await first


async def test_an_empty_statement_is_none(engine: AsyncEngine) -> None:
    """A semicolon alone, comments alone, several of them."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        for sql in (";", "-- nothing", "/* nothing */ ;;"):
            assert await driver.fetch(sql) == []
        assert await driver.fetchval("SELECT 1") == 1


async def test_the_drivers_transactions_nest(engine: AsyncEngine) -> None:
    """Asyncpg makes savepoints of inner transactions."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        async with driver.transaction(isolation="repeatable_read"):
            await driver.execute("INSERT INTO author (name) VALUES ('a')")
            with pytest.raises(ZeroDivisionError):
                async with driver.transaction():
                    await driver.execute("INSERT INTO author (name) VALUES ('b')")
                    raise ZeroDivisionError
            async with driver.transaction():
                await driver.execute("INSERT INTO author (name) VALUES ('c')")

    assert await names(engine) == ["a", "c"]


async def test_the_driver_itself_may_be_used(engine: AsyncEngine) -> None:
    """fetch, fetchrow, cursors, several statements at once, prepared ones, an empty one."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        assert await driver.fetchval("SELECT $1::int + 1", 1) == 2
        await driver.execute("INSERT INTO author (name) VALUES ('a'); SELECT 1;")
        assert await driver.fetchrow(";") is None
        prepared = await driver.prepare("SELECT name FROM author WHERE id = $1")
        assert await prepared.fetchval(1) == "a"
        async with driver.transaction(readonly=True):
            cursor = driver.cursor("SELECT generate_series(1, 120)", prefetch=50)
            assert [record[0] async for record in cursor] == list(range(1, 121))

    assert await names(engine) == ["a"]
