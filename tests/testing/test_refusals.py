"""What the sandbox refuses when it is asked for, with the way out in the message."""

import asyncio
import contextlib
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from stillroom.testing.engines import StrayConnectionError, direct_to, take_strays
from stillroom.testing.sandbox import Sandbox
from stillroom.testing.wire.backend import BackendError
from tests.testing.conftest import TRAP, RunningSandbox

MARKER = '@pytest.mark.stillroom(isolation="clone")'


async def refused(engine: AsyncEngine, *statements: str, **options: Any) -> str:
    """Run statements on one connection; return the message of the refusal."""
    async with engine.connect() as connection:
        if options:
            await connection.execution_options(**options)
        with pytest.raises(DBAPIError) as failure:
            for statement in statements:
                await connection.execute(text(statement))
    assert getattr(failure.value.orig, "sqlstate", None) == "SR001"
    return str(failure.value.orig)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("LISTEN news", "a notification is sent at a COMMIT"),
        ("NOTIFY news", "a notification is sent at a COMMIT"),
        ("SELECT pg_notify('news', 'x')", "a notification is sent at a COMMIT"),
        ("VACUUM author", "VACUUM cannot run inside a transaction"),
        ("CREATE INDEX CONCURRENTLY here ON author (name)", "CONCURRENTLY cannot run"),
        ("DROP INDEX CONCURRENTLY here", "CONCURRENTLY cannot run"),
        ("REINDEX TABLE CONCURRENTLY author", "CONCURRENTLY cannot run"),
        ("CREATE DATABASE other", "it cannot run inside a transaction"),
        ("ALTER SYSTEM SET work_mem = '8MB'", "it cannot run inside a transaction"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "all connections share one transaction"),
        ("PREPARE TRANSACTION 'x'", "a prepared transaction would outlive the test"),
    ],
)
async def test_a_statement_that_needs_a_commit_is_refused(
    sandboxed: AsyncEngine, statement: str, reason: str
) -> None:
    """The message says why, and which marker gives the test a database of its own."""
    message = await refused(sandboxed, statement)

    assert reason in message
    assert MARKER in message


async def test_serializable_is_refused(sandboxed: AsyncEngine) -> None:
    """By SQLAlchemy's option too."""
    message = await refused(sandboxed, "SELECT 1", isolation_level="SERIALIZABLE")

    assert "conflicts of SERIALIZABLE are never found" in message
    async with sandboxed.connect() as connection:  # the pool's one, which can be used again
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


async def test_a_forgotten_commit_is_found(sandboxed: AsyncEngine, sandbox: Sandbox) -> None:
    """A read that PostgreSQL would answer without the writes raises at once, with both."""
    async with AsyncSession(sandboxed) as writer, AsyncSession(sandboxed) as reader:
        await writer.execute(text("INSERT INTO author (name) VALUES ('a')"))
        with pytest.raises(DBAPIError) as failure:
            await reader.execute(text("SELECT name FROM author"))

    message = str(failure.value.orig)
    assert "SELECT name FROM author" in message
    assert "INSERT INTO author (name) VALUES ('a')" in message
    assert "the same task holds both" in message
    assert "Was a commit() forgotten" in message
    assert [str(refusal) in message for refusal in sandbox.refusals] == [True]


async def test_a_writer_who_never_ends_is_not_waited_for(sandboxed: AsyncEngine) -> None:
    """Another task's transaction is waited for, but not without end."""
    started, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with AsyncSession(sandboxed) as session:
            await session.execute(text("INSERT INTO author (name) VALUES ('a')"))
            started.set()
            await done.wait()

    task = asyncio.create_task(hold())
    await started.wait()
    message = await refused(sandboxed, "SELECT name FROM author")
    done.set()
    await task

    assert "has waited 1 s" in message


async def test_locked_rows_cannot_be_skipped(sandboxed: AsyncEngine) -> None:
    """SKIP LOCKED meets a connection with uncommitted work: which rows it locks is not known."""
    started, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with AsyncSession(sandboxed) as session:
            await session.execute(text("SELECT * FROM author FOR UPDATE"))
            await session.execute(text("SELECT 'later' FROM author"))
            started.set()
            await done.wait()

    task = asyncio.create_task(hold())
    await started.wait()
    message = await refused(sandboxed, "SELECT * FROM author FOR UPDATE SKIP LOCKED")
    done.set()
    await task

    assert "cannot tell which rows are locked" in message
    assert "uncommitted work ('SELECT * FROM author FOR UPDATE')" in message


