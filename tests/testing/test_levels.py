"""The end of a test in the sandbox: what it did is gone, and what it could not do is told."""

import asyncio
from collections.abc import AsyncIterator
from threading import Event
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from stillroom.testing.sandbox import Sandbox, levels
from stillroom.testing.wire.backend import Backend, BackendError
from stillroom.testing.wire.messages import query
from tests.testing.conftest import RunningSandbox, Target


async def test_a_test_that_could_not_be_undone_is_an_error_of_the_next(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a test sends first is sent behind the last one's rollback, and fails where that has."""
    stand_at = running_sandbox.stand_at
    await asyncio.to_thread(stand_at, "one")
    async with sandboxed.begin() as connection:
        await connection.execute(text("INSERT INTO author (name) VALUES ('one')"))

    def fail(_: dict[str, str]) -> str:
        return "SELECT 1 / 0"

    monkeypatch.setattr(levels, "reset_sequences", fail)
    await asyncio.to_thread(stand_at, "two")
    monkeypatch.undo()
    async with sandboxed.connect() as connection:
        with pytest.raises(DBAPIError, match="division by zero"):
            await connection.execute(text("SELECT 1"))
        await connection.rollback()
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


async def test_what_a_test_has_sent_and_failed_is_an_error_of_its_end(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """Nobody has waited for it, as for a COMMIT that was answered at once."""
    async with sandboxed.begin() as connection:
        await connection.execute(text("SELECT 1"))

    async def fail() -> None:
        sandbox.backend.post(query("SELECT 1 / 0"))
        with pytest.raises(BackendError, match="current transaction is aborted"):
            await sandbox.backend.query("SELECT 1")

    await asyncio.to_thread(running_sandbox.call, fail())
    with pytest.raises(BackendError, match="division by zero"):
        await asyncio.to_thread(running_sandbox.stand_at, "next")


async def test_a_temporary_table_ends_with_its_test(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox
) -> None:
    """The connection of a pool finds no table of the last test, and no trace of one."""
    for test in ("one", "two"):
        await asyncio.to_thread(running_sandbox.stand_at, test)
        async with sandboxed.connect() as connection, sandboxed.connect() as other:
            await connection.execute(text("CREATE TEMP TABLE numbers AS SELECT 1 AS number"))
            await connection.commit()
            with pytest.raises(DBAPIError, match="does not exist"):
                await other.execute(text("SELECT number FROM numbers"))
            assert await connection.scalar(text("SELECT number FROM numbers")) == 1


async def test_a_statement_that_is_under_way_ends_with_its_test(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox
) -> None:
    """It is cancelled, before anything of the next test is done."""
    await asyncio.to_thread(running_sandbox.stand_at, "one")
    async with sandboxed.connect() as connection:
        await connection.execute(text("INSERT INTO author (name) VALUES ('one')"))
        sleeping = asyncio.create_task(connection.execute(text("SELECT pg_sleep(600)")))
        await is_running("pg_sleep(600)", running_sandbox)
        await asyncio.to_thread(running_sandbox.stand_at, "two")
        has_ended, _ = await asyncio.wait([sleeping], timeout=10)
        assert has_ended
        with pytest.raises(DBAPIError, match="canceling statement"):
            await sleeping
        await connection.rollback()
        assert await connection.scalar(text("SELECT count(*) FROM author")) == 0


async def test_a_copy_that_waits_for_its_data_ends_with_its_test(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox
) -> None:
    """PostgreSQL hears no cancellation while it waits for data, so the COPY is told to fail."""
    has_begun, goes_on = asyncio.Event(), asyncio.Event()

    async def rows() -> AsyncIterator[bytes]:
        yield b"one\n"
        has_begun.set()
        await goes_on.wait()
        yield b"two\n"

    await asyncio.to_thread(running_sandbox.stand_at, "one")
    async with sandboxed.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        copying = asyncio.create_task(
            driver.copy_to_table("author", source=rows(), columns=["name"])
        )
        await has_begun.wait()
        await is_running("COPY", running_sandbox)
        ending = asyncio.create_task(asyncio.to_thread(running_sandbox.stand_at, "two"))
        has_ended, _ = await asyncio.wait([ending], timeout=10)
        goes_on.set()
        assert has_ended
        with pytest.raises(asyncpg.QueryCanceledError):
            await copying
        assert await connection.scalar(text("SELECT count(*) FROM author")) == 0


async def test_a_connection_that_is_closing_ends_with_its_test(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """It gives its prepared statements back in a turn of its own, for which it may wait."""
    await asyncio.to_thread(running_sandbox.stand_at, "one")
    async with sandboxed.connect() as sleeper, sandboxed.connect() as closing:
        await closing.execute(text("SELECT count(*) FROM author"))
        sleeping = asyncio.create_task(sleeper.execute(text("SELECT pg_sleep(600)")))
        await is_running("pg_sleep(600)", running_sandbox)
        before = len(list(sandbox.connections))
        await closing.invalidate()
        while not sandbox.gate.has_waiting:  # noqa: ASYNC110  (another loop tells nobody)
            await asyncio.sleep(0)
        await asyncio.to_thread(running_sandbox.stand_at, "two")
        assert len(list(sandbox.connections)) == before - 1
        assert not sandbox.refusals
        with pytest.raises(DBAPIError, match="canceling statement"):
            await sleeping


async def test_a_lock_that_is_asked_for_ends_with_its_test(
    running_sandbox: RunningSandbox,
    sandbox: Sandbox,
    sandboxed: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not taken any more when the connection that it is taken on has come about."""
    open_aside, asked, comes = sandbox.open_aside, Event(), asyncio.Event()

    async def open_late() -> Backend:
        asked.set()
        await comes.wait()
        return await open_aside()

    async def let_come() -> None:
        comes.set()

    await asyncio.to_thread(running_sandbox.stand_at, "one")
    monkeypatch.setattr(sandbox, "open_aside", open_late)
    await sandboxed.dispose()  # a connection that is there has taken the other already
    async with sandboxed.connect() as connection:
        locking = asyncio.create_task(connection.execute(text("SELECT pg_advisory_lock(7)")))
        assert await asyncio.to_thread(asked.wait, 10)
        await asyncio.to_thread(running_sandbox.stand_at, "two")
        await asyncio.to_thread(running_sandbox.call, let_come())
        with pytest.raises(DBAPIError, match="canceling statement"):
            await locking
        async with sandboxed.connect() as other:
            assert await other.scalar(text("SELECT pg_try_advisory_lock(7)"))


async def test_a_temporary_table_that_a_test_has_dropped_is_there_again(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox
) -> None:
    """It is still the connection's that made it, in a wider scope, and nobody else's."""
    await asyncio.to_thread(running_sandbox.stand_at, "module")
    async with sandboxed.connect() as connection, sandboxed.connect() as other:
        await connection.execute(text("CREATE TEMP TABLE numbers AS SELECT 1 AS number"))
        await connection.commit()
        await asyncio.to_thread(running_sandbox.stand_at, "module", "one")
        await connection.execute(text("DROP TABLE numbers"))
        await connection.commit()
        await asyncio.to_thread(running_sandbox.stand_at, "module", "two")
        with pytest.raises(DBAPIError, match="does not exist"):
            await other.execute(text("SELECT number FROM numbers"))
        assert await connection.scalar(text("SELECT number FROM numbers")) == 1


async def is_running(words: str, running: RunningSandbox) -> None:
    """Return when PostgreSQL runs a statement with these words."""
    await Target("sandbox", running.url, running).runs(words)
