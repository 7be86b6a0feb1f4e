"""The tables of the conformance set, as its tests write and read them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

ADD = text("INSERT INTO author (name) VALUES (:name) RETURNING id")
NAMES = text("SELECT name FROM author ORDER BY id")


class Base(DeclarativeBase):
    """The base of the models."""


class Author(Base):
    """A row of `author`."""

    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    """A row of `book`."""

    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    pages: Mapped[int | None]
    author: Mapped[Author | None] = relationship(back_populates="books")


async def add(where: AsyncConnection | AsyncSession, name: str) -> int:
    """Add an author and return its id."""
    number: int = (await where.execute(ADD, {"name": name})).scalar_one()
    return number


async def names(engine: AsyncEngine) -> list[str]:
    """Return the names of all authors as another connection sees them."""
    async with engine.connect() as connection:
        return list((await connection.execute(NAMES)).scalars())


async def run(where: AsyncConnection | AsyncSession, *statements: str, **values: Any) -> None:
    """Run statements one after the other."""
    for statement in statements:
        await where.execute(text(statement), values)


async def value(where: AsyncConnection | AsyncSession, sql: str, **values: Any) -> Any:
    """Return the one value of a statement."""
    return (await where.execute(text(sql), values)).scalar()


async def rows(where: AsyncConnection | AsyncSession, sql: str, **values: Any) -> list[Any]:
    """Return the rows of a statement, as tuples or as the values of the one column."""
    found = [tuple(row) for row in await where.execute(text(sql), values)]
    return [row[0] if len(row) == 1 else row for row in found]


async def code_of(where: AsyncConnection | AsyncSession, sql: str, **values: Any) -> str:
    """Return the SQLSTATE that a statement fails with."""
    with pytest.raises(DBAPIError) as failure:
        await where.execute(text(sql), values)
    return sqlstate(failure.value)


def sqlstate(error: DBAPIError) -> str:
    """Return PostgreSQL's code of an error."""
    return str(getattr(error.orig, "sqlstate", None))


async def driver_of(connection: AsyncConnection) -> Any:
    """Return asyncpg's connection."""
    return (await connection.get_raw_connection()).driver_connection


async def gather_all(count: int, work: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """Do a work many times at once."""
    return list(await asyncio.gather(*(work(number) for number in range(count))))
