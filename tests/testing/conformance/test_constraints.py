"""Constraints, triggers and generated columns: what PostgreSQL checks and computes by itself."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import (
    add,
    code_of,
    names,
    rows,
    run,
    sqlstate,
    value,
)  # fmt: skip

ORPHAN = "INSERT INTO book (title, author_id) VALUES ('x', 99)"


async def defer(engine: AsyncEngine) -> None:
    """Let the authors of books be looked for at each COMMIT."""
    sql = "ALTER TABLE book ALTER CONSTRAINT book_author_id_fkey DEFERRABLE INITIALLY DEFERRED"
    async with engine.begin() as connection:
        await run(connection, sql)


async def test_a_constraint_may_be_deferred_by_hand(engine: AsyncEngine) -> None:
    """SET CONSTRAINTS defers one that is immediate otherwise, until the COMMIT alone."""
    async with engine.begin() as connection:
        await run(connection, "CREATE TABLE place (n int UNIQUE DEFERRABLE)")
        await run(connection, "INSERT INTO place VALUES (1), (2)")
    async with engine.connect() as connection:
        await run(connection, "SET CONSTRAINTS ALL DEFERRED")
        await run(connection, "INSERT INTO place VALUES (1)", "UPDATE place SET n = 2")
        with pytest.raises(IntegrityError) as late:
            await connection.commit()
        await connection.rollback()
        at_once = await code_of(connection, "INSERT INTO place VALUES (1)")

    assert (sqlstate(late.value), at_once) == ("23505", "23505")


async def test_a_new_constraint_is_checked_at_the_commit(engine: AsyncEngine) -> None:
    """One that is made deferred within the same run of the application."""
    async with engine.begin() as connection:
        await run(
            connection,
            "CREATE TABLE leaf (author_id int REFERENCES author DEFERRABLE INITIALLY DEFERRED)",
        )
    async with engine.connect() as connection:
        await run(connection, "INSERT INTO leaf VALUES (99)")
        with pytest.raises(IntegrityError) as failure:
            await connection.commit()
        await connection.rollback()
        await run(connection, "INSERT INTO leaf VALUES (1)")
        await add(connection, "a")
        await connection.commit()

    assert sqlstate(failure.value) == "23503"


async def test_a_constraint_that_a_function_makes_is_checked_at_the_commit(
    engine: AsyncEngine,
) -> None:
    """What a function of the application's does is not read, and may be anything."""
    async with engine.begin() as connection:
        await run(
            connection,
            """CREATE FUNCTION plant() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE
            'CREATE TABLE leaf (author_id int REFERENCES author DEFERRABLE INITIALLY DEFERRED)';
            END $$""",
        )
    async with engine.begin() as connection:
        await add(connection, "a")
    async with engine.begin() as connection:
        await run(connection, "SELECT plant()")
    async with engine.connect() as connection:
        await run(connection, "INSERT INTO leaf VALUES (99)")
        with pytest.raises(IntegrityError) as failure:
            await connection.commit()

    assert sqlstate(failure.value) == "23503"


async def test_constraints_set_by_a_reader_are_its_own(engine: AsyncEngine) -> None:
    """SET CONSTRAINTS of a transaction that writes nothing changes no other one."""
    await defer(engine)
    async with engine.connect() as connection:
        await run(connection, "SET CONSTRAINTS ALL IMMEDIATE")
        await connection.commit()
    async with engine.begin() as connection:
        await run(connection, "INSERT INTO book (title, author_id) VALUES ('x', 1)")
        await add(connection, "a")

    assert await names(engine) == ["a"]


async def test_a_savepoint_undoes_what_a_constraint_would_find(engine: AsyncEngine) -> None:
    """A row that is gone by a ROLLBACK TO violates nothing."""
    await defer(engine)
    async with engine.begin() as connection:
        await add(connection, "a")
        savepoint = await connection.begin_nested()
        await run(connection, ORPHAN)
        await savepoint.rollback()

    assert await names(engine) == ["a"]


