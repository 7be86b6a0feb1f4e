"""The session manager owns lifetimes."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from sqlalchemy import MetaData, String, TextClause, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import ending
from stillroom.engine import EngineSettings
from stillroom.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    LifecycleError,
    UnknownOutcomeError,
)
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from stillroom.session import ServiceSession
from tests.conftest import NewDatabase
from tests.processes import eventually


class Base(Model, DeclarativeBase):
    """The base of the tables of these tests."""


class Jar(Base):
    """A row with a name."""

    __tablename__ = "jars"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


HELD = text("SELECT count(*) FROM held")
"""A statement that waits for a lock, and begins no transaction where it may do without."""


@pytest.fixture
async def manager(driver_url: str) -> DatabaseSessionManager:
    """Give a manager on a database with the tables, on each driver."""
    return await opened(driver_url, statement_timeout=1.0)


@pytest.fixture
async def patient_manager(driver_url: str) -> DatabaseSessionManager:
    """Give one whose statements end by their time only where nothing else ends them."""
    return await opened(driver_url, statement_timeout=20.0)


async def opened(url: str, statement_timeout: float) -> DatabaseSessionManager:
    """Open a manager, and make its tables."""
    manager = DatabaseSessionManager(Base.metadata)
    settings = EngineSettings(
        pool_size=3, statement_timeout=statement_timeout, lock_timeout=statement_timeout
    )
    manager.init(url, settings=settings)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    return manager


async def names(manager: DatabaseSessionManager) -> set[str]:
    """Read the names that are committed."""
    async with manager.session(read_only=True) as session:
        return {jar.name for jar in await Jar.get_all(session)}


def test_init_needs_no_loop_and_opens_nothing() -> None:
    """The URL of a server that is not there is taken without a word."""
    manager = DatabaseSessionManager()

    manager.init("postgresql://user@127.0.0.1:1/nowhere")

    assert manager.is_open


def test_init_refuses_a_url_that_cannot_be_used_and_stays_closed() -> None:
    """A bad URL is an error at init, not at the first request."""
    manager = DatabaseSessionManager()

    with pytest.raises(ConfigurationError):
        manager.init("sqlite://")

    assert not manager.is_open


def test_init_twice_is_refused_without_the_password() -> None:
    """A second init would leak the first one's connections."""
    manager = DatabaseSessionManager()
    manager.init("postgresql://user:secret@host/one")

    with pytest.raises(
        LifecycleError, match=r"open already, on postgresql\+asyncpg://host/one"
    ) as error:
        manager.init("postgresql://user@host/two")

    assert "secret" not in f"{error.value} {manager!r} {manager}"


async def test_use_before_init_says_how_to_open() -> None:
    """Each way in says that init() is missing."""
    manager = DatabaseSessionManager()

    for way in (manager.session, manager.begin, manager.connect):
        with pytest.raises(LifecycleError, match=r"is not open yet. Call sessionmanager.init"):
            async with way():
                pass
    with pytest.raises(LifecycleError, match="is not open yet"):
        await manager.close()
    assert repr(manager) == "<DatabaseSessionManager not open>"


async def test_use_after_close_and_close_twice_are_refused() -> None:
    """A closed manager says so, and may be initialised again."""
    manager = DatabaseSessionManager()
    manager.init("postgresql://user@host/one")
    await manager.close()

    with pytest.raises(LifecycleError, match="was closed"):
        await manager.close()
    with pytest.raises(LifecycleError, match="was closed"):
        async with manager.session():
            pass
    manager.init("postgresql://user@host/one")
    assert manager.is_open


def test_use_outside_of_a_loop_is_refused() -> None:
    """A pool belongs to an event loop; without one there is none to make."""
    manager = DatabaseSessionManager()
    manager.init("postgresql://user@host/one")

    with pytest.raises(LifecycleError, match="outside of a running event loop"):
        _ = manager.engine


