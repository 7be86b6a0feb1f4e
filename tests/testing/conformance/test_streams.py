"""Streams and cursors: rows in parts."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tests.testing.conformance.authors import (
    Author,
    add,
    code_of,
    names,
    rows,
    run,
    sqlstate,
    value,
)  # fmt: skip

FILL = "INSERT INTO author (name) SELECT n::text FROM generate_series(1, 300) n"


async def test_a_session_streams_objects(engine: AsyncEngine) -> None:
    """AsyncSession.stream_scalars(), in partitions of yield_per."""
    async with AsyncSession(engine) as session:
        await run(session, FILL)
        await session.commit()
        result = await session.stream_scalars(
            select(Author).order_by(Author.id).execution_options(yield_per=100)
        )
        sizes = [len(part) async for part in result.partitions()]

    assert sizes == [100, 100, 100]


async def test_several_streams_are_open_at_once(engine: AsyncEngine) -> None:
    """Two of one connection and one of another are read by turns."""
    sql = "SELECT generate_series(1, 200)"
    async with engine.connect() as one, engine.connect() as two:
        streams = [await it.stream(text(sql)) for it in (one, one, two)]
        for number in range(1, 201):
            got = [(await stream.fetchone()) for stream in streams]
            assert [row and row[0] for row in got] == [number] * 3


async def test_a_stream_that_is_left_half_way_holds_nothing(engine: AsyncEngine) -> None:
    """Its transaction ends with the connection; another one may change the table."""
    async with engine.begin() as connection:
        await run(connection, FILL)
    async with engine.connect() as connection:
        result = await connection.stream(text("SELECT id FROM author"))
        assert await result.fetchone() is not None
    async with engine.connect() as connection:
        result = await connection.stream(text("SELECT id FROM author"))
        assert await result.fetchone() is not None
        await result.close()
        await connection.commit()
    async with engine.begin() as connection:
        await run(connection, "ALTER TABLE author DROP COLUMN feels", "TRUNCATE author, book")

    assert await names(engine) == []


async def test_a_stream_reads_beside_its_own_writes(engine: AsyncEngine) -> None:
    """A cursor of the connection that writes does not see what comes after it."""
    async with engine.begin() as connection:
        await run(connection, FILL)
        seen = 0
        async for row in await connection.stream(text("SELECT id FROM author")):
            seen += 1
            if row[0] % 100 == 0:
                await add(connection, f"new {row[0]}")

    assert (seen, len(await names(engine))) == (300, 303)


async def test_a_stream_fails_in_the_middle(engine: AsyncEngine) -> None:
    """An error of a later part aborts the transaction."""
    async with engine.connect() as connection:
        sql = "SELECT 1 / (250 - n) FROM generate_series(1, 1000) n"
        with pytest.raises(Exception, match="division by zero"):
            async for _ in await connection.stream(text(sql)):
                pass
        assert await code_of(connection, "SELECT 1") == "25P02"
        await connection.rollback()
        assert await value(connection, "SELECT 1") == 1


async def test_two_connections_name_a_cursor_alike(engine: AsyncEngine) -> None:
    """The names of cursors are a connection's own."""
    async with engine.connect() as one, engine.connect() as two:
        for connection, last in ((one, 3), (two, 5)):
            await run(
                connection, f"DECLARE here SCROLL CURSOR FOR SELECT generate_series(1, {last})"
            )
        assert await rows(one, "FETCH ALL FROM here") == [1, 2, 3]
        assert await rows(two, "FETCH FORWARD 2 IN here") == [1, 2]
        assert await rows(one, "FETCH ABSOLUTE 2 FROM here") == [2]
        await run(two, "MOVE 1 FROM here")
        assert await rows(two, 'FETCH "here"') == [4]
        await run(one, "CLOSE here")
        assert await rows(two, "FETCH NEXT FROM here") == [5]
        await run(one, "DECLARE here CURSOR FOR SELECT 1", "CLOSE ALL")
        assert await rows(two, "FETCH LAST FROM here") == [5]
        assert await code_of(one, "FETCH here") == "34000"


async def test_a_cursor_may_outlive_its_transaction(engine: AsyncEngine) -> None:
    """WITH HOLD lasts for the session, and goes with a ROLLBACK."""
    async with engine.connect() as connection:
        await run(connection, FILL)
        await run(
            connection, "DECLARE kept CURSOR WITH HOLD FOR SELECT name FROM author ORDER BY id"
        )
        await connection.commit()
        await run(connection, "DELETE FROM author")
        await connection.commit()
        assert await rows(connection, "FETCH 2 FROM kept") == ["1", "2"]
        await run(connection, "CLOSE kept")
        await run(connection, "DECLARE lost CURSOR WITH HOLD FOR SELECT 1")
        await connection.rollback()
        assert await code_of(connection, "FETCH lost") == "34000"


async def test_a_row_under_a_cursor_is_changed(engine: AsyncEngine) -> None:
    """WHERE CURRENT OF names the row that was fetched."""
    async with engine.begin() as connection:
        await run(connection, "INSERT INTO author (name) VALUES ('a'), ('b'), ('c')")
        await run(connection, "DECLARE here CURSOR FOR SELECT * FROM author ORDER BY id FOR UPDATE")
        await run(connection, "FETCH 2 FROM here", "DELETE FROM author WHERE CURRENT OF here")

    assert await names(engine) == ["a", "c"]


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
