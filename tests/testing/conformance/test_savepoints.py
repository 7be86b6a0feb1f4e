"""Savepoints and nested sessions."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tests.testing.conformance.authors import (
    Author,
    add,
    code_of,
    names,
    run,
    sqlstate,
    value,
)  # fmt: skip


async def test_a_savepoint_of_a_reader_holds_nobody_up(engine: AsyncEngine) -> None:
    """begin_nested() in a transaction that only reads; another one writes and commits."""
    async with AsyncSession(engine) as reader, AsyncSession(engine) as writer:
        async with reader.begin_nested():
            assert await value(reader, "SELECT count(*) FROM author") == 0
            await add(writer, "a")
            await writer.commit()
        assert await value(reader, "SELECT count(*) FROM author") == 1


async def test_a_savepoint_from_before_the_first_write_is_gone_back_to(engine: AsyncEngine) -> None:
    """Savepoints count from where they were set, whatever was written since."""
    async with engine.begin() as connection:
        await run(connection, "SET LOCAL work_mem = '5MB'", "SAVEPOINT a")
        await run(connection, "SET LOCAL work_mem = '6MB'", "SAVEPOINT b")
        await run(connection, "SET LOCAL work_mem = '7MB'")
        await add(connection, "lost")
        await run(connection, "ROLLBACK TO b")
        assert await value(connection, "SHOW work_mem") == "6MB"
        await add(connection, "lost too")
        await run(connection, "ROLLBACK TO a")
        assert await value(connection, "SHOW work_mem") == "5MB"
        await add(connection, "kept")

    assert await names(engine) == ["kept"]


async def test_a_reader_recovers_at_its_savepoint(engine: AsyncEngine) -> None:
    """An error of a transaction that has written nothing is undone by ROLLBACK TO."""
    async with engine.connect() as connection:
        await run(connection, "SELECT 1", "SAVEPOINT a")
        codes = [await code_of(connection, sql) for sql in ("SELECT 1 / 0", "SELECT 1")]
        await run(connection, "ROLLBACK TO SAVEPOINT a")
        assert await value(connection, "SELECT 2") == 2

    assert codes == ["22012", "25P02"]


async def test_a_released_savepoint_is_unknown(engine: AsyncEngine) -> None:
    """RELEASE forgets it, and those after it; the work stays."""
    async with engine.connect() as connection:
        await run(connection, "SAVEPOINT a")
        await add(connection, "a")
        await run(connection, "SAVEPOINT b", "RELEASE a")
        code = await code_of(connection, "ROLLBACK TO b")
        await connection.rollback()
        await run(connection, "SAVEPOINT a")
        await add(connection, "b")
        await run(connection, "RELEASE SAVEPOINT a")
        await connection.commit()

    assert (code, await names(engine)) == ("3B001", ["b"])


async def test_a_savepoint_may_be_gone_back_to_again(engine: AsyncEngine) -> None:
    """ROLLBACK TO keeps its savepoint, after an error too."""
    async with engine.begin() as connection:
        await run(connection, 'SAVEPOINT "Odd ""name"')
        for _ in range(3):
            await add(connection, "a")
            assert await code_of(connection, "INSERT INTO author (name) VALUES ('a')") == "23505"
            await run(connection, 'ROLLBACK TO "Odd ""name"')
        await add(connection, "b")

    assert await names(engine) == ["b"]


async def test_nothing_but_a_rollback_follows_an_error(engine: AsyncEngine) -> None:
    """SAVEPOINT and RELEASE are refused in an aborted transaction."""
    async with engine.connect() as connection:
        await run(connection, "SAVEPOINT a")
        statements = ("SELEC", "SAVEPOINT b", "RELEASE a", "SHOW x")
        codes = [await code_of(connection, sql) for sql in statements]

    assert codes == ["42601", "25P02", "25P02", "25P02"]


async def test_a_flush_that_fails_is_recovered(engine: AsyncEngine) -> None:
    """The ORM goes on after a nested flush has failed, with the objects from before."""
    async with AsyncSession(engine) as session:
        session.add(Author(name="a"))
        await session.flush()
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add(Author(name="a"))
        session.add(Author(name="b"))
        await session.commit()
        with pytest.raises(IntegrityError):
            session.add(Author(name="b"))
            await session.flush()
        await session.rollback()
        session.add(Author(name="c"))
        await session.commit()

    assert await names(engine) == ["a", "b", "c"]


async def test_a_session_may_join_a_transaction(engine: AsyncEngine) -> None:
    """SQLAlchemy's own recipe for tests works: sessions in one connection, by savepoints."""
    async with engine.connect() as connection:
        transaction = await connection.begin()
        for name in ("a", "b"):
            mode = "create_savepoint"
            async with AsyncSession(connection, join_transaction_mode=mode) as session:
                await add(session, name)
                await session.commit()
                await add(session, "lost")
                await session.rollback()
        assert await value(connection, "SELECT count(*) FROM author") == 2
        await transaction.rollback()

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