def test_two_loops_in_turn_each_have_their_connections(driver_url: str) -> None:
    """A loop's pool is closed with the loop; the next loop gets its own, with no warning."""
    manager = DatabaseSessionManager()
    manager.init(driver_url)

    async def backends() -> int:
        async with manager.session() as session:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            return int((await session.execute(text(query))).scalar_one())

    for _ in range(3):
        assert asyncio.run(backends()) == 1
    asyncio.run(manager.close())


def test_two_loops_at_the_same_time_do_not_share_connections(driver_url: str) -> None:
    """Each of two running loops has a pool, and close() in one closes both."""
    manager = DatabaseSessionManager()
    manager.init(driver_url)
    ready, done = threading.Event(), threading.Event()

    async def other() -> None:
        async with manager.session() as session:
            assert await session.scalar(text("SELECT 1")) == 1
        ready.set()
        await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    ready.wait()

    async def count_and_close() -> int:
        async with manager.session() as session:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            number = int((await session.execute(text(query))).scalar_one())
        await manager.close()
        return number

    assert asyncio.run(count_and_close()) == 2
    done.set()
    thread.join()


async def test_session_rolls_back_unless_committed(manager: DatabaseSessionManager) -> None:
    """`session()` is the article's: its user commits."""
    async with manager.session() as session:
        await Jar.create(session, name="lost")
    async with manager.session() as session:
        await Jar.create(session, name="kept")
        await session.commit()

    assert await names(manager) == {"kept"}
    await manager.close()


async def test_begin_commits_and_an_exception_rolls_back(manager: DatabaseSessionManager) -> None:
    """`begin()` is all or nothing: two creates are one transaction."""
    async with manager.begin() as session:
        await Jar.create(session, name="one")
        await Jar.create(session, name="two")
    with pytest.raises(ZeroDivisionError):
        async with manager.begin() as session:
            await Jar.create(session, name="three")
            _ = 1 / 0

    assert await names(manager) == {"one", "two"}
    await manager.close()


async def test_connect_is_a_transaction(manager: DatabaseSessionManager) -> None:
    """`connect()` commits at its end and rolls back an exception, which reaches the caller."""
    insert = text("INSERT INTO jars (name) VALUES ('connected')")
    async with manager.connect() as connection:
        await connection.execute(insert)
    with pytest.raises(ZeroDivisionError):
        async with manager.connect() as connection:
            await connection.execute(insert)
            _ = 1 / 0

    assert await names(manager) == {"connected"}
    await manager.close()


async def test_a_read_session_cannot_write(manager: DatabaseSessionManager) -> None:
    """PostgreSQL refuses with 25006, in the second transaction of the session too."""
    async with manager.session(read_only=True) as session:
        await session.commit()
        with pytest.raises(DBAPIError) as error:
            await Jar.create(session, name="read")
        assert getattr(error.value.driver_exception, "sqlstate", None) == "25006"

    async with manager.begin() as session:
        await Jar.create(session, name="written on the same connection")
    await manager.close()


async def test_an_ended_session_refuses_work(manager: DatabaseSessionManager) -> None:
    """A session that has ended does not begin anew in silence."""
    async with manager.session() as session:
        pass

    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await session.execute(text("SELECT 1"))
    await manager.close()


async def test_rows_stay_readable_after_the_commit(manager: DatabaseSessionManager) -> None:
    """Nothing is expired on commit, so no attribute asks for SQL in the wrong place."""
    async with manager.begin() as session:
        jar = await Jar.create(session, name="plum")

    assert (jar.name, jar.id) == ("plum", 1)
    await manager.close()


async def test_create_all_and_drop_all(manager: DatabaseSessionManager) -> None:
    """The article's two methods, on a connection of connect()."""
    async with manager.connect() as connection:
        await manager.drop_all(connection)
        assert await connection.scalar(text("SELECT to_regclass('jars')")) is None
        await manager.create_all(connection)
        assert await connection.scalar(text("SELECT to_regclass('jars')::text")) == "jars"
    await manager.close()


