"""A statement that was prepared before the schema has changed."""

from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from stillroom.engine import EngineSettings, create_engine
from stillroom.problems import is_old_plan
from stillroom.url import parse_url

ADD = text("INSERT INTO jars (name) VALUES ('x') RETURNING *")


@pytest.fixture
async def engine(database_url: str) -> AsyncGenerator[AsyncEngine]:
    """Give an engine whose one connection has prepared a statement, before the table changed."""
    url = parse_url(database_url.replace("postgresql:", "postgresql+asyncpg:"))
    engine, other = (create_engine(url, EngineSettings(pool_size=1)) for _ in range(2))
    async with other.begin() as connection:
        await connection.execute(text("CREATE TABLE jars (name varchar(9))"))
    async with engine.begin() as connection:
        await connection.execute(ADD)
    async with other.begin() as connection:
        await connection.execute(text("ALTER TABLE jars ALTER COLUMN name TYPE text"))
    await other.dispose()
    yield engine
    await engine.dispose()


async def test_the_first_statement_of_a_transaction_is_run_again(engine: AsyncEngine) -> None:
    """Nobody notices, and the transaction goes on, and is committed."""
    async with engine.begin() as connection:
        assert (await connection.execute(ADD)).scalar_one() == "x"
    async with engine.begin() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM jars"))).scalar_one() == 2


async def test_a_later_statement_raises(engine: AsyncEngine) -> None:
    """What went before is lost, which whoever did it has to know."""
    with pytest.raises(DBAPIError) as caught:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.execute(ADD)

    assert is_old_plan(caught.value)
