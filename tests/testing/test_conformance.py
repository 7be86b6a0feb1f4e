"""The same outcome on a plain connection and in the sandbox: each test here runs on both."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

ADD = text("INSERT INTO author (name) VALUES (:name) RETURNING id")
NAMES = text("SELECT name FROM author ORDER BY id")


async def add(where: AsyncConnection | AsyncSession, name: str) -> int:
    """Add an author and return its id."""
    number: int = (await where.execute(ADD, {"name": name})).scalar_one()
    return number


async def names(engine: AsyncEngine) -> list[str]:
    """Return the names of all authors as another connection sees them."""
    async with engine.connect() as connection:
        return list((await connection.execute(NAMES)).scalars())


async def value(where: AsyncConnection | AsyncSession, sql: str, **values: Any) -> Any:
    """Return the one value of a statement."""
    return (await where.execute(text(sql), values)).scalar()


def sqlstate(error: DBAPIError) -> str:
    """Return PostgreSQL's code of an error."""
    return str(getattr(error.orig, "sqlstate", None))


# Transactions.


async def test_what_is_committed_is_seen_by_others(engine: AsyncEngine) -> None:
    """A COMMIT makes the work of a connection visible to all."""
    async with AsyncSession(engine) as session:
        await add(session, "a")
        await session.commit()

    assert await names(engine) == ["a"]


async def test_what_is_rolled_back_is_gone(engine: AsyncEngine) -> None:
    """A ROLLBACK undoes the transaction and nothing before it."""
    async with AsyncSession(engine) as session:
        await add(session, "kept")
        await session.commit()
        await add(session, "lost")
        await session.rollback()

    assert await names(engine) == ["kept"]


async def test_a_closed_session_leaves_nothing(engine: AsyncEngine) -> None:
    """A session that ends without a COMMIT is rolled back."""
    async with AsyncSession(engine) as session:
        await add(session, "lost")

    assert await names(engine) == []


async def test_a_begin_block_rolls_back_by_an_exception(engine: AsyncEngine) -> None:
    """`engine.begin()` commits at its end, and not after an exception."""
    with pytest.raises(ZeroDivisionError):
        async with engine.begin() as connection:
            await add(connection, "lost")
            raise ZeroDivisionError

    assert await names(engine) == []


async def test_autocommit_commits_each_statement(engine: AsyncEngine) -> None:
    """Without a transaction a statement is its own."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await add(connection, "a")
        with pytest.raises(IntegrityError):
            await add(connection, "a")
        await add(connection, "b")

    assert await names(engine) == ["a", "b"]


async def test_an_error_aborts_its_transaction_alone(engine: AsyncEngine) -> None:
    """After an error the transaction refuses statements; another connection goes on."""
    async with engine.connect() as failing, engine.connect() as other:
        with pytest.raises(DBAPIError) as division:
            await failing.execute(text("SELECT 1 / 0"))
        with pytest.raises(DBAPIError) as aborted:
            await failing.execute(text("SELECT 1"))
        assert await value(other, "SELECT 1") == 1
        await failing.rollback()
        assert await value(failing, "SELECT 2") == 2

    assert (sqlstate(division.value), sqlstate(aborted.value)) == ("22012", "25P02")


async def test_an_error_loses_the_writes_before_it(engine: AsyncEngine) -> None:
    """A COMMIT after an error rolls back."""
    async with engine.connect() as connection:
        await add(connection, "lost")
        with pytest.raises(IntegrityError):
            await add(connection, "lost")
        await connection.commit()

    assert await names(engine) == []


async def test_a_savepoint_keeps_the_transaction_alive(engine: AsyncEngine) -> None:
    """An error within begin_nested() undoes the savepoint alone."""
    async with AsyncSession(engine) as session:
        await add(session, "a")
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await add(session, "b")
                await add(session, "a")
        await add(session, "c")
        await session.commit()

    assert await names(engine) == ["a", "c"]


async def test_savepoints_nest(engine: AsyncEngine) -> None:
    """An inner savepoint that is rolled back leaves the outer one's work."""
    async with engine.begin() as connection:
        outer = await connection.begin_nested()
        await add(connection, "outer")
        inner = await connection.begin_nested()
        await add(connection, "inner")
        await inner.rollback()
        await outer.commit()

    assert await names(engine) == ["outer"]


async def test_savepoints_of_one_name_shadow_each_other(engine: AsyncEngine) -> None:
    """ROLLBACK TO goes to the newest savepoint of the name."""
    async with engine.begin() as connection:
        for name in ("a", "b"):
            await connection.execute(text("SAVEPOINT Here"))
            await add(connection, name)
        await connection.execute(text("ROLLBACK TO SAVEPOINT here"))

    assert await names(engine) == ["a"]


