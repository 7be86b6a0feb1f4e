"""Statements that are cancelled, or that take too long."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tests.testing.conformance.authors import (
    NAMES,
    add,
    code_of,
    driver_of,
    names,
    run,
    sqlstate,
    value,
)  # fmt: skip
from tests.testing.conftest import Target

SLEEP = text("SELECT pg_sleep(60)")


async def test_a_cancelled_statement_loses_its_transaction(
    engine: AsyncEngine, target: Target
) -> None:
    """A statement that is cancelled ends, and what came before it is rolled back."""

    async def sleep() -> None:
        async with AsyncSession(engine) as session:
            await add(session, "lost")
            await session.execute(SLEEP)

    task = asyncio.create_task(sleep())
    await target.runs("pg_sleep")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await names(engine) == []


async def test_who_is_cancelled_while_it_waits_has_done_nothing(
    engine: AsyncEngine, target: Target
) -> None:
    """A statement that waits for another connection's row is taken back."""
    async with engine.begin() as connection:
        await add(connection, "a")

    async def write() -> None:
        async with engine.begin() as connection:
            await run(connection, "UPDATE author SET name = 'lost'")

    async with engine.begin() as connection:
        await run(connection, "UPDATE author SET name = 'b'")
        task = asyncio.create_task(write())
        await target.is_waited_for()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert await names(engine) == ["b"]


async def test_a_task_group_cancels_its_statements(engine: AsyncEngine, target: Target) -> None:
    """One task fails and the others, in mid-statement, go with it; all connections are whole."""

    async def sleep() -> None:
        async with engine.connect() as connection:
            await connection.execute(SLEEP)

    async def fail() -> None:
        await target.runs("pg_sleep")
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            for work in (sleep(), sleep(), fail()):
                group.create_task(work)

    async with engine.begin() as connection:
        await add(connection, "a")
    assert await names(engine) == ["a"]


async def test_a_commit_whose_caller_leaves_is_whole(engine: AsyncEngine) -> None:
    """A shielded COMMIT runs to its end."""
    async with AsyncSession(engine) as session:
        await add(session, "a")
        committing = asyncio.ensure_future(session.commit())
        waiting = asyncio.ensure_future(asyncio.shield(committing))
        await asyncio.sleep(0)
        waiting.cancel()
        await committing

    assert await names(engine) == ["a"]


async def test_a_savepoint_survives_a_statement_timeout(engine: AsyncEngine) -> None:
    """The transaction goes on from its savepoint."""
    async with engine.begin() as connection:
        await add(connection, "kept")
        await run(connection, "SAVEPOINT here", "SET LOCAL statement_timeout = 20")
        await add(connection, "lost")
        assert await code_of(connection, "SELECT pg_sleep(60)") == "57014"
        await run(connection, "ROLLBACK TO here")
        assert await value(connection, "SHOW statement_timeout") == "0"

    assert await names(engine) == ["kept"]


async def test_a_lock_timeout_is_postgresqls(engine: AsyncEngine) -> None:
    """Who waits for an advisory lock for longer than lock_timeout gets the error."""
    async with engine.connect() as one, engine.connect() as two:
        await run(one, "SELECT pg_advisory_xact_lock(5)")
        await run(two, "SET LOCAL lock_timeout = '20ms'")
        assert await code_of(two, "SELECT pg_advisory_xact_lock(5)") == "55P03"
        await two.rollback()
        await one.rollback()
        assert await value(two, "SELECT pg_try_advisory_xact_lock(5)") is True


async def test_a_statement_timeout_bounds_the_wait_for_a_lock(engine: AsyncEngine) -> None:
    """The other timeout ends it too."""
    async with engine.connect() as one, engine.connect() as two:
        await run(one, "SELECT pg_advisory_lock(6)")
        await run(two, "SET statement_timeout = '20ms'")
        assert await code_of(two, "SELECT pg_advisory_lock(6)") == "57014"


@pytest.mark.parametrize(
    ("parameter", "begins"),
    [
        ("idle_in_transaction_session_timeout", True),
        ("idle_session_timeout", False),
        ("transaction_timeout", True),
    ],
)
async def test_a_connection_that_idles_too_long_is_ended(
    engine: AsyncEngine, parameter: str, begins: bool
) -> None:
    """PostgreSQL hangs up; what was not committed is lost, and the pool connects anew."""
    connection = await engine.connect()
    await run(connection, f"SET {parameter} = 30")
    assert await value(connection, f"SHOW {parameter}") == "30ms"
    await connection.commit()
    if begins:
        await add(connection, "lost")
    driver = await driver_of(connection)
    ended = asyncio.Event()

    def end(_: object) -> None:
        ended.set()

    driver.add_termination_listener(end)
    await asyncio.wait_for(ended.wait(), 10)
    with pytest.raises(DBAPIError):
        await run(connection, "SELECT 1")
    await connection.invalidate()
    await connection.close()

    assert await names(engine) == []


async def test_a_command_timeout_is_the_drivers(engine: AsyncEngine) -> None:
    """Asyncpg's own timeout cancels the statement, and the connection may be used on."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        with pytest.raises(TimeoutError):
            await driver.fetch("SELECT pg_sleep(60)", timeout=0.03)
        assert await driver.fetchval("SELECT 1") == 1


async def test_a_stream_that_is_cancelled_leaves_no_cursor(engine: AsyncEngine) -> None:
    """A consumer that is cancelled in the middle ends its transaction."""

    async def read() -> None:
        async with engine.connect() as connection:
            result = await connection.stream(text("SELECT generate_series(1, 100000)"))
            async for _ in result:
                await asyncio.sleep(0)

    task = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with engine.begin() as connection:
        await run(connection, "ALTER TABLE author ADD COLUMN age int")
        assert list((await connection.execute(NAMES)).scalars()) == []


async def test_a_timeout_of_the_application_ends_the_statement(engine: AsyncEngine) -> None:
    """asyncio.timeout() around a statement cancels it; the engine goes on."""
    async with engine.connect() as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.execute(text("SELECT pg_sleep(60)"))

    assert await names(engine) == []


async def test_a_statement_timeout_is_postgresqls(engine: AsyncEngine) -> None:
    """The parameter bounds each statement of its session."""
    async with engine.connect() as connection:
        await connection.execute(text("SET statement_timeout = 20"))
        with pytest.raises(DBAPIError) as failure:
            await connection.execute(text("SELECT pg_sleep(60)"))

    assert sqlstate(failure.value) == "57014"


async def test_a_cancellation_at_any_moment_meets_its_statement_alone(engine: AsyncEngine) -> None:
    """Before it has begun, while it waits or runs: it ends, and no other statement does."""

    async def work() -> None:
        async with AsyncSession(engine) as session:
            await add(session, "lost")
            await session.execute(SLEEP)

    for turns in range(30):
        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with AsyncSession(engine) as session:
            await add(session, f"kept {turns}")
            await session.commit()

    assert await names(engine) == [f"kept {turns}" for turns in range(30)]
