"""Statements that write in other forms than INSERT, UPDATE and DELETE."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tests.testing.conformance.authors import (
    Author,
    add,
    code_of,
    names,
    rows,
    run,
    value,
)  # fmt: skip


async def test_an_upsert_does_either(engine: AsyncEngine) -> None:
    """ON CONFLICT DO UPDATE and DO NOTHING, with RETURNING."""
    statement = insert(Author).values(name="a")
    update = statement.on_conflict_do_update(
        index_elements=[Author.name], set_={"name": statement.excluded.name + "!"}
    )
    async with AsyncSession(engine) as session:
        for _ in range(2):
            await session.execute(update)
            await session.commit()
        nothing = statement.on_conflict_do_nothing().returning(Author.id)
        assert (await session.execute(nothing)).scalar() is not None
        assert (await session.execute(nothing)).scalar() is None
        await session.commit()

    assert sorted(await names(engine)) == ["a", "a!"]


async def test_a_cte_writes(engine: AsyncEngine) -> None:
    """Rows are moved within one SELECT; a ROLLBACK brings them back."""
    move = (
        "WITH gone AS (DELETE FROM author RETURNING name), "
        "came AS (INSERT INTO book (title) SELECT name FROM gone RETURNING title) "
        "SELECT count(*) FROM came"
    )
    async with engine.connect() as connection:
        await run(connection, "INSERT INTO author (name) VALUES ('a'), ('b')")
        await connection.commit()
        assert await value(connection, move) == 2
        await connection.rollback()
        assert await names(engine) == ["a", "b"]
        assert await value(connection, move) == 2
        await connection.commit()

    assert await names(engine) == []


async def test_select_into_makes_a_table(engine: AsyncEngine) -> None:
    """SELECT INTO and CREATE TABLE AS write."""
    async with engine.connect() as connection:
        await run(connection, "SELECT 1 AS a INTO made", "CREATE TABLE made2 AS TABLE made")
        await connection.rollback()
        assert await code_of(connection, "TABLE made") == "42P01"
        await connection.rollback()
        await run(connection, "SELECT 1 AS a INTO made")
        await connection.commit()
        assert await rows(connection, "TABLE made") == [1]


async def test_truncate_is_part_of_the_transaction(engine: AsyncEngine) -> None:
    """It is rolled back, by a savepoint too."""
    async with engine.connect() as connection:
        await add(connection, "a")
        await connection.commit()
        await run(connection, "SAVEPOINT here", "TRUNCATE author CASCADE", "ROLLBACK TO here")
        assert await rows(connection, "SELECT name FROM author") == ["a"]
        await run(connection, "TRUNCATE author CASCADE")
        await connection.rollback()

    assert await names(engine) == ["a"]


async def test_merge_does_each_of_its_cases(engine: AsyncEngine) -> None:
    """MERGE inserts, updates and deletes."""
    async with engine.begin() as connection:
        await run(connection, "INSERT INTO author (name) VALUES ('old'), ('bad')")
        await run(
            connection,
            "MERGE INTO author a USING (VALUES ('old'), ('bad'), ('new')) s (name) "
            "ON a.name = s.name WHEN MATCHED AND s.name = 'bad' THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET feels = 'happy' "
            "WHEN NOT MATCHED THEN INSERT (name) VALUES (s.name)",
        )

    assert await names(engine) == ["old", "new"]


async def test_explain_analyze_runs_its_statement(engine: AsyncEngine) -> None:
    """EXPLAIN ANALYZE of a write has written; EXPLAIN alone has not."""
    async with engine.connect() as connection:
        await run(connection, "EXPLAIN INSERT INTO author (name) VALUES ('no')")
        await connection.commit()
        await run(connection, "EXPLAIN (ANALYZE, COSTS off) INSERT INTO author (name) VALUES ('a')")
        await connection.commit()
        await run(connection, "EXPLAIN ANALYZE DELETE FROM author")
        await connection.rollback()

    assert await names(engine) == ["a"]


async def test_large_objects_are_kept(engine: AsyncEngine) -> None:
    """They are made, written and removed within transactions."""
    async with engine.connect() as connection:
        oid = await value(connection, "SELECT lo_from_bytea(0, CAST(:data AS bytea))", data=b"abc")
        await connection.commit()
        await run(connection, "SELECT lo_put(:oid, 1, CAST(:data AS bytea))", oid=oid, data=b"X")
        await connection.rollback()
        assert await value(connection, "SELECT lo_get(:oid)", oid=oid) == b"abc"
        handle = await value(connection, "SELECT lo_open(:oid, 131072 | 262144)", oid=oid)
        write = "SELECT lowrite(:handle, CAST(:data AS bytea))"
        await run(connection, write, handle=handle, data=b"Z")
        await connection.commit()
        assert await value(connection, "SELECT lo_get(:oid)", oid=oid) == b"Zbc"
        await run(connection, "SELECT lo_unlink(:oid)", oid=oid)
        await connection.commit()
        assert await code_of(connection, "SELECT lo_get(:oid)", oid=oid) == "42704"


async def test_values_come_back_from_what_is_written(engine: AsyncEngine) -> None:
    """RETURNING of INSERT, UPDATE and DELETE, with defaults of the database."""
    async with AsyncSession(engine) as session:
        made = (
            await session.execute(insert(Author).values(name="a").returning(Author.id, Author.name))
        ).one()
        assert tuple(made) == (1, "a")
        assert await value(session, "UPDATE author SET name = 'b' RETURNING name") == "b"
        assert await value(session, "DELETE FROM author RETURNING id") == 1
        assert (await session.scalars(select(Author))).all() == []


async def test_a_lock_of_a_table_is_given_back(engine: AsyncEngine) -> None:
    """LOCK TABLE and SELECT FOR UPDATE end with their transaction."""
    async with engine.connect() as one, engine.connect() as two:
        for sql in ("LOCK TABLE author", "SELECT 1 FROM author FOR UPDATE"):
            await run(one, sql)
            await one.rollback()
            await add(two, "a")
            await two.rollback()


async def test_rows_are_locked_and_skipped_by_one_connection(engine: AsyncEngine) -> None:
    """A queue in a table, worked by one task after the other with SKIP LOCKED."""
    take = (
        "DELETE FROM author WHERE id = (SELECT id FROM author ORDER BY id "
        "LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING name"
    )
    async with engine.begin() as connection:
        await run(connection, "INSERT INTO author (name) VALUES ('a'), ('b')")
    for expected in ("a", "b", None):
        async with engine.begin() as connection:
            assert await value(connection, take) == expected