async def test_a_manager_without_metadata_says_so(database_url: str) -> None:
    """The message shows the call that is missing."""
    manager = DatabaseSessionManager()
    manager.init(database_url)

    with pytest.raises(LifecycleError, match=r"DatabaseSessionManager\(Base.metadata\)"):
        async with manager.connect() as connection:
            await manager.create_all(connection)
    await manager.close()


async def test_reads_may_go_to_a_replica(database_url: str, new_database: NewDatabase) -> None:
    """With a `read_url` read sessions go there, and stay read-only."""
    replica = new_database()
    manager = DatabaseSessionManager(MetaData())
    manager.init(database_url, read_url=replica)

    async with manager.session(read_only=True) as read, manager.session() as write:
        query = text("SELECT current_database() || current_setting('transaction_read_only')")
        answers = {await read.scalar(query), await write.scalar(query)}

    assert answers == {
        f"{database_url.split('?', maxsplit=1)[0].rpartition('/')[2]}off",
        f"{replica.split('?')[0].rpartition('/')[2]}on",
    }
    await manager.close()


@pytest.mark.parametrize("by", ["task", "anyio"])
@pytest.mark.parametrize("statement", ["SELECT pg_sleep(30)", "INSERT"])
async def test_a_cancelled_statement_leaves_nothing(
    manager: DatabaseSessionManager, by: str, statement: str
) -> None:
    """Cancelled in mid-statement: nothing written, nothing running, no slot lost."""

    async def work() -> None:
        async with manager.begin() as session:
            await Jar.create(session, name="cancelled")
            if statement != "INSERT":
                await session.execute(text(statement))
            else:
                await asyncio.sleep(30)

    await cancel(work, by, after=0.2)

    assert await names(manager) == set()
    await nothing_left(manager)
    await manager.close()


@pytest.mark.parametrize("by", ["task", "anyio"])
async def test_a_cancellation_at_commit_waits_for_its_end(
    manager: DatabaseSessionManager, by: str
) -> None:
    """Once COMMIT is sent it runs to its end, and the cancellation comes after it."""
    await make_commits_slow(manager, 0.6)

    async def work() -> None:
        async with manager.begin() as session:
            await Jar.create(session, name="committed")

    await cancel(work, by, after=0.3)

    assert await names(manager) == {"committed"}
    await nothing_left(manager)
    await manager.close()


async def test_a_cancellation_before_commit_is_sent_leaves_nothing(
    manager: DatabaseSessionManager,
) -> None:
    """A cancellation that is due when the block ends arrives before COMMIT."""

    async def work() -> None:
        async with manager.begin() as session:
            await Jar.create(session, name="too late")
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())

    assert await names(manager) == set()
    await nothing_left(manager)
    await manager.close()


async def test_a_commit_that_hangs_is_an_unknown_outcome(manager: DatabaseSessionManager) -> None:
    """After the deadline the slot is free and the error says so; the COMMIT runs to its end."""
    await make_commits_slow(manager, 3)

    with pytest.raises(UnknownOutcomeError, match="not answered a COMMIT in time"):
        async with manager.begin() as session:
            await Jar.create(session, name="who knows")

    await nothing_left(manager)
    assert await names(manager) == set()
    await asyncio.gather(*ending._endings)
    assert await names(manager) == {"who knows"}
    await manager.close()


@pytest.mark.parametrize("by", ["task", "anyio"])
async def test_a_cancellation_in_clean_up_loses_no_connection(
    manager: DatabaseSessionManager, by: str
) -> None:
    """The rollback runs to its end, however often it is cancelled."""
    for _ in range(20):

        async def work() -> None:
            async with manager.session() as session:
                await Jar.create(session, name="never")
                await asyncio.sleep(0.01)

        await cancel(work, by, after=0.012)

    assert await names(manager) == set()
    await nothing_left(manager)
    await manager.close()


async def test_a_commit_of_the_sessions_user_runs_to_its_end_too(
    manager: DatabaseSessionManager,
) -> None:
    """A deadline of the user's own does not cut a COMMIT that was sent."""
    await make_commits_slow(manager, 0.6)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), manager.session() as session:
            await Jar.create(session, name="by hand")
            await session.commit()

    assert await names(manager) == {"by hand"}
    await nothing_left(manager)
    await manager.close()