async def test_an_unknown_savepoint_is_an_error(engine: AsyncEngine) -> None:
    """PostgreSQL knows no such savepoint."""
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as failure:
            await connection.execute(text("ROLLBACK TO SAVEPOINT nowhere"))

    assert sqlstate(failure.value) == "3B001"


async def test_a_deferred_constraint_fails_the_commit(engine: AsyncEngine) -> None:
    """A foreign key that is checked at COMMIT fails it, and the work is lost."""
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO book (title, author_id) VALUES ('x', 99)"))
        with pytest.raises(IntegrityError) as failure:
            await connection.commit()

    assert sqlstate(failure.value) == "23503"


async def test_a_deferred_constraint_may_be_met_later(engine: AsyncEngine) -> None:
    """Within the transaction the row may come before what it refers to."""
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO book (title, author_id) VALUES ('x', 1)"))
        assert await add(connection, "a") == 1

    assert await names(engine) == ["a"]


async def test_constraints_set_immediate_are_deferred_again(engine: AsyncEngine) -> None:
    """SET CONSTRAINTS lasts for its transaction."""
    async with engine.connect() as connection:
        await connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT INTO book (title, author_id) VALUES ('x', 9)"))
        await connection.rollback()
        await connection.execute(text("INSERT INTO book (title, author_id) VALUES ('x', 1)"))
        await add(connection, "a")
        await connection.commit()

    assert await names(engine) == ["a"]


async def test_a_deferred_constraint_fails_an_autocommitted_statement(engine: AsyncEngine) -> None:
    """Each statement's end is a COMMIT."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT INTO book (title, author_id) VALUES ('x', 9)"))

    async with engine.connect() as connection:
        assert await value(connection, "SELECT count(*) FROM book") == 0


# Constraints and their errors.


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("INSERT INTO author (name) VALUES (NULL)", "23502"),
        ("INSERT INTO book (title, pages) VALUES ('x', 0)", "23514"),
        ("INSERT INTO nowhere VALUES (1)", "42P01"),
        ("SELEC 1", "42601"),
        ("INSERT INTO author (name, feels) VALUES ('a', 'furious')", "22P02"),
    ],
)
async def test_errors_have_the_codes_of_postgresql(
    engine: AsyncEngine, statement: str, code: str
) -> None:
    """The SQLSTATE reaches the application."""
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as failure:
            await connection.execute(text(statement))

    assert sqlstate(failure.value) == code


# Concurrency.


async def test_writers_wait_for_each_other(engine: AsyncEngine) -> None:
    """Any number of tasks write at once, and all of it is there."""

    async def write(number: int) -> None:
        async with AsyncSession(engine) as session:
            await add(session, f"{number:02}")
            await asyncio.sleep(0)
            await session.commit()

    await asyncio.gather(*(write(number) for number in range(20)))

    assert sorted(await names(engine)) == [f"{number:02}" for number in range(20)]


async def test_readers_go_on_while_nobody_writes(engine: AsyncEngine) -> None:
    """Open transactions that only read hold nobody up."""
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(NAMES)
        await two.execute(NAMES)
        await add(two, "a")
        await two.commit()
        assert list((await one.execute(NAMES)).scalars()) == ["a"]


async def test_a_cancelled_statement_loses_its_transaction(engine: AsyncEngine) -> None:
    """A statement that is cancelled ends, and what came before it is rolled back."""

    async def sleep() -> None:
        async with AsyncSession(engine) as session:
            await add(session, "lost")
            await session.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(sleep())
    await asyncio.sleep(0.1)  # whoever looked whether it runs would wait for the writer
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await names(engine) == []


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


# Parameters of a session and of a transaction.


async def test_a_parameter_is_its_connections_own(engine: AsyncEngine) -> None:
    """SET is not seen by another connection."""
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(text("SET search_path = pg_catalog, public"))
        assert await value(one, "SHOW search_path") == "pg_catalog, public"
        assert await value(two, "SHOW search_path") == '"$user", public'
        assert await value(one, "SELECT current_setting('search_path')") == "pg_catalog, public"


async def test_a_parameter_goes_with_a_rollback(engine: AsyncEngine) -> None:
    """SET within a transaction that is rolled back never was."""
    async with engine.connect() as connection:
        await connection.execute(text("SET work_mem = '8MB'"))
        await connection.commit()
        await connection.execute(text("SET work_mem = '9MB'"))
        await connection.rollback()
        assert await value(connection, "SHOW work_mem") == "8MB"


async def test_set_local_ends_with_its_transaction(engine: AsyncEngine) -> None:
    """SET LOCAL is over at the COMMIT, after writes too."""
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL work_mem = '9MB'"))
        await add(connection, "a")
        assert await value(connection, "SHOW work_mem") == "9MB"
        await connection.commit()
        assert await value(connection, "SHOW work_mem") == "4MB"


@pytest.mark.parametrize("is_local", [True, False])
async def test_set_config_is_as_local_as_it_says(engine: AsyncEngine, is_local: bool) -> None:
    """A parameter of the application's own, as row security uses it, by bound values."""
    async with engine.connect() as connection:
        await connection.execute(
            text("SELECT set_config('app.tenant', :tenant, :local)"),
            {"tenant": "o'neill", "local": is_local},
        )
        assert await value(connection, "SELECT current_setting('app.tenant')") == "o'neill"
        await connection.commit()
        after = await value(connection, "SELECT current_setting('app.tenant', true)")

    assert (after or "") == ("" if is_local else "o'neill")


