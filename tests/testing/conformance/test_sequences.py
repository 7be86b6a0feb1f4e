"""Sequences, which no rollback gives back, and which are new in each test."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import (
    add,
    code_of,
    gather_all,
    rows,
    run,
    value,
)  # fmt: skip

NOTE = "INSERT INTO note (tenant) VALUES ('x') RETURNING id"


@pytest.mark.parametrize("time", [1, 2])
async def test_identities_start_at_one(engine: AsyncEngine, time: int) -> None:
    """A column that is an identity; a ROLLBACK leaves a gap."""
    async with engine.connect() as connection:
        assert await value(connection, NOTE) == 1
        await connection.rollback()
        assert await value(connection, NOTE) == 2
        await connection.commit()


@pytest.mark.parametrize("time", [1, 2])
async def test_a_sequence_may_be_set(engine: AsyncEngine, time: int) -> None:
    """setval() and RESTART hold for all connections, a ROLLBACK takes the latter back alone."""
    async with engine.connect() as connection:
        await run(connection, "SELECT setval('author_id_seq', 41)")
        await connection.rollback()
        assert await add(connection, "a") == 42
        await connection.commit()
        await run(connection, "ALTER SEQUENCE author_id_seq RESTART WITH 7")
        await connection.rollback()
        assert await add(connection, "b") == 43


@pytest.mark.parametrize("time", [1, 2])
async def test_a_sequence_may_be_made(engine: AsyncEngine, time: int) -> None:
    """CREATE SEQUENCE goes with a ROLLBACK and counts as it says."""
    async with engine.connect() as connection:
        await run(connection, "CREATE SEQUENCE own START 10 INCREMENT 5")
        assert await rows(connection, "SELECT nextval('own') FROM generate_series(1, 3)") == [
            10, 15, 20,
        ]  # fmt: skip
        await connection.rollback()
        assert await code_of(connection, "SELECT nextval('own')") == "42P01"
        await connection.rollback()
        await run(connection, "CREATE SEQUENCE own")
        await connection.commit()
        await run(connection, "SELECT nextval('own')")
        await connection.rollback()
        assert await value(connection, "SELECT nextval('own')") == 2


async def test_a_connection_knows_its_last_value(engine: AsyncEngine) -> None:
    """currval() and lastval() are the session's own, and undefined before its first value."""
    async with engine.connect() as one, engine.connect() as two:
        assert await code_of(one, "SELECT currval('author_id_seq')") == "55000"
        await one.rollback()
        await add(one, "a")
        await one.commit()
        assert await value(one, "SELECT currval('author_id_seq')") == 1
        assert await value(one, "SELECT lastval()") == 1
        await one.rollback()
        await add(two, "b")
        assert await value(two, "SELECT lastval()") == 2


async def test_ids_are_given_once(engine: AsyncEngine) -> None:
    """Many tasks at once get different ids."""

    async def insert(number: int) -> int:
        async with engine.begin() as connection:
            return await add(connection, str(number))

    assert sorted(await gather_all(12, insert)) == list(range(1, 13))


async def test_truncate_may_restart_ids(engine: AsyncEngine) -> None:
    """TRUNCATE RESTART IDENTITY empties and begins anew."""
    async with engine.connect() as connection:
        await add(connection, "a")
        await add(connection, "b")
        await connection.commit()
        await run(connection, "TRUNCATE author, book RESTART IDENTITY CASCADE")
        assert await add(connection, "c") == 1
        await connection.rollback()
        assert await rows(connection, "SELECT name FROM author") == ["a", "b"]


async def test_ids_start_at_one(engine: AsyncEngine) -> None:
    """A sequence is new in each test, after a rollback has left a gap in this one."""
    async with engine.connect() as connection:
        assert await add(connection, "a") == 1
        await connection.rollback()
        assert await add(connection, "b") == 2
        await connection.commit()


async def test_ids_start_at_one_again(engine: AsyncEngine) -> None:
    """The same once more: the test before has used the sequence."""
    async with engine.begin() as connection:
        assert await add(connection, "a") == 1
