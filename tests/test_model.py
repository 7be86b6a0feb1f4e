"""The declarative base and the queries that every model has."""

from datetime import date
from typing import assert_type
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    MetaData,
    SmallInteger,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.manager import DatabaseSessionManager
from stillroom.model import NAMING_CONVENTION, Model


class Base(Model, DeclarativeBase):
    """The base of these tables."""


class Shelf(Base):
    """A row with a key of integers."""

    __tablename__ = "shelves"
    __table_args__ = (UniqueConstraint("name"), CheckConstraint("size > 0", name="size_positive"))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), index=True)
    size: Mapped[int] = mapped_column(server_default="7")


class Jar(Base):
    """A row with a key of a UUID, on a shelf."""

    __tablename__ = "jars"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelves.id"))


class Label(Base):
    """A row with a key of text and a small and a large integer."""

    __tablename__ = "labels"

    text: Mapped[str] = mapped_column(String(20), primary_key=True)
    small: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    large: Mapped[int] = mapped_column(BigInteger, primary_key=True)


class Day(Base):
    """A row whose key is a date."""

    __tablename__ = "days"

    day: Mapped[date] = mapped_column(primary_key=True)


@pytest.fixture
async def manager(driver_url: str) -> DatabaseSessionManager:
    """Give a manager on a database with the tables, on each driver."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(driver_url)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    return manager


def test_each_constraint_has_a_name_by_the_convention() -> None:
    """A migration can drop what has a name, and an error can say it."""
    names = {str(constraint.name) for constraint in Shelf.__table__.constraints}  # type: ignore[attr-defined]

    assert names == {"pk_shelves", "uq_shelves_name", "ck_shelves_size_positive"}
    assert [index.name for index in Shelf.__table__.indexes] == ["ix_shelves_name"]  # type: ignore[attr-defined]
    assert [str(key.constraint.name) for key in Jar.__table__.foreign_keys if key.constraint] == [
        "fk_jars_shelf_id_shelves"
    ]


def test_two_bases_have_metadata_of_their_own() -> None:
    """A second base shares no table with the first, and a given metadata stays."""

    class Other(Model, DeclarativeBase):
        pass

    class Given(Model, DeclarativeBase):
        metadata = MetaData(schema="given")

    assert Other.metadata is not Base.metadata
    assert Other.metadata.naming_convention == NAMING_CONVENTION
    assert Given.metadata.schema == "given"


def test_a_base_in_the_wrong_order_is_refused() -> None:
    """Without its naming convention, migrations could not drop what has no name."""
    with pytest.raises(TypeError, match=r"class Wrong\(Model, DeclarativeBase\): Model stands"):
        type("Wrong", (DeclarativeBase, Model), {})


def test_a_mapper_with_arguments_of_its_own_keeps_the_defaults() -> None:
    """What the database fills in is read back there too."""

    class Animal(Base):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind"}  # noqa: RUF012

    assert Animal.__mapper__.eager_defaults is True
    Base.metadata.remove(Base.metadata.tables["animals"])


async def test_create_returns_the_row_with_what_the_database_filled_in(
    manager: DatabaseSessionManager,
) -> None:
    """Key and defaults are there without another query, and nothing is committed."""
    async with manager.session() as session:
        shelf = await Shelf.create(session, name="top")
        assert_type(shelf, Shelf)
        assert (shelf.id, shelf.name, shelf.size) == (1, "top", 7)
    async with manager.session() as session:
        assert list(await Shelf.get_all(session)) == []
    await manager.close()


async def test_create_raises_what_the_database_says(manager: DatabaseSessionManager) -> None:
    """A second row of the same name is an IntegrityError, at once."""
    async with manager.session() as session:
        await Shelf.create(session, name="one")
        with pytest.raises(IntegrityError):
            await Shelf.create(session, name="one")
    await manager.close()


async def test_get_finds_by_any_spelling_of_the_key(manager: DatabaseSessionManager) -> None:
    """A UUID is read with and without dashes, an integer from its digits."""
    async with manager.begin() as session:
        shelf = await Shelf.create(session, name="top")
        jar = await Jar.create(session, shelf_id=shelf.id)
        label = await Label.create(session, text="plum", small=1, large=2**40)
        day = await Day.create(session, day=date(2026, 1, 1))
    async with manager.session() as session:
        for spelling in (jar.id, str(jar.id), jar.id.hex, str(jar.id).upper()):
            found = await Jar.get(session, spelling)
            assert_type(found, Jar | None)
            assert found is not None
            assert found.id == jar.id
        assert await Shelf.get(session, "1") is await Shelf.get(session, 1) is not None
        assert await Label.get(session, ("plum", 1, 2**40)) is not None
        assert await Day.get(session, day.day) is not None
    assert label.small == 1
    await manager.close()


@pytest.mark.parametrize(
    "value",
    ["", "no id", "\0", "\ud800", "x" * 10_000, "{00000000-0000-0000-0000-000000000000}",
     "urn:uuid:00000000-0000-0000-0000-000000000000", "0-0", None, 7, 1.5, b"x", []],
)  # fmt: skip
async def test_what_is_no_uuid_is_nobodys(manager: DatabaseSessionManager, value: object) -> None:
    """A value that the key cannot hold finds nothing, and breaks nothing."""
    async with manager.session() as session:
        assert await Jar.get(session, value) is None
        assert await session.scalar(text("SELECT 1")) == 1
    await manager.close()


@pytest.mark.parametrize(
    "value",
    ["1.0", "\u0667", b"7", float("inf"), "", "one", "\0", None, 2**31, -(2**31) - 1, "9" * 5000,
     [], 1.5, True],
)  # fmt: skip
async def test_what_is_no_integer_of_the_column_is_nobodys(
    manager: DatabaseSessionManager, value: object
) -> None:
    """Out of range is not an error but nobody."""
    async with manager.session() as session:
        assert await Shelf.get(session, value) is None
    await manager.close()


@pytest.mark.parametrize(
    "key",
    [("a\0", 1, 1), ("\ud800", 1, 1), (1, 1, 1), ("a", 2**15, 1), ("a", 1, 2**63)],
)
async def test_each_part_of_a_composite_key_must_fit(
    manager: DatabaseSessionManager, key: tuple[object, ...]
) -> None:
    """Text that is no text, and integers beyond their column, find nothing."""
    async with manager.session() as session:
        assert await Label.get(session, key) is None
    await manager.close()


async def test_a_key_with_the_wrong_number_of_parts_is_a_mistake(
    manager: DatabaseSessionManager,
) -> None:
    """A composite key that lacks a part is an error of the program."""
    async with manager.session() as session:
        with pytest.raises(TypeError, match="Label has 3 columns, not 1"):
            await Label.get(session, "plum")
    await manager.close()


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 30])
async def test_all_rows_in_parts_are_all_rows(manager: DatabaseSessionManager, rows: int) -> None:
    """Parts of ten give every row once, in the order of the key, and one part at a time is kept."""
    async with manager.begin() as session:
        for number in range(rows):
            await Shelf.create(session, name=str(number))
    async with manager.session(read_only=True) as session:
        parts: list[list[int]] = []
        async for part in Shelf.get_all_in_parts(session, 10):
            assert kept(session) == len(part)
            parts.append([shelf.id for shelf in part])
            del part
        assert [key for part in parts for key in part] == list(range(1, rows + 1))
        assert all(len(part) == 10 for part in parts[:-1])
        assert len(await Shelf.get_all(session)) == rows
    await manager.close()


def kept(session: AsyncSession) -> int:
    """Count the rows that the session holds."""
    return len(list(session.sync_session.identity_map.keys()))
