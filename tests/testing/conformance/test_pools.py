"""Pools of connections: how they check, keep and give back."""

from typing import Any

import pytest
from sqlalchemy import NullPool, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import add, driver_of, gather_all, names, run, value
from tests.testing.conftest import NewEngine


@pytest.mark.parametrize(
    "arguments",
    [
        {"pool_pre_ping": True},
        {"pool_recycle": 0},
        {"poolclass": NullPool},
        {"pool_size": 1, "max_overflow": 0},
        {"pool_size": 1, "max_overflow": 5},
        {"pool_reset_on_return": None},
        {"pool_use_lifo": True},
    ],
    ids=lambda it: "-".join(map(str, it)),
)
async def test_a_pool_of_each_kind_serves_tasks(
    new_engine: NewEngine, arguments: dict[str, object]
) -> None:
    """What is committed is there, and what is not is not."""
    engine = new_engine(**arguments)

    async def work(number: int) -> None:
        async with engine.connect() as connection:
            await add(connection, str(number))
            await (connection.commit() if number % 2 else connection.rollback())

    await gather_all(6, work)

    assert sorted(await names(engine)) == ["1", "3", "5"]


async def test_a_connection_is_reset_on_its_return(new_engine: NewEngine) -> None:
    """What it left open is rolled back, and the same one serves the next user."""
    engine = new_engine(pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        await add(connection, "lost")
        first = await driver_of(connection)
    async with engine.connect() as connection:
        assert await driver_of(connection) is first
        assert await value(connection, "SELECT count(*) FROM author") == 0


async def test_a_full_pool_makes_its_users_wait(new_engine: NewEngine) -> None:
    """The wait is bounded."""
    engine = new_engine(pool_size=1, max_overflow=0, pool_timeout=0.05)
    async with engine.connect() as connection:
        await run(connection, "SELECT 1")
        with pytest.raises(PoolTimeoutError):
            await names(engine)

    assert await names(engine) == []


async def test_an_engine_is_disposed_of_in_the_middle(engine: AsyncEngine) -> None:
    """A connection in use goes on, beside those of the new pool."""
    async with engine.connect() as connection:
        await run(connection, "SELECT 1")
        await engine.dispose()
        async with engine.connect() as other:
            await add(other, "a")
            await other.commit()
        await add(connection, "b")
        await connection.commit()
        await connection.invalidate()  # its pool is gone, nobody else would close it

    assert await names(engine) == ["a", "b"]


async def test_a_connection_that_is_invalidated_is_made_anew(engine: AsyncEngine) -> None:
    """Its transaction is lost."""
    async with engine.connect() as connection:
        await add(connection, "lost")
        await connection.invalidate()
        await connection.rollback()
        await add(connection, "a")
        await connection.commit()

    assert await names(engine) == ["a"]


async def test_a_connection_that_is_dropped_loses_its_transaction(new_engine: NewEngine) -> None:
    """Asyncpg's terminate() sends no goodbye; others go on at once."""
    engine = new_engine(poolclass=NullPool)
    connection = await engine.connect()
    await add(connection, "lost")
    driver = await driver_of(connection)
    driver.terminate()
    await connection.invalidate()
    await connection.close()
    async with engine.begin() as other:
        await add(other, "a")

    assert await names(engine) == ["a"]


async def test_listeners_of_a_pool_may_use_the_connection(new_engine: NewEngine) -> None:
    """A SET at the first connect is the session's."""
    engine = new_engine(pool_size=2)

    def set_path(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("SET search_path = pg_catalog, public")
        cursor.close()

    event.listen(engine.sync_engine, "connect", set_path)
    for _ in range(2):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1 / 1"))
            await connection.rollback()
            shown = await value(connection, "SHOW search_path")
            assert shown in ("pg_catalog, public", '"$user", public')
    async with engine.begin() as connection:
        await add(connection, "a")
    assert await names(engine) == ["a"]


async def test_a_closed_connection_gives_its_place_back(engine: AsyncEngine) -> None:
    """A pool that is disposed of connects anew."""
    async with engine.begin() as connection:
        await add(connection, "a")
    await engine.dispose()

    assert await names(engine) == ["a"]