async def test_no_limit_is_no_limit(driver_url: str) -> None:
    """A statement timeout of 0 leaves COMMIT and ROLLBACK all the time they need."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(driver_url, settings=EngineSettings(statement_timeout=0))
    async with manager.connect() as connection:
        await manager.create_all(connection)
    await make_commits_slow(manager, 0.3)

    async with manager.begin() as session:
        await Jar.create(session, name="slow")

    assert await names(manager) == {"slow"}
    await manager.close()


async def test_a_connection_that_is_lost_at_commit_is_asked_about(
    manager: DatabaseSessionManager,
) -> None:
    """COMMIT was sent and had not come to its end: nothing is there, and it may be tried again."""
    await make_commits_slow(manager, 30)

    async def cut() -> None:
        query = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COMMIT%' "
            "AND datname = current_database() AND state = 'active'"
        )
        with anyio.fail_after(5):
            while True:
                async with manager.session() as session:
                    if (await session.execute(query)).all():
                        return
                await asyncio.sleep(0.01)

    cutting = asyncio.create_task(cut())
    with pytest.raises(DatabaseUnavailableError, match="has rolled back"):
        async with manager.begin() as session:
            await Jar.create(session, name="cut off")
    await cutting
    assert await names(manager) == set()
    await manager.close()


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_session_that_ends_while_a_task_still_uses_it_harms_nobody(
    patient_manager: DatabaseSessionManager, database_url: str, read_only: bool
) -> None:
    """A forgotten task loses its connection; the next ones to come get a whole one."""
    manager = patient_manager
    is_lost = manager.engine.dialect.driver == "asyncpg"  # psycopg is waited for
    with psycopg.connect(database_url, autocommit=True) as holder:
        holder.execute("CREATE TABLE held ()")
        for _ in range(5):
            holder.execute("BEGIN; LOCK TABLE held")
            async with manager.session(read_only=read_only) as session:
                if not read_only:
                    await Jar.create(session, name="never")
                forgotten = asyncio.create_task(session.execute(HELD))
                await running(manager, HELD)
                if not is_lost:
                    asyncio.get_running_loop().call_later(0.1, lambda: holder.execute("COMMIT"))
            for _ in range(5):
                async with manager.session(read_only=read_only) as other:
                    assert await Jar.get_all(other) == []
            await asyncio.wait({forgotten})
            if is_lost:
                assert forgotten.exception() is not None
                holder.execute("COMMIT")

    await nothing_left(manager)
    await manager.close()


@pytest.mark.parametrize("driver_url", ["asyncpg"], indirect=True)  # psycopg is waited for
async def test_a_connection_whose_statement_still_runs_is_not_taken_back(
    patient_manager: DatabaseSessionManager, database_url: str
) -> None:
    """The next one to come gets another one, and waits for no statement of somebody else."""
    manager = patient_manager
    with psycopg.connect(database_url) as holder:
        holder.execute("CREATE TABLE held ()")
        holder.commit()
        holder.execute("LOCK TABLE held")
        connection = await manager.read_engine.connect()
        first = (await connection.get_raw_connection()).driver_connection
        forgotten = asyncio.create_task(connection.execute(HELD))
        await running(manager, HELD)
        await connection.close()
        async with manager.read_engine.connect() as other:
            assert (await other.get_raw_connection()).driver_connection is not first
        await asyncio.wait({forgotten})
    assert forgotten.exception() is not None
    await manager.close()


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_session_that_ends_while_a_task_waits_for_its_connection_harms_nobody(
    manager: DatabaseSessionManager, read_only: bool
) -> None:
    """The connection that comes goes back to the pool, and the task learns why."""

    async def read(session: ServiceSession) -> None:
        await session.execute(text("SELECT 1"))

    async def begin_and_read(session: ServiceSession) -> None:
        async with session.begin():
            await read(session)

    async def commit(session: ServiceSession) -> None:
        await session.commit_with(lambda it: it.execute(text("INSERT INTO jars VALUES (1, 'a')")))

    for work in (read, begin_and_read, commit):
        async with AsyncExitStack() as others:
            for _ in range(3):
                other = await others.enter_async_context(manager.session(read_only=read_only))
                await other.execute(text("SELECT 1"))
            session = manager.new_session(read_only=read_only)
            forgotten = asyncio.create_task(work(session))
            await asyncio.sleep(0)
            await session.close()
        with pytest.raises(InvalidRequestError, match="has ended while a task"):
            await forgotten

    assert await names(manager) == set()

    await nothing_left(manager)
    await manager.close()


async def test_a_connection_in_use_is_closed_on_its_return(
    manager: DatabaseSessionManager, database_url: str
) -> None:
    """close() does not wait for it, and leaves nothing behind."""
    async with manager.session() as session:
        await session.execute(text("SELECT 1"))
        await manager.close()

    with psycopg.connect(database_url) as other:
        assert eventually(lambda: connections(other) == 1)


def connections(connection: psycopg.Connection[Any]) -> int:
    """Count the connections to this database."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    row = connection.execute(query).fetchone()
    connection.rollback()
    return int(row[0]) if row else 0


