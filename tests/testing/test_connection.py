"""What SQLAlchemy's own suite found in the sandbox, each on the smallest example."""

import asyncio
import threading
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from stillroom.errors import DatabaseUnavailableError
from stillroom.testing.engines import allow, direct_to, disallow, install
from stillroom.testing.sandbox import Sandbox
from stillroom.testing.wire.backend import Backend
from stillroom.testing.wire.transport import AnyLoop
from tests.conftest import NewDatabase
from tests.testing.conftest import TRAP, RunningSandbox, Target


async def test_the_shared_connection_cannot_be_ended(sandboxed: AsyncEngine) -> None:
    """Whoever asks PostgreSQL for its process id gets the one that all connections share."""
    async with sandboxed.connect() as connection:
        with pytest.raises(DBAPIError, match="may end the one connection"):
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        await connection.rollback()
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


async def test_a_lost_server_is_an_error_to_all(new_database: NewDatabase) -> None:
    """No statement waits for an answer that cannot come, and no new connection opens."""
    url = new_database()
    other = await cast("Any", asyncpg).connect(url)
    running = await asyncio.to_thread(RunningSandbox, url)
    install()
    direct_to(running.target)
    allow(url)
    engine = create_async_engine(TRAP)
    async with engine.connect() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await other.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        await other.close()
        with pytest.raises(DBAPIError, match="the connection that the tests share"):
            await connection.execute(text("SELECT 1"))
    with pytest.raises(DBAPIError, match="the connection that the tests share"):
        async with engine.connect():
            pass
    await engine.dispose()
    direct_to(None)
    disallow(url)
    await asyncio.to_thread(running.close)


