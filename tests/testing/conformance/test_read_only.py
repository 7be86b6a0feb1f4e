"""Read-only in each of its forms."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

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
from tests.testing.conftest import NewEngine

WRITE = "INSERT INTO author (name) VALUES ('x')"


@pytest.mark.parametrize(
    "statement",
    [
        "SET TRANSACTION READ ONLY",
        "SET transaction_read_only = on",
        "SET LOCAL transaction_read_only TO 'yes'",
        "SELECT set_config('transaction_read_only', 'on', true)",
        "SET SESSION transaction_read_only = 1",
    ],
)
async def test_each_form_makes_a_transaction_read_only(engine: AsyncEngine, statement: str) -> None:
    """The next write fails; the next transaction may write."""
    async with engine.connect() as connection:
        await run(connection, statement)
        assert await value(connection, "SHOW transaction_read_only") == "on"
        assert await value(connection, "SELECT current_setting('transaction_read_only')") == "on"
        assert await code_of(connection, WRITE) == "25006"
        await connection.rollback()
        assert await value(connection, "SHOW transaction_read_only") == "off"
        await add(connection, "a")
        await connection.commit()

    assert await names(engine) == ["a"]


@pytest.mark.parametrize(
    "statement",
    [
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET default_transaction_read_only = on",
        "SELECT set_config('default_transaction_read_only', 'on', false)",
    ],
)
async def test_each_form_makes_a_session_read_only(engine: AsyncEngine, statement: str) -> None:
    """In the transactions to come and in autocommit; READ WRITE says otherwise for one."""
    async with engine.connect() as connection:
        await run(connection, statement)
        await connection.commit()
        assert await code_of(connection, WRITE) == "25006"
        await connection.rollback()
        driver = await driver_of(connection)
        with pytest.raises(Exception, match="read-only transaction"):
            await driver.execute(WRITE)
        await driver.execute(f"BEGIN READ WRITE; {WRITE}; COMMIT")

    assert await names(engine) == ["x"]


async def test_an_engine_may_be_read_only(new_engine: NewEngine) -> None:
    """By a parameter of the start, in autocommit, beside one that writes."""
    parameters = {"server_settings": {"default_transaction_read_only": "on"}}
    reading = new_engine(isolation_level="AUTOCOMMIT", connect_args=parameters)
    async with new_engine().begin() as connection:
        await add(connection, "a")
    async with reading.connect() as connection:
        assert list((await connection.execute(NAMES)).scalars()) == ["a"]
        assert await code_of(connection, WRITE) == "25006"
        assert list((await connection.execute(NAMES)).scalars()) == ["a"]


async def test_who_writes_is_not_held_to_what_a_reader_started_with(new_engine: NewEngine) -> None:
    """Also where the reader comes first; and each of them is told of its own."""
    parameters = {"server_settings": {"default_transaction_read_only": "on"}}
    show = text("SHOW default_transaction_read_only")
    async with new_engine(connect_args=parameters).connect() as connection:
        assert await connection.scalar(show) == "on"
    async with new_engine().begin() as connection:
        await add(connection, "a")
        assert await connection.scalar(show) == "off"


async def test_read_only_is_not_taken_back(engine: AsyncEngine) -> None:
    """After a query a read-only transaction stays what it is; a savepoint changes nothing."""
    async with engine.connect() as connection:
        await connection.execution_options(postgresql_readonly=True)
        await run(connection, "SELECT 1", "SAVEPOINT here")
        assert await code_of(connection, "SET transaction_read_only = off") == "25001"
        await run(connection, "ROLLBACK TO here")
        assert await code_of(connection, WRITE) == "25006"


async def test_a_savepoint_may_be_read_only(engine: AsyncEngine) -> None:
    """Read-only that was set within a savepoint ends with its rollback."""
    async with engine.begin() as connection:
        await add(connection, "a")
        await run(connection, "SAVEPOINT here", "SET transaction_read_only = on")
        assert await code_of(connection, WRITE) == "25006"
        await run(connection, "ROLLBACK TO here")
        await add(connection, "b")

    assert await names(engine) == ["a", "b"]


async def test_a_temporary_table_takes_writes(engine: AsyncEngine) -> None:
    """READ ONLY does not hold for temporary tables."""
    async with engine.connect() as connection:
        await run(connection, "CREATE TEMP TABLE scratch (a int)")
        await connection.commit()
        await connection.execution_options(postgresql_readonly=True)
        await run(connection, "INSERT INTO scratch VALUES (1)")
        assert await value(connection, "SELECT count(*) FROM scratch") == 1


async def test_a_reader_goes_on_after_its_error(engine: AsyncEngine) -> None:
    """The transaction is aborted, and the next one reads again."""
    async with engine.connect() as connection:
        await connection.execution_options(postgresql_readonly=True)
        with pytest.raises(DBAPIError) as failure:
            await connection.execute(text(WRITE))
        assert await code_of(connection, "SELECT 1") == "25P02"
        await connection.rollback()
        assert list((await connection.execute(NAMES)).scalars()) == []

    assert sqlstate(failure.value) == "25006"


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