async def test_advisory_locks_by_rows_cannot_meet(sandboxed: AsyncEngine) -> None:
    """One connection may take them; a second one might meet the first, and is refused."""
    statement = "SELECT pg_try_advisory_xact_lock(id) FROM author"
    async with sandboxed.connect() as one:
        await one.execute(text(statement))
        message = await refused(sandboxed, statement)

    assert "by the rows of a table" in message


async def test_an_older_snapshot_is_refused(sandboxed: AsyncEngine) -> None:
    """REPEATABLE READ, after another connection has committed."""
    async with sandboxed.connect() as reader:
        await reader.execution_options(isolation_level="REPEATABLE READ")
        await reader.execute(text("SELECT 1"))
        async with sandboxed.begin() as writer:
            await writer.execute(text("INSERT INTO author (name) VALUES ('a')"))
        with pytest.raises(DBAPIError, match="has no older snapshot"):
            await reader.execute(text("SELECT name FROM author"))


async def test_a_transaction_ends_with_its_test(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox
) -> None:
    """Who goes on in the next test with a transaction of the last one is told so."""
    async with sandboxed.connect() as connection:
        await connection.execute(text("INSERT INTO author (name) VALUES ('a')"))
        await asyncio.to_thread(running_sandbox.stand_at, "next")
        with pytest.raises(DBAPIError, match="begun in a test that has ended"):
            await connection.execute(text("SELECT name FROM author"))
        await connection.rollback()
        assert (await connection.execute(text("SELECT name FROM author"))).all() == []


async def test_another_driver_is_refused(running_sandbox: RunningSandbox, sandbox: Sandbox) -> None:
    """The sandbox is asyncpg's; the message names the marker."""
    direct_to(running_sandbox.target)
    engine = create_async_engine(TRAP.replace("asyncpg", "psycopg"))
    with pytest.raises(StrayConnectionError, match=r"isolation=\"clone\""):
        async with engine.connect():
            pass
    await engine.dispose()
    direct_to(None)
    assert len(take_strays()) == 1


async def test_what_a_wider_scope_wrote_is_there_in_each_of_its_tests(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """A module's data outlive its tests, and end with the module; ids go on from there."""

    async def stand_at(*levels: str) -> None:
        await asyncio.to_thread(running_sandbox.stand_at, *levels)

    async def add() -> list[int]:
        async with sandboxed.begin() as connection:
            await connection.execute(text("INSERT INTO author (name) VALUES (clock_timestamp())"))
            return list((await connection.execute(text("SELECT id FROM author"))).scalars())

    await stand_at("module")
    assert await add() == [1]
    for test in ("one", "two"):
        await stand_at("module", test)
        assert await add() == [1, 2]
    await stand_at("other module", "three")
    assert await add() == [1]


async def test_no_test_begins_within_a_transaction_of_its_module(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """A ROLLBACK in the test could not be told from one of the fixture's own work."""
    stand_at = running_sandbox.stand_at
    await asyncio.to_thread(stand_at, "module")
    async with sandboxed.connect() as connection:
        await connection.execute(text("INSERT INTO author (name) VALUES ('a fixture''s')"))
        await asyncio.to_thread(stand_at, "module", "one")
        with pytest.raises(DBAPIError, match=r"uncommitted writes of a wider scope .* Commit in"):
            await connection.execute(text("SELECT 1"))
    sandbox.refusals.clear()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DO $$ BEGIN COMMIT; END $$", "it needs a transaction of its own"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "may end the one connection"),
        ("SELECT pg_cancel_backend(1)", "may end the one connection"),
        ("SET transaction_isolation = 'serializable'", "conflicts of SERIALIZABLE"),
    ],
)
async def test_what_needs_a_process_or_a_transaction_of_its_own_is_refused(
    sandboxed: AsyncEngine, statement: str, reason: str
) -> None:
    """By what PostgreSQL says, or before it is asked."""
    options = {"isolation_level": "AUTOCOMMIT"} if statement.startswith("DO") else {}
    message = await refused(sandboxed, statement, **options)

    assert reason in message
    assert MARKER in message