async def test_a_constraint_names_itself(engine: AsyncEngine) -> None:
    """The driver's error has PostgreSQL's fields."""
    async with engine.connect() as connection:
        await add(connection, "a")
        with pytest.raises(IntegrityError) as failure:
            await add(connection, "a")

    error = failure.value.driver_exception
    assert error is not None
    fields = (getattr(error, name) for name in ("constraint_name", "table_name", "detail"))
    assert tuple(fields) == ("author_name_key", "author", "Key (name)=(a) already exists.")


async def test_a_constraint_trigger_waits_for_the_commit(engine: AsyncEngine) -> None:
    """A trigger that is deferred sees the state at the end of the transaction."""
    async with engine.begin() as connection:
        await run(
            connection,
            """CREATE FUNCTION two() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT count(*) FROM author) <> 2 THEN
                RAISE EXCEPTION 'not two' USING ERRCODE = 'ZZ001'; END IF;
            RETURN NULL; END $$""",
            """CREATE CONSTRAINT TRIGGER two AFTER INSERT ON author
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION two()""",
        )
    async with engine.begin() as connection:
        await add(connection, "a")
        await add(connection, "b")
    async with engine.connect() as connection:
        await add(connection, "c")
        with pytest.raises(DBAPIError) as failure:
            await connection.commit()

    assert (sqlstate(failure.value), await names(engine)) == ("ZZ001", ["a", "b"])


async def test_triggers_write_too(engine: AsyncEngine) -> None:
    """What a trigger does is part of the statement, its errors too."""
    async with engine.begin() as connection:
        await run(
            connection,
            """CREATE FUNCTION book_of() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.name = 'bad' THEN RAISE EXCEPTION 'bad' USING ERRCODE = 'ZZ002'; END IF;
            INSERT INTO book (title, author_id) VALUES (NEW.name, NEW.id); RETURN NEW; END $$""",
            "CREATE TRIGGER book_of AFTER INSERT ON author FOR EACH ROW EXECUTE FUNCTION book_of()",
        )
        await add(connection, "good")
    async with engine.connect() as connection:
        code = await code_of(connection, "INSERT INTO author (name) VALUES ('new'), ('bad')")
        await connection.rollback()
        titles = await rows(connection, "SELECT title FROM book")

    assert (code, titles) == ("ZZ002", ["good"])


async def test_generated_columns_are_computed(engine: AsyncEngine) -> None:
    """A generated column is returned, and cannot be written."""
    async with engine.begin() as connection:
        await run(
            connection,
            "CREATE TABLE box (a int, b int GENERATED ALWAYS AS (a * 2) STORED)",
        )
        assert await value(connection, "INSERT INTO box (a) VALUES (4) RETURNING b") == 8
        assert await value(connection, "UPDATE box SET a = 5 RETURNING b") == 10
    async with engine.connect() as connection:
        assert await code_of(connection, "INSERT INTO box (a, b) VALUES (1, 1)") == "428C9"


async def test_an_exclusion_holds(engine: AsyncEngine) -> None:
    """Ranges that overlap are refused by an exclusion constraint."""
    async with engine.begin() as connection:
        await run(connection, "CREATE TABLE stay (at int4range, EXCLUDE USING gist (at WITH &&))")
        await run(connection, "INSERT INTO stay VALUES ('[1,5)'), ('[5,7)')")
    async with engine.connect() as connection:
        assert await code_of(connection, "INSERT INTO stay VALUES ('[4,6)')") == "23P01"


async def test_a_deferred_constraint_fails_the_commit(engine: AsyncEngine) -> None:
    """A foreign key that is checked at COMMIT fails it, and the work is lost."""
    await defer(engine)
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO book (title, author_id) VALUES ('x', 99)"))
        with pytest.raises(IntegrityError) as failure:
            await connection.commit()

    assert sqlstate(failure.value) == "23503"


async def test_a_deferred_constraint_may_be_met_later(engine: AsyncEngine) -> None:
    """Within the transaction the row may come before what it refers to."""
    await defer(engine)
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO book (title, author_id) VALUES ('x', 1)"))
        assert await add(connection, "a") == 1

    assert await names(engine) == ["a"]


async def test_constraints_set_immediate_are_deferred_again(engine: AsyncEngine) -> None:
    """SET CONSTRAINTS lasts for its transaction."""
    await defer(engine)
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
