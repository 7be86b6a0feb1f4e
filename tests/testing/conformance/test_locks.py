"""Advisory locks, on which two connections meet."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import (
    add,
    code_of,
    names,
    run,
    value,
)  # fmt: skip


async def test_a_lock_is_given_back_by_a_rollback(engine: AsyncEngine) -> None:
    """And by an error, whose transaction is rolled back; by a savepoint too."""
    attempt = "SELECT pg_try_advisory_xact_lock(7)"
    async with engine.connect() as one, engine.connect() as two:
        assert await value(one, attempt) is True
        await add(one, "lost")
        await one.rollback()
        assert await value(two, attempt) is True
        await two.rollback()
        assert await value(one, attempt) is True
        assert await code_of(one, "SELECT 1 / 0") == "22012"
        await one.rollback()
        await run(one, "SAVEPOINT here", attempt, "ROLLBACK TO here")
        assert await value(two, attempt) is True

    assert await names(engine) == []


async def test_a_lock_goes_with_its_connection(engine: AsyncEngine) -> None:
    """A session that ends gives back what it holds."""
    async with engine.connect() as one, engine.connect() as two:
        await run(one, "SELECT pg_advisory_lock(8)")
        assert await value(two, "SELECT pg_try_advisory_lock(8)") is False
        await one.invalidate()
        await run(two, "SELECT pg_advisory_lock(8)")


async def test_locks_are_shared_and_exclusive(engine: AsyncEngine) -> None:
    """Shared ones go together; keys of two numbers are others than keys of one."""
    async with engine.connect() as one, engine.connect() as two:
        assert await value(one, "SELECT pg_try_advisory_xact_lock_shared(1)") is True
        assert await value(two, "SELECT pg_try_advisory_xact_lock_shared(1)") is True
        assert await value(two, "SELECT pg_try_advisory_xact_lock(1)") is False
        assert await value(two, "SELECT pg_try_advisory_xact_lock(0, 1)") is True
        assert await value(one, "SELECT pg_try_advisory_xact_lock(hashtext('a'))") is True
        assert await value(two, "SELECT pg_try_advisory_xact_lock(hashtext('a'))") is False


async def test_an_advisory_lock_is_held_until_the_commit(engine: AsyncEngine) -> None:
    """Another connection does not get it meanwhile, and gets it afterwards."""
    attempt = "SELECT pg_try_advisory_xact_lock(:key)"
    async with engine.connect() as one, engine.connect() as two:
        assert await value(one, attempt, key=7) is True
        assert await value(two, attempt, key=7) is False
        assert await value(two, attempt, key=8) is True
        await one.commit()
        assert await value(two, attempt, key=7) is True


async def test_who_waits_for_an_advisory_lock_gets_it(engine: AsyncEngine) -> None:
    """Work under one lock never overlaps."""
    inside: list[int] = []

    async def work() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
            inside.append(1)
            await asyncio.sleep(0.01)
            assert len(inside) == 1
            inside.clear()

    await asyncio.gather(*(work() for _ in range(5)))


async def test_a_session_keeps_its_advisory_lock(engine: AsyncEngine) -> None:
    """A lock of the session outlives the transaction, until it is given back."""
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(text("SELECT pg_advisory_lock(3)"))
        await one.commit()
        assert await value(two, "SELECT pg_try_advisory_lock(3)") is False
        assert await value(one, "SELECT pg_advisory_unlock(3)") is True
        assert await value(two, "SELECT pg_try_advisory_lock(3)") is True