async def test_a_cancellation_that_comes_late_meets_nobody_else(
    sandboxed: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next statement is sent when the server has been asked to cancel the one before it."""
    cancel = Backend.cancel
    may_go_on = threading.Event()

    async def cancel_late(backend: Backend) -> None:
        await asyncio.to_thread(may_go_on.wait)
        await cancel(backend)

    async def select(sql: str) -> None:
        async with sandboxed.connect() as connection:
            await connection.execute(text(sql))

    monkeypatch.setattr(Backend, "cancel", cancel_late)
    short = asyncio.create_task(select("SELECT pg_sleep(0.2)"))
    await asyncio.wait({short}, timeout=0.1)
    short.cancel()
    other = asyncio.create_task(select("SELECT 1"))
    done, _ = await asyncio.wait({other}, timeout=0.5)
    may_go_on.set()
    await other
    with pytest.raises(asyncio.CancelledError):
        await short
    assert not done


async def test_a_cancellation_that_postgresql_forgets_is_repeated(
    sandboxed: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that overtakes its statement does nothing, and the statement would run on."""
    cancel = Backend.cancel
    asked: list[Backend] = []

    async def cancel_the_second_time(backend: Backend) -> None:
        asked.append(backend)
        if len(asked) > 1:
            await cancel(backend)

    async def select(sql: str) -> None:
        async with sandboxed.connect() as connection:
            await connection.execute(text(sql))

    monkeypatch.setattr(Backend, "cancel", cancel_the_second_time)
    long = asyncio.create_task(select("SELECT pg_sleep(20)"))
    await asyncio.wait({long}, timeout=0.1)
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    done, _ = await asyncio.wait({asyncio.create_task(select("SELECT 1"))}, timeout=10)

    assert done


def test_a_loop_that_was_closed_in_the_middle_stops_nobody(new_database: NewDatabase) -> None:
    """Who waited there is not told, and the sandbox goes on to its end."""
    running = RunningSandbox(new_database())
    told: list[object] = []

    class Waiting(asyncio.Protocol):
        """A driver's protocol, whose user waits in the loop in which it was made."""

        def __init__(self) -> None:
            self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.ended.add_done_callback(told.append)

        def connection_lost(self, exc: Exception | None) -> None:
            _ = exc
            self.ended.set_result(None)

    with asyncio.Runner() as runner:
        wires = AnyLoop(running.loop, running.sandbox.accept)
        runner.run(wires.create_unix_connection(Waiting, ""))
    running.close()
    assert told == []


async def test_a_server_that_is_gone_is_named(new_database: NewDatabase) -> None:
    """The next test says so, and not which file was not found."""
    running = await asyncio.to_thread(RunningSandbox, new_database())
    sandbox = running.sandbox
    sandbox.backend._transport.abort()
    await asyncio.to_thread(running.call, asyncio.wait([sandbox.backend.ended]))
    sandbox._connect_arguments["dsn"] = "postgresql:///nobody?host=/nowhere"
    with pytest.raises(DatabaseUnavailableError, match="The server of the tests is gone"):
        await asyncio.to_thread(running.stand_at, "next")
    await asyncio.to_thread(running.loop.stop)


async def test_a_commit_lets_those_go_on_who_wait(
    sandboxed: AsyncEngine, running_sandbox: RunningSandbox
) -> None:
    """Who waits is woken by the COMMIT itself, and not by what somebody does after it."""
    sql = text("INSERT INTO author (name) VALUES (:name)")

    async def write() -> None:
        async with sandboxed.begin() as connection:
            await connection.execute(sql, {"name": "later"})

    async with sandboxed.connect() as connection:
        await connection.execute(sql, {"name": "first"})
        waiting = asyncio.create_task(write())
        await Target("sandbox", "", running_sandbox).is_waited_for()
        await connection.commit()
        async with asyncio.timeout(5):
            await waiting


@pytest.mark.parametrize("is_prepared", [True, False])
async def test_a_fault_of_the_sandbox_is_an_error(
    sandboxed: AsyncEngine, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, is_prepared: bool
) -> None:
    """Nobody waits for an answer that a fault has prevented, and it is not passed over."""
    async with sandboxed.connect() as connection:
        if is_prepared:
            await connection.execute(text("SELECT 1"))
        monkeypatch.delattr(Sandbox, "switch")
        with pytest.raises(DBAPIError, match="The sandbox itself has failed at 'SELECT 1'"):
            await connection.execute(text("SELECT 1"))
    assert len(sandbox.refusals) == 1
    sandbox.refusals.clear()


PAIRS = "CREATE TABLE pair (id int UNIQUE DEFERRABLE INITIALLY {when})"


async def run(engine: AsyncEngine, *statements: str) -> None:
    """Run statements in one transaction."""
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def test_a_new_deferred_constraint_fails_the_commit(engine: AsyncEngine) -> None:
    """Also in the transaction that makes the table, which goes with it."""
    twice = "INSERT INTO pair VALUES (1), (1)"
    with pytest.raises(IntegrityError):
        await run(engine, PAIRS.format(when="DEFERRED"), twice)
    await run(engine, PAIRS.format(when="DEFERRED"))
    with pytest.raises(IntegrityError):
        await run(engine, twice)
    await run(engine, twice, "DELETE FROM pair", "INSERT INTO pair VALUES (2)")
    await run(engine, "DROP TABLE pair")
    await run(engine, "INSERT INTO author (name) VALUES ('a')")


async def test_a_table_is_dropped_after_its_deferred_constraint(engine: AsyncEngine) -> None:
    """Nothing is left to be checked after a COMMIT."""
    await run(
        engine,
        "CREATE TABLE child (author_id int REFERENCES author DEFERRABLE INITIALLY DEFERRED)",
        "WITH new AS (INSERT INTO author (name) VALUES ('a') RETURNING id) "
        "INSERT INTO child SELECT id FROM new",
    )
    await run(engine, "DROP TABLE child")


async def test_a_constraint_that_is_deferred_for_once(engine: AsyncEngine) -> None:
    """SET CONSTRAINTS lasts until the end of the transaction, whose COMMIT checks."""
    twice = "INSERT INTO pair VALUES (1), (1)"
    await run(engine, PAIRS.format(when="IMMEDIATE"))
    with pytest.raises(IntegrityError):
        await run(engine, "SET CONSTRAINTS ALL DEFERRED", twice)
    await run(engine, "SET CONSTRAINTS ALL DEFERRED")
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(text(twice))


async def test_a_temporary_table_goes_after_its_constraint(engine: AsyncEngine) -> None:
    """What a COMMIT checks comes before what it drops."""
    temporary = (
        PAIRS.format(when="DEFERRED").replace("TABLE", "TEMPORARY TABLE") + " ON COMMIT DROP"
    )
    with pytest.raises(IntegrityError):
        await run(engine, temporary, "INSERT INTO pair VALUES (1), (1)")
    for _ in range(2):
        await run(engine, temporary, "INSERT INTO pair VALUES (1)")


SHOW = text("SHOW TRANSACTION ISOLATION LEVEL")


async def test_the_isolation_level_is_the_transactions_own(engine: AsyncEngine) -> None:
    """SHOW and current_setting() answer for the connection that asks."""
    setting = text("SELECT current_setting('transaction_isolation')")
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    async with repeatable.connect() as one, engine.connect() as other:
        for connection, level in ((one, "repeatable read"), (other, "read committed")):
            shown = (await connection.execute(SHOW)).one()
            assert shown._asdict() == {"transaction_isolation": level}
            assert (await connection.execute(setting)).scalar() == level


async def test_a_serializable_transaction_says_that_it_is(engine: AsyncEngine) -> None:
    """What works in it is refused, but SQLAlchemy may ask for the level."""
    serializable = engine.execution_options(isolation_level="SERIALIZABLE")
    async with serializable.connect() as connection:
        assert await connection.get_isolation_level() == "SERIALIZABLE"
        assert (await connection.execute(SHOW)).scalar() == "serializable"


async def test_the_isolation_level_of_a_session(engine: AsyncEngine) -> None:
    """SET SESSION CHARACTERISTICS holds for what begins later; SET TRANSACTION for once."""
    async with engine.connect() as connection:
        await connection.execute(
            text("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        )
        await connection.commit()
        assert (await connection.execute(SHOW)).scalar() == "repeatable read"
        await connection.rollback()
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"))
        assert (await connection.execute(SHOW)).scalar() == "read uncommitted"
        await connection.rollback()
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        assert (await connection.execute(SHOW)).scalar() == "repeatable read"
        await connection.execute(text("RESET default_transaction_isolation"))
        assert (await connection.execute(SHOW)).scalar() == "read committed"


ADD = text("INSERT INTO author (name) VALUES ('a')")
NAMES = text("SELECT name FROM author")


async def fetchrow(connection: AsyncConnection, sql: str) -> Any:
    """Run a statement past SQLAlchemy, as the ping of its pool does."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    return await driver.fetchrow(sql)


async def test_a_new_engine_connects_beside_uncommitted_work(sandboxed: AsyncEngine) -> None:
    """What it asks the server has one answer; what it reads of a table then has not."""
    other = create_async_engine(TRAP, pool_pre_ping=True)
    async with sandboxed.connect() as writer:
        await writer.execute(ADD)
        for _ in range(2):
            async with other.connect() as reader:
                assert (await reader.execute(text("SELECT 1"))).scalar() == 1
        async with other.connect() as reader:
            with pytest.raises(DBAPIError, match="SELECT name FROM author"):
                await reader.execute(NAMES)
        await writer.commit()
    async with other.connect() as reader:
        assert (await reader.execute(NAMES)).scalars().all() == ["a"]
    await other.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'author'::regclass",
        "SELECT write_author('b')",
        "SELECT EXISTS (TABLE author)",
        "SELECT (SELECT max(name) FROM author) AS one",
        "SELECT count(*) FROM pg_stat_activity WHERE query IN (SELECT name FROM author)",
        "SELECT count(*) FROM pg_stat_activity, author",
        "SELECT count(*) FROM pg_stat_activity UNION SELECT count(*) FROM author",
        "SELECT 'ok'::mood",
        "SELECT CAST('ok' AS mood)",
    ],
)
async def test_what_may_see_uncommitted_work_is_refused(
    sandboxed: AsyncEngine, statement: str
) -> None:
    """Only what is known to look at no table, type or function of the application passes."""
    async with sandboxed.connect() as writer, sandboxed.connect() as reader:
        await writer.execute(ADD)
        with pytest.raises(DBAPIError, match="the same task holds both"):
            await reader.execute(text(statement))


async def test_what_looks_at_no_table_does_not_wait(engine: AsyncEngine) -> None:
    """Nor does it disturb the work of the one whom it passes."""
    statements = [
        "SELECT pg_catalog.version()",
        "SHOW search_path",
        "SELECT now(), 1 + 1 AS two, NULL::integer",
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND pid != pg_backend_pid()",
    ]
    async with engine.connect() as writer, engine.connect() as reader:
        await writer.execute(ADD)
        await writer.execute(text("SET LOCAL search_path = pg_catalog"))
        for statement in statements:
            await reader.execute(text(statement))
        with pytest.raises(DBAPIError, match="division by zero"):
            await reader.execute(text("SELECT 1 / 0"))
        await reader.rollback()
        assert (await writer.execute(text("SHOW search_path"))).scalar() == "pg_catalog"
        assert (await reader.execute(text("SHOW search_path"))).scalar() == '"$user", public'
        await writer.commit()
        assert (await reader.execute(NAMES)).scalars().all() == ["a"]


async def test_a_ping_is_no_write(engine: AsyncEngine) -> None:
    """An empty statement commits nothing, so a snapshot stays what it is."""
    async with engine.connect() as reader, engine.connect() as other:
        await reader.execution_options(isolation_level="REPEATABLE READ")
        assert (await reader.execute(NAMES)).all() == []
        assert await fetchrow(other, ";") is None
        assert (await reader.execute(NAMES)).all() == []


async def test_an_error_in_a_savepoint_is_its_connections_own(engine: AsyncEngine) -> None:
    """Another connection runs on before the first one has rolled back."""
    async with engine.connect() as writer, engine.connect() as other:
        await writer.execute(ADD)
        nested = await writer.begin_nested()
        with pytest.raises(IntegrityError):
            await writer.execute(ADD)
        assert (await other.execute(text("SELECT 1"))).scalar() == 1
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await writer.execute(NAMES)
        await nested.rollback()
        await writer.commit()
        assert (await other.execute(NAMES)).scalars().all() == ["a"]


async def test_the_info_of_a_connection_is_the_applications(engine: AsyncEngine) -> None:
    """What it finds there is what it has put there."""
    async with engine.connect() as connection:
        assert connection.sync_connection is not None
        assert connection.sync_connection.info == {}


async def test_a_creator_is_called_by_itself(engine: AsyncEngine) -> None:
    """An engine may take its connections of another one's creator."""
    create: Any = cast("Any", engine.sync_engine.pool)._creator

    async def creator() -> Any:
        return (await greenlet_spawn(create)).driver_connection

    other = create_async_engine(TRAP, async_creator=creator)
    await run(other, "INSERT INTO author (name) VALUES ('a')")
    async with engine.connect() as connection:
        assert (await connection.execute(NAMES)).scalars().all() == ["a"]
    await other.dispose()