async def test_a_table_that_another_cursor_reads_cannot_be_changed(sandboxed: AsyncEngine) -> None:
    """PostgreSQL would wait for the reader to end."""
    async with sandboxed.connect() as reader:
        await reader.execute(text("DECLARE here CURSOR FOR SELECT * FROM author"))
        message = await refused(sandboxed, "ALTER TABLE author ADD COLUMN age int")

    assert "another connection has an open cursor there" in message


async def test_a_value_that_an_enum_got_in_the_test_cannot_be_used(sandboxed: AsyncEngine) -> None:
    """PostgreSQL wants the transaction that has added it to be over."""
    async with sandboxed.begin() as connection:
        await connection.execute(text("ALTER TYPE mood ADD VALUE 'calm'"))
    message = await refused(sandboxed, "SELECT 'calm'::mood")

    assert "the value was added in this test" in message


async def test_the_last_number_of_a_sequence_may_be_anothers(sandboxed: AsyncEngine) -> None:
    """lastval() after another connection has written is not known."""
    async with sandboxed.connect() as one, sandboxed.connect() as two:
        for connection in (one, two):
            await connection.execute(text("INSERT INTO book (title) VALUES ('a')"))
            await connection.commit()
        with pytest.raises(DBAPIError, match="another connection has written since"):
            await one.execute(text("SELECT lastval()"))


async def test_a_lock_that_is_not_given_back_is_not_waited_for(sandboxed: AsyncEngine) -> None:
    """The wait for an advisory lock is bounded, unless the session bounds it by itself."""
    async with sandboxed.connect() as holder:
        await holder.execute(text("SELECT pg_advisory_lock(9)"))
        message = await refused(sandboxed, "SELECT pg_advisory_lock(9)")

    assert "has waited 1 s for a lock" in message


async def test_a_locked_row_is_not_waited_for(sandboxed: AsyncEngine) -> None:
    """lock_timeout is PostgreSQL's, which never sees the wait of one connection for another."""
    async with sandboxed.connect() as holder:
        await holder.execute(text("SELECT 1 FROM author FOR UPDATE"))
        message = await refused(
            sandboxed, "SET LOCAL lock_timeout = 10", "UPDATE author SET name = 'x'"
        )

    assert "the same task holds both" in message


async def test_a_sandbox_goes_on_when_its_process_has_ended(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox
) -> None:
    """Connections are lost with it; the next test has a new one."""
    sandbox = running_sandbox.sandbox
    kill = "SELECT pg_terminate_backend(pg_backend_pid())"
    async with sandboxed.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await asyncio.to_thread(running_sandbox.call, _ignore(sandbox.backend.query(kill)))
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1"))
        await connection.invalidate()
    await asyncio.to_thread(running_sandbox.stand_at, "next")
    await sandboxed.dispose()
    async with sandboxed.connect() as connection:
        assert (await connection.execute(text("SELECT name FROM author"))).all() == []


async def _ignore(query: Awaitable[object]) -> None:
    with contextlib.suppress(BackendError):
        await query


async def test_locks_end_with_their_test(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox
) -> None:
    """Also where the test has done nothing else, and the pool keeps the connection for the next."""
    lock = text("SELECT pg_advisory_lock(7)")

    async def begin(test: str) -> None:
        await asyncio.to_thread(running_sandbox.stand_at, test)

    await begin("one")
    async with sandboxed.connect() as connection:
        await connection.execute(lock)
    for test in ("two", "three"):
        await begin(test)
        async with sandboxed.connect() as first, sandboxed.connect() as second:
            await first.execute(text("SELECT 1"))
            await second.execute(lock)
            await second.execute(text("SELECT pg_advisory_unlock(7)"))
            await first.execute(lock)