async def test_a_read_session_cannot_be_made_to_write(manager: DatabaseSessionManager) -> None:
    """An option of the connection does not lift the READ ONLY."""
    async with manager.session(read_only=True) as session:
        connection = await session.connection(execution_options={"postgresql_readonly": False})
        with pytest.raises(ConfigurationError, match="cannot be made to write"):
            await connection.execute(text("SELECT 1"))
    await manager.close()


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    """A password in the query part is not in a repr or a message either."""
    key = tmp_path / "key"
    key.touch()
    for url in (
        "postgresql+psycopg:///db?user=u&password=topsecret",
        f"postgresql://u@h/db?sslmode=verify-full&sslkey={key}&sslpassword=topsecret",
    ):
        manager = DatabaseSessionManager()
        manager.init(url)
        with pytest.raises(LifecycleError) as error:
            manager.init(url)
        assert "topsecret" not in f"{manager!r} {error.value}"


async def cancel(work: Callable[[], Coroutine[Any, Any, None]], by: str, *, after: float) -> None:
    """Run the work and cancel it after a while, as asyncio or as anyio does."""
    if by == "anyio":
        with anyio.move_on_after(after):
            await work()
        return
    task = asyncio.create_task(work())
    _, pending = await asyncio.wait({task}, timeout=after)
    for late in pending:
        late.cancel()
    await asyncio.wait({task})
    assert task.cancelled() or task.exception() is None


async def make_commits_slow(manager: DatabaseSessionManager, seconds: float) -> None:
    """Make each COMMIT that follows an insert sleep."""
    async with manager.connect() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION sleep_at_commit() RETURNS trigger LANGUAGE plpgsql AS "
                f"'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END'"
            )
        )
        await connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON jars DEFERRABLE INITIALLY "
                "DEFERRED FOR EACH ROW EXECUTE FUNCTION sleep_at_commit()"
            )
        )


async def running(manager: DatabaseSessionManager, statement: TextClause) -> None:
    """Wait until PostgreSQL is at a statement."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = :query")
    with anyio.fail_after(5):
        while True:
            async with manager.session() as session:
                if await session.scalar(query, {"query": str(statement)}):
                    return
            await asyncio.sleep(0.01)


async def nothing_left(manager: DatabaseSessionManager) -> None:
    """See that the pool is whole and that PostgreSQL is at rest within the check interval."""
    pools: list[Any] = [manager.engine.pool, manager.read_engine.pool]
    assert [pool.checkedout() for pool in pools] == [0, 0]
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND state <> 'idle' AND query NOT LIKE 'COMMIT%'"
    )
    with anyio.fail_after(5):
        while True:
            async with manager.session(read_only=True) as session:
                if await session.scalar(query) == 0:
                    return
            await asyncio.sleep(0.02)
