"""COMMIT and ROLLBACK, as other connections see them."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tests.testing.conformance.authors import (
    NAMES,
    add,
    code_of,
    driver_of,
    names,
    rows,
    run,
    sqlstate,
    value,
)  # fmt: skip


async def test_a_transaction_says_its_isolation(engine: AsyncEngine) -> None:
    """SHOW, current_setting() and the prepared statement of either, in each kind in turn."""
    async with engine.connect() as connection:
        for isolation in ("READ COMMITTED", "REPEATABLE READ", "READ COMMITTED"):
            await connection.execution_options(isolation_level=isolation)
            shown = await value(connection, "SHOW transaction_isolation")
            sql = "SELECT current_setting('transaction_isolation')"
            assert (shown, await value(connection, sql)) == (isolation.lower(), isolation.lower())
            assert await value(connection, "SHOW TRANSACTION ISOLATION LEVEL") == isolation.lower()
            await connection.rollback()


async def test_an_isolation_is_chosen_before_the_first_query(engine: AsyncEngine) -> None:
    """SET TRANSACTION comes too late after a query."""
    async with engine.connect() as connection:
        await run(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1")
        code = await code_of(connection, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        await connection.rollback()
        await run(connection, "SET TRANSACTION READ ONLY", "SELECT 1")
        late = await code_of(connection, "SET TRANSACTION READ WRITE")

    assert (code, late) == ("25001", "25001")


async def test_an_isolation_may_be_the_sessions(engine: AsyncEngine) -> None:
    """SET SESSION CHARACTERISTICS and the parameter hold for the transactions to come."""
    async with engine.connect() as connection:
        await run(
            connection, "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"
        )
        await connection.commit()
        assert await value(connection, "SHOW transaction_isolation") == "repeatable read"
        await run(connection, "SET default_transaction_isolation = 'read committed'")
        assert await value(connection, "SHOW transaction_isolation") == "repeatable read"
        await connection.commit()
        assert await value(connection, "SHOW transaction_isolation") == "read committed"


async def test_a_chain_begins_the_next_transaction(engine: AsyncEngine) -> None:
    """COMMIT AND CHAIN and ROLLBACK AND CHAIN keep the characteristics."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        await driver.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await driver.execute("INSERT INTO author (name) VALUES ('a')")
        await driver.execute("COMMIT AND CHAIN")
        assert driver.is_in_transaction()
        assert await driver.fetchval("SHOW transaction_isolation") == "repeatable read"
        await driver.execute("INSERT INTO author (name) VALUES ('b')")
        await driver.execute("ROLLBACK AND CHAIN")
        await driver.execute("INSERT INTO author (name) VALUES ('c')")
        await driver.execute("COMMIT AND NO CHAIN")
        assert not driver.is_in_transaction()

    assert await names(engine) == ["a", "c"]


async def test_what_needs_a_transaction_says_so(engine: AsyncEngine) -> None:
    """LOCK and DECLARE are errors in autocommit; SET LOCAL only does nothing."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        codes = [
            await code_of(connection, sql)
            for sql in (
                "LOCK TABLE author",
                "DECLARE here CURSOR FOR SELECT 1",
                "SAVEPOINT here",
                "ROLLBACK TO SAVEPOINT here",
            )
        ]
        await run(connection, "SET LOCAL work_mem = '9MB'")
        assert await value(connection, "SHOW work_mem") == "4MB"

    assert codes == ["25P01"] * 4


async def test_two_sessions_of_one_task_take_turns(engine: AsyncEngine) -> None:
    """Each sees what the other has committed, as often as they change."""
    async with AsyncSession(engine) as one, AsyncSession(engine) as two:
        for number in range(6):
            session = (one, two)[number % 2]
            await add(session, str(number))
            await session.commit()
            assert await value(session, "SELECT count(*) FROM author") == number + 1
            await session.rollback()


async def test_a_commit_outlives_a_rollback_of_another(engine: AsyncEngine) -> None:
    """A transaction that has read before stays open, and its ROLLBACK undoes nothing of others."""
    async with engine.connect() as reader, engine.begin() as writer:
        await run(reader, "SELECT 1", "SET LOCAL work_mem = '8MB'")
        await add(writer, "a")
        await writer.commit()
        await reader.rollback()

    assert await names(engine) == ["a"]


async def test_a_block_of_statements_is_one_transaction(engine: AsyncEngine) -> None:
    """Several statements in one text stand or fall together."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        with pytest.raises(Exception, match="division by zero"):
            await driver.execute("INSERT INTO author (name) VALUES ('a'); SELECT 1 / 0")
        await driver.execute("INSERT INTO author (name) VALUES ('b'); SELECT 1")

    assert await names(engine) == ["b"]


async def test_a_transactions_rows_are_counted(engine: AsyncEngine) -> None:
    """The rowcount of each statement is PostgreSQL's."""
    async with engine.begin() as connection:
        counts = [
            (await connection.execute(text(sql))).rowcount
            for sql in (
                "INSERT INTO author (name) VALUES ('a'), ('b'), ('c')",
                "UPDATE author SET feels = 'ok' WHERE name < 'c'",
                "DELETE FROM author WHERE feels = 'sad'",
                "DELETE FROM author",
            )
        ]
        assert await rows(connection, "SELECT id FROM author") == []

    assert counts == [3, 2, 0, 3]


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


async def test_a_script_may_hold_its_own_transaction(engine: AsyncEngine) -> None:
    """BEGIN and COMMIT within one text."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        await driver.execute(
            "BEGIN; INSERT INTO author (name) VALUES ('a'); COMMIT;"
            "BEGIN; INSERT INTO author (name) VALUES ('b'); ROLLBACK"
        )

    assert await names(engine) == ["a"]


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