async def test_the_lock_of_a_wider_scope_outlives_its_tests(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """What a fixture has locked stays so until its own scope ends."""

    async def is_free(number: int) -> bool:
        async with sandboxed.connect() as connection:
            lock = text(f"SELECT pg_try_advisory_lock({number})")
            return bool((await connection.execute(lock)).scalar())

    await asyncio.to_thread(running_sandbox.stand_at, "module")
    async with sandboxed.connect() as connection:
        await connection.execute(text("SELECT pg_advisory_lock(7)"))
        for test in ("one", "two"):
            await asyncio.to_thread(running_sandbox.stand_at, "module", test)
            assert not await is_free(7)
            assert await is_free(8)
        await asyncio.to_thread(running_sandbox.stand_at, "other module", "three")
        assert await is_free(7)


async def test_a_lock_of_a_test_ends_with_it_where_a_wider_scope_has_locked_before(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """What a fixture has given back is none that has to stay."""
    lock = text("SELECT pg_try_advisory_lock(7)")
    await asyncio.to_thread(running_sandbox.stand_at, "module")
    async with sandboxed.connect() as connection, sandboxed.connect() as other:
        await connection.execute(lock)
        await connection.execute(text("SELECT pg_advisory_unlock(7)"))
        await asyncio.to_thread(running_sandbox.stand_at, "module", "one")
        await connection.execute(lock)
        await asyncio.to_thread(running_sandbox.stand_at, "module", "two")
        assert await other.scalar(lock)


async def test_what_a_test_has_set_ends_with_it(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """SET outlives a test on no connection of a pool; what a wider scope has set stays."""

    async def stand_at(*levels: str) -> None:
        await asyncio.to_thread(running_sandbox.stand_at, *levels)

    async def shown() -> set[str]:
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(sandboxed.connect()) for _ in range(3)]
            return {str((await it.execute(text("SHOW work_mem"))).scalar()) for it in connections}

    async def set_on_one(value: str) -> None:
        async with sandboxed.connect() as connection:
            await connection.execute(text(f"SET work_mem = '{value}'"))
            await connection.commit()

    await stand_at("module", "one")
    await set_on_one("9MB")
    assert await shown() == {"4MB", "9MB"}
    await stand_at("module")
    assert await shown() == {"4MB"}
    await set_on_one("8MB")
    await stand_at("module", "two")
    await set_on_one("9MB")
    await stand_at("module", "three")
    assert await shown() == {"4MB", "8MB"}
    await stand_at("other module", "four")
    assert await shown() == {"4MB"}


async def test_a_reader_of_a_wider_scope_goes_on(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox, sandbox: Sandbox
) -> None:
    """Its transaction began around the tests, so none of them ends it."""

    async def stand_at(*levels: str) -> None:
        await asyncio.to_thread(running_sandbox.stand_at, *levels)

    async with sandboxed.connect() as reader:
        await stand_at("module")
        await reader.execute(text("SELECT name FROM author"))
        for test in ("one", "two"):
            await stand_at("module", test)
            async with sandboxed.begin() as writer:
                await writer.execute(text("INSERT INTO author (name) VALUES ('a')"))
            assert (await reader.execute(text("SELECT name FROM author"))).scalars().all() == ["a"]


@pytest.mark.parametrize(
    ("made", "statement"),
    [
        ("", "WITH a AS (INSERT INTO author (name) VALUES ('a')) SELECT 1 WHERE false"),
        ("", "LOCK author"),
        ("", "SELECT write_author('a') FROM (SELECT 1) a FOR UPDATE"),
        (
            "CREATE TRIGGER t AFTER UPDATE ON author FOR EACH STATEMENT EXECUTE FUNCTION note()",
            "UPDATE author SET name = 'a' WHERE false",
        ),
        (
            "CREATE RULE r AS ON UPDATE TO book DO ALSO INSERT INTO author (name) VALUES ('a')",
            "UPDATE book SET title = 'a' WHERE false",
        ),
    ],
)
async def test_a_count_of_no_rows_may_hide_a_write(
    sandboxed: AsyncEngine, made: str, statement: str
) -> None:
    """What writes elsewhere, or locks a table, holds up reads."""
    async with sandboxed.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN INSERT INTO note (tenant) VALUES ('a'); RETURN NULL; END $$"
            )
        )
        if made:
            await connection.execute(text(made))
    async with sandboxed.connect() as writer:
        await writer.execute(text("SELECT name FROM author"))
        await writer.execute(text(statement))
        message = await refused(sandboxed, "SELECT name FROM author")

    assert "the same task holds both" in message