async def test_a_parameter_goes_with_a_savepoint(engine: AsyncEngine) -> None:
    """ROLLBACK TO brings back what a parameter was."""
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL work_mem = '8MB'"))
        savepoint = await connection.begin_nested()
        await connection.execute(text("SET LOCAL work_mem = '9MB'"))
        await savepoint.rollback()
        assert await value(connection, "SHOW work_mem") == "8MB"


async def test_a_read_only_transaction_cannot_write(engine: AsyncEngine) -> None:
    """READ ONLY is PostgreSQL's own; a function that writes is caught too."""
    for statement in (
        "INSERT INTO author (name) VALUES ('x')",
        "SELECT nextval('author_id_seq')",
        "SELECT write_author('x')",
        "CREATE TABLE x (a int)",
        "SELECT * FROM author FOR UPDATE",
    ):
        async with engine.connect() as connection:
            await connection.execution_options(postgresql_readonly=True)
            await connection.execute(NAMES)
            with pytest.raises(DBAPIError) as failure:
                await connection.execute(text(statement))
            assert sqlstate(failure.value) == "25006", statement


async def test_a_session_may_be_read_only_by_default(engine: AsyncEngine) -> None:
    """default_transaction_read_only holds for each transaction to come."""
    async with engine.connect() as connection:
        await connection.execute(text("SET default_transaction_read_only = on"))
        await connection.commit()
        with pytest.raises(DBAPIError) as failure:
            await add(connection, "x")

    assert sqlstate(failure.value) == "25006"


# Sequences, types and the ways to move data.


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


async def test_json_and_enums_keep_their_types(engine: AsyncEngine) -> None:
    """The codecs of the engine are used."""
    async with engine.begin() as connection:
        statement = (
            "INSERT INTO author (name, feels, data) VALUES ('a', 'ok', CAST(:data AS jsonb)) "
            "RETURNING feels, data"
        )
        row = (await connection.execute(text(statement), {"data": '{"a": [1, null]}'})).one()

    assert tuple(row) == ("ok", {"a": [1, None]})


async def test_many_rows_are_sent_at_once(engine: AsyncEngine) -> None:
    """Executemany writes all rows, or none when one fails."""
    insert = text("INSERT INTO author (name) VALUES (:name)")
    async with engine.begin() as connection:
        await connection.execute(insert, [{"name": f"{n:04}"} for n in range(1000)])
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(insert, [{"name": "new"}, {"name": "0001"}])

    assert len(await names(engine)) == 1000


async def test_a_stream_reads_from_a_cursor(engine: AsyncEngine) -> None:
    """Rows come in parts, within their transaction."""
    async with engine.connect() as connection:
        rows = await connection.stream(text("SELECT generate_series(1, 500)"))
        assert [row[0] async for row in rows] == list(range(1, 501))


async def test_a_stream_goes_on_while_others_write(engine: AsyncEngine) -> None:
    """A cursor sees what was there when it was opened."""
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO author (name) SELECT n::text FROM generate_series(1, 200) n")
        )
    seen = 0
    async with engine.connect() as reader:
        rows = await reader.stream(text("SELECT id FROM author"))
        async for _ in rows:
            if seen % 50 == 0:
                async with engine.connect() as writer:
                    await add(writer, f"new {seen}")
                    await (writer.commit() if seen % 100 else writer.rollback())
            seen += 1

    assert seen == 200


async def test_a_cursor_ends_with_its_transaction(engine: AsyncEngine) -> None:
    """DECLARE without HOLD lasts until the COMMIT."""
    async with engine.connect() as connection:
        await connection.execute(text("DECLARE here CURSOR FOR SELECT generate_series(1, 3)"))
        assert await value(connection, "FETCH here") == 1
        await connection.commit()
        with pytest.raises(DBAPIError) as failure:
            await connection.execute(text("FETCH here"))

    assert sqlstate(failure.value) == "34000"


