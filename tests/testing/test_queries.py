"""Queries are counted, grouped by shape, and traced to the application's line."""

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateTable

from stillroom.testing.engines import routed
from stillroom.testing.queries import QueryLog

SECRET = "a value"


@pytest.fixture
def log() -> QueryLog:
    """Give a log that records."""
    log = QueryLog()
    log.install()
    return log


async def test_queries_are_counted_and_savepoints_are_not(
    sandboxed: AsyncEngine, log: QueryLog
) -> None:
    """BEGIN, COMMIT and savepoints are no queries."""
    with log.exactly(2):
        async with sandboxed.begin() as connection:
            async with connection.begin_nested():
                await connection.execute(text("SELECT 1"))
            await connection.execute(text("SELECT 2"))
    log.remove()

    assert [query.sql for query in log.statements] == ["SELECT 1", "SELECT 2"]


async def test_a_block_over_its_budget_says_what_was_sent(
    sandboxed: AsyncEngine, log: QueryLog
) -> None:
    """The message has the number, the shape and the line, and no value."""
    with pytest.raises(AssertionError) as failure, log.none():
        async with sandboxed.connect() as connection:
            statement = f"SELECT name FROM author WHERE name = '{SECRET}'"  # noqa: S608
            await connection.execute(text(statement))
    log.remove()

    message = str(failure.value)
    assert "1 query, none was allowed" in message
    assert "test_queries.py" in message
    assert SECRET not in message


async def test_sets_of_parameters_are_those_of_an_executemany(
    sandboxed: AsyncEngine, log: QueryLog
) -> None:
    """One INSERT of many rows is executed once, however many values it has."""
    table = Table("pair", MetaData(), Column("one", Integer), Column("two", Integer))
    rows = [{"one": number, "two": number} for number in range(4)]
    async with sandboxed.begin() as connection:
        await connection.execute(CreateTable(table))
        await connection.execute(insert(table), rows)
        await connection.execute(insert(table).returning(table.c.one), rows)
    log.remove()

    assert [query.executions for query in log.statements] == [1, 4, 1]


async def test_what_is_done_in_another_database_is_not_the_tests(
    sandboxed: AsyncEngine, log: QueryLog, schema_url: str
) -> None:
    """A template that is built, or a law of migrations, costs no test its budget."""
    with log.none(), routed(schema_url):
        async with sandboxed.begin() as connection:
            await connection.execute(text("SELECT 1"))
    log.remove()
