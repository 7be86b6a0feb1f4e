"""DDL, temporary tables, routines."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import (
    add,
    code_of,
    names,
    rows,
    run,
    value,
)  # fmt: skip


async def test_temporary_tables_are_a_connections_own(engine: AsyncEngine) -> None:
    """Two connections have tables of one name, before a table that all see."""
    sql = "SELECT a FROM scratch"
    async with engine.begin() as connection:
        await run(connection, "CREATE TABLE scratch (a int)", "INSERT INTO scratch VALUES (0)")
    async with engine.connect() as one, engine.connect() as two, engine.connect() as three:
        for number, connection in ((1, one), (2, two)):
            await run(connection, f"CREATE TEMP TABLE scratch AS SELECT {number} AS a")
            await connection.commit()
        for _ in range(2):
            assert [await rows(it, sql) for it in (one, two, three)] == [[1], [2], [0]]
            await three.rollback()
        await run(one, "UPDATE scratch SET a = 11")
        await one.rollback()
        await run(two, "DROP TABLE scratch")
        assert await rows(two, f"{sql} LIMIT 1") == [0]
        await two.rollback()
        sql = f"{sql} LIMIT 2"
        assert [await rows(it, sql) for it in (one, two, three)] == [[1], [2], [0]]


async def test_a_temporary_table_lasts_as_long_as_its_connection(engine: AsyncEngine) -> None:
    """It is there in the next transaction, and gone with the connection."""
    async with engine.connect() as connection:
        await run(connection, "CREATE TEMP TABLE scratch (a int)")
        await connection.commit()
        await run(connection, "INSERT INTO scratch VALUES (1)")
        await connection.commit()
        assert await value(connection, "SELECT count(*) FROM scratch") == 1
        await connection.invalidate()
    async with engine.connect() as connection:
        assert await code_of(connection, "SELECT 1 FROM scratch") == "42P01"


async def test_a_temporary_table_goes_with_a_rollback(engine: AsyncEngine) -> None:
    """With ON COMMIT or without; a new one of the name may follow."""
    async with engine.connect() as connection:
        for ending in ("", " ON COMMIT DROP", " ON COMMIT DELETE ROWS", " ON COMMIT PRESERVE ROWS"):
            await run(connection, f"CREATE TEMP TABLE scratch (a int){ending}")
            await connection.rollback()
            assert await code_of(connection, "SELECT 1 FROM scratch") == "42P01"
            await connection.rollback()
        await run(connection, "CREATE TEMPORARY TABLE IF NOT EXISTS pg_temp.scratch (a int)")
        await connection.commit()
        assert await rows(connection, "SELECT a FROM scratch") == []


async def test_rows_of_a_temporary_table_go_at_each_commit(engine: AsyncEngine) -> None:
    """ON COMMIT DELETE ROWS holds for all transactions to come."""
    async with engine.connect() as connection:
        await run(connection, "CREATE TEMP TABLE scratch (a int) ON COMMIT DELETE ROWS")
        for _ in range(3):
            await run(connection, "INSERT INTO scratch VALUES (1)")
            assert await value(connection, "SELECT count(*) FROM scratch") == 1
            await connection.commit()


async def test_a_function_writes(engine: AsyncEngine) -> None:
    """A SELECT of a function that writes is committed and rolled back like any write."""
    async with engine.connect() as connection:
        await run(connection, "SELECT write_author('lost')")
        await connection.rollback()
        await run(connection, "SELECT write_author('kept')")
        await connection.commit()
        await run(
            connection,
            "CREATE FUNCTION twice(n text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM write_author(n || 1); PERFORM write_author(n || 2); END $$",
        )
        await connection.commit()
        await run(connection, "SELECT twice('x')")
        await connection.commit()

    assert await names(engine) == ["kept", "x1", "x2"]


async def test_a_procedure_is_called(engine: AsyncEngine) -> None:
    """CALL writes, and gives values back."""
    async with engine.begin() as connection:
        await run(
            connection,
            "CREATE PROCEDURE make(name text, INOUT id int) LANGUAGE sql "
            "AS 'INSERT INTO author (name) VALUES ($1) RETURNING id'",
        )
        assert await value(connection, "CALL make('a', NULL)") == 1

    assert await names(engine) == ["a"]


async def test_a_block_catches_its_exceptions(engine: AsyncEngine) -> None:
    """EXCEPTION in plpgsql undoes its block; what is raised has its own code."""
    async with engine.begin() as connection:
        await add(connection, "a")
        await run(
            connection,
            """DO $$ BEGIN
                BEGIN
                    INSERT INTO author (name) VALUES ('lost');
                    INSERT INTO author (name) VALUES ('a');
                EXCEPTION WHEN unique_violation THEN
                    INSERT INTO author (name) VALUES ('caught');
                END; END $$""",
        )
    async with engine.connect() as connection:
        raised = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'P0042'; END $$"
        assert await code_of(connection, raised) == "P0042"

    assert await names(engine) == ["a", "caught"]


async def test_ddl_and_rows_are_one_transaction(engine: AsyncEngine) -> None:
    """Tables, indexes, columns and views go with a savepoint and with a transaction."""
    async with engine.connect() as connection:
        await run(connection, "CREATE TABLE shelf (a int)", "SAVEPOINT here")
        await run(connection, "ALTER TABLE shelf ADD COLUMN b int", "CREATE INDEX i ON shelf (b)")
        await run(connection, "ROLLBACK TO here", "CREATE VIEW v AS SELECT a FROM shelf")
        await run(connection, "INSERT INTO shelf VALUES (1)")
        assert await rows(connection, "SELECT * FROM v") == [1]
        await connection.commit()
        await run(connection, "DROP TABLE shelf CASCADE")
        await connection.rollback()
        assert await rows(connection, "SELECT * FROM v") == [1]


async def test_a_materialized_view_is_refreshed(engine: AsyncEngine) -> None:
    """It shows what was there at its last refresh."""
    async with engine.begin() as connection:
        await add(connection, "a")
        await run(connection, "CREATE MATERIALIZED VIEW seen AS SELECT name FROM author")
        await add(connection, "b")
        assert await rows(connection, "SELECT name FROM seen") == ["a"]
        await run(connection, "REFRESH MATERIALIZED VIEW seen")
        assert await rows(connection, "SELECT name FROM seen ORDER BY 1") == ["a", "b"]


async def test_partitions_take_their_rows(engine: AsyncEngine) -> None:
    """Attaching and detaching are part of the transaction."""
    async with engine.begin() as connection:
        await run(
            connection,
            "CREATE TABLE event (day int) PARTITION BY RANGE (day)",
            "CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM (0) TO (10)",
            "INSERT INTO event VALUES (5)",
            "ALTER TABLE event DETACH PARTITION event_1",
        )
        assert await rows(connection, "SELECT * FROM event") == []
        assert await rows(connection, "SELECT * FROM event_1") == [5]


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
