"""Many rows at once: executemany, insertmanyvalues, COPY."""

from collections.abc import AsyncIterator
from io import BytesIO

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.model import Model
from tests.testing.conformance.authors import (
    Author,
    Book,
    driver_of,
    names,
    value,
)  # fmt: skip


class Base(Model, DeclarativeBase):
    """The base of a model of the library's own."""


class Writer(Base):
    """A row of `author`."""

    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


async def test_many_values_return_their_ids(engine: AsyncEngine) -> None:
    """SQLAlchemy's insertmanyvalues: batches of one INSERT, with RETURNING in order."""
    async with AsyncSession(engine) as session:
        given = [{"name": f"{n:04}"} for n in range(2500)]
        statement = insert(Author).returning(Author.id, sort_by_parameter_order=True)
        ids = list(await session.scalars(statement, given))
        session.add_all([Book(title=str(n), author_id=n) for n in ids[:1200]])
        await session.commit()
        assert await value(session, "SELECT count(*) FROM book") == 1200

    assert ids == list(range(1, 2501))


async def test_the_drivers_executemany_is_one_transaction(engine: AsyncEngine) -> None:
    """In autocommit all rows of it are written, or none."""
    sql = "INSERT INTO author (name) VALUES ($1)"
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        await driver.executemany(sql, [(f"{n:04}",) for n in range(3000)])
        with pytest.raises(Exception, match="duplicate key"):
            await driver.executemany(sql, [("new",), ("0001",), ("newer",)])
        fetched = await driver.fetchmany(f"{sql} RETURNING id", [("x",), ("y",)])

    assert len(fetched) == 2
    assert len(await names(engine)) == 3002


async def test_copy_goes_both_ways_as_text_and_binary(engine: AsyncEngine) -> None:
    """A table is written from what was read from another one."""
    async with engine.begin() as connection:
        driver = await driver_of(connection)
        await driver.execute(
            "INSERT INTO author (name, data) SELECT n::text, jsonb_build_object('n', n)"
            " FROM generate_series(1, 2000) n"
        )
        for format_ in ("text", "csv", "binary"):
            kept = BytesIO()
            await driver.copy_from_table("author", output=kept, format=format_)
            kept.seek(0)
            await driver.execute("CREATE TABLE twin (LIKE author)")
            assert await driver.copy_to_table("twin", source=kept, format=format_) == "COPY 2000"
            same = "SELECT count(*) FROM author JOIN twin USING (id, name, born, data)"
            assert await driver.fetchval(same) == 2000
            await driver.execute("DROP TABLE twin")


async def test_a_copy_of_megabytes_in_a_transaction_may_be_rolled_back(engine: AsyncEngine) -> None:
    """Nothing is left of it."""

    async def chunks() -> AsyncIterator[bytes]:
        for n in range(64):
            yield b"".join(b"%d %0100d\n" % (n * 1000 + i, i) for i in range(500))

    async with engine.connect() as connection:
        driver = await driver_of(connection)
        transaction = driver.transaction()
        await transaction.start()
        status = await driver.copy_to_table("author", source=chunks(), columns=["name"])
        await transaction.rollback()

    assert (status, await names(engine)) == ("COPY 32000", [])


async def test_a_copy_that_violates_aborts_its_transaction(engine: AsyncEngine) -> None:
    """The error comes at its end, and nothing of it stays."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
        with pytest.raises(Exception, match="duplicate key"):
            await driver.copy_records_to_table(
                "author", records=[("a",), ("b",), ("a",)], columns=["name"]
            )
        async with driver.transaction():
            await driver.copy_records_to_table("author", records=[("c",)], columns=["name"])

    assert await names(engine) == ["c"]


async def test_many_rows_are_sent_at_once(engine: AsyncEngine) -> None:
    """Executemany writes all rows, or none when one fails."""
    insert = text("INSERT INTO author (name) VALUES (:name)")
    async with engine.begin() as connection:
        await connection.execute(insert, [{"name": f"{n:04}"} for n in range(1000)])
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(insert, [{"name": "new"}, {"name": "0001"}])

    assert len(await names(engine)) == 1000


async def test_copy_reads_and_writes(engine: AsyncEngine) -> None:
    """The driver's own COPY works, in a transaction."""
    async with engine.connect() as connection:
        driver = await driver_of(connection)
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
        driver = await driver_of(connection)
        with pytest.raises(ZeroDivisionError):
            await driver.copy_to_table("author", source=rows(), columns=["name"])
        assert await driver.fetchval("SELECT 1") == 1

    assert await names(engine) == []


async def test_the_rows_of_a_model_are_copied_in_the_transaction_of_a_session(
    engine: AsyncEngine,
) -> None:
    """What is pending comes first, an error leaves nothing, and others see what is committed."""
    async with AsyncSession(engine) as session:
        await Writer.create_many(session, [{"name": "never"}])
    assert await names(engine) == []
    async with AsyncSession(engine) as session:
        session.add(Author(name="first"))
        given = ({"name": f"{number:05}"} for number in range(5000))
        assert await Writer.create_many(session, given) == 5000
        await session.commit()
        with pytest.raises(IntegrityError, match="duplicate key"):
            await Writer.create_many(session, [{"name": "new"}, {"name": "first"}])
        await session.rollback()
        both = [{"name": "first"}, {"name": "last"}]
        assert await Writer.upsert_many(session, both, on="name") == 2
        await session.commit()

    assert await names(engine) == ["first", *(f"{number:05}" for number in range(5000)), "last"]