async def _driver_connection(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


async def test_copy_reads_and_writes(engine: AsyncEngine) -> None:
    """The driver's own COPY works, in a transaction."""
    async with engine.connect() as connection:
        driver = await _driver_connection(connection)
        async with driver.transaction():
            await driver.copy_records_to_table(
                "author", records=[(f"{n:05}",) for n in range(5000)], columns=["name"]
            )

        chunks: list[bytes] = []

        async def take(data: bytes) -> None:
            chunks.append(data)

        await driver.copy_from_query("SELECT name FROM author ORDER BY name", output=take)

    assert b"".join(chunks).split() == [f"{n:05}".encode() for n in range(5000)]


async def test_a_copy_that_fails_leaves_nothing(engine: AsyncEngine) -> None:
    """An error of the source ends the COPY."""

    async def rows() -> AsyncIterator[bytes]:
        yield b"a\n"
        raise ZeroDivisionError

    async with engine.connect() as connection:
        driver = await _driver_connection(connection)
        with pytest.raises(ZeroDivisionError):
            await driver.copy_to_table("author", source=rows(), columns=["name"])
        assert await driver.fetchval("SELECT 1") == 1

    assert await names(engine) == []


async def test_the_driver_itself_may_be_used(engine: AsyncEngine) -> None:
    """fetch, fetchrow, cursors, several statements at once, prepared ones, an empty one."""
    async with engine.connect() as connection:
        driver = await _driver_connection(connection)
        assert await driver.fetchval("SELECT $1::int + 1", 1) == 2
        await driver.execute("INSERT INTO author (name) VALUES ('a'); SELECT 1;")
        assert await driver.fetchrow(";") is None
        prepared = await driver.prepare("SELECT name FROM author WHERE id = $1")
        assert await prepared.fetchval(1) == "a"
        async with driver.transaction(readonly=True):
            cursor = driver.cursor("SELECT generate_series(1, 120)", prefetch=50)
            assert [record[0] async for record in cursor] == list(range(1, 121))

    assert await names(engine) == ["a"]


async def test_a_script_may_hold_its_own_transaction(engine: AsyncEngine) -> None:
    """BEGIN and COMMIT within one text."""
    async with engine.connect() as connection:
        driver = await _driver_connection(connection)
        await driver.execute(
            "BEGIN; INSERT INTO author (name) VALUES ('a'); COMMIT;"
            "BEGIN; INSERT INTO author (name) VALUES ('b'); ROLLBACK"
        )

    assert await names(engine) == ["a"]


async def test_a_temporary_table_ends_as_it_says(engine: AsyncEngine) -> None:
    """ON COMMIT DROP and ON COMMIT DELETE ROWS."""
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE gone (a int) ON COMMIT DROP"))
        await connection.execute(text("CREATE TEMP TABLE bare (a int) ON COMMIT DELETE ROWS"))
        await connection.execute(text("INSERT INTO bare VALUES (1)"))
        await connection.commit()
        assert await value(connection, "SELECT to_regclass('gone')::text") is None
        assert await value(connection, "SELECT count(*) FROM bare") == 0


async def test_tables_may_be_made_and_changed(engine: AsyncEngine) -> None:
    """DDL is part of the transaction."""
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE new (a int)"))
        await connection.rollback()
        assert await value(connection, "SELECT to_regclass('new')::text") is None
        await connection.execute(text("ALTER TABLE author ADD COLUMN age int DEFAULT 7"))
        await add(connection, "a")
        await connection.commit()
        assert await value(connection, "SELECT age FROM author") == 7


async def test_a_transaction_knows_whether_it_has_written(engine: AsyncEngine) -> None:
    """The id of a transaction is assigned by its first write, and by no other's."""
    question = "SELECT pg_current_xact_id_if_assigned()::text IS NOT NULL"
    async with engine.begin() as connection:
        await add(connection, "before")
    async with engine.connect() as connection:
        assert await value(connection, question) is False
        await connection.execute(text("UPDATE author SET name = 'x' WHERE id = 99"))
        assert await value(connection, question) is False
        await add(connection, "now")
        assert await value(connection, question) is True
        await connection.commit()
        assert await value(connection, question) is False


async def test_repeatable_read_works_by_itself(engine: AsyncEngine) -> None:
    """A transaction of REPEATABLE READ sees its own writes."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        await connection.execute(NAMES)
        await add(connection, "a")
        await connection.commit()

    assert await names(engine) == ["a"]


# Advisory locks.


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


async def test_a_closed_connection_gives_its_place_back(engine: AsyncEngine) -> None:
    """A pool that is disposed of connects anew."""
    async with engine.begin() as connection:
        await add(connection, "a")
    await engine.dispose()

    assert await names(engine) == ["a"]
