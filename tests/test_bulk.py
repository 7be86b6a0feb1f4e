"""Many rows at once, by COPY in the session's own transaction, and rows that are there already."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum as PyEnum
from ipaddress import IPv4Address
from itertools import count
from typing import Any, assert_type
from uuid import UUID, uuid4

import anyio
import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    CheckConstraint,
    Computed,
    DateTime,
    Enum,
    FetchedValue,
    ForeignKey,
    Index,
    Numeric,
    Sequence,
    String,
    TypeDecorator,
    UniqueConstraint,
    delete,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import CITEXT, INET, JSONB, TSTZRANGE, Range
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from stillroom.errors import ConfigurationError, RowError
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from stillroom.problems import constraint_of, problem_of, sqlstate_of
from tests.conftest import DRIVERS, NewDatabase

NUMBERS = count()


class Base(Model, DeclarativeBase):
    """The base of the models."""


class Colour(PyEnum):
    """An enum whose names are stored."""

    RED = "red"
    BLUE = "blue"


class Shout(TypeDecorator[str]):
    """Text that Python has in capitals, and PostgreSQL in small letters."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:  # noqa: ARG002
        """Write; what is missing has a value too."""
        return "nothing" if value is None else value.lower()

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:  # noqa: ARG002
        """Read."""
        return value and value.upper()


class Reversed(TypeDecorator[str]):
    """Text that PostgreSQL itself turns round when it is written."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        """Write."""
        return func.reverse(bindparam, type_=String)


def _label(context: Any) -> str:
    return f"jar {context.get_current_parameters()['name']}"


class Jar(Base):
    """A row with defaults of each sort."""

    __tablename__ = "jars"
    __table_args__ = (
        CheckConstraint("size > 0", name="size_positive"),
        UniqueConstraint("name"),
        Index("uq_jars_label", func.lower(text("label")), unique=True),
        Index("uq_jars_place", "place", unique=True, postgresql_where=text("place = 'throne'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(20))
    label: Mapped[str] = mapped_column("label", default=_label)
    number: Mapped[int] = mapped_column(default=lambda: next(NUMBERS))
    size: Mapped[int] = mapped_column(default=1)
    made_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    place: Mapped[str] = mapped_column(server_default="cellar")
    note: Mapped[str | None] = mapped_column("remark")
    area: Mapped[int] = mapped_column(Computed("size * size"))
    changed: Mapped[int | None] = mapped_column(onupdate=lambda: next(NUMBERS))
    touched: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), onupdate=func.now())
    checked: Mapped[str | None] = mapped_column(server_default=FetchedValue())


class Thing(Base):
    """A column of each type that a driver may write in its own way."""

    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    colour: Mapped[Colour | None] = mapped_column(Enum(Colour))
    word: Mapped[str | None] = mapped_column(Shout)
    data: Mapped[Any] = mapped_column(JSONB, nullable=True)
    plain: Mapped[Any] = mapped_column(JSON, nullable=True)
    amount: Mapped[Decimal | None] = mapped_column(Numeric(20, 5))
    real: Mapped[float | None]
    flag: Mapped[bool | None]
    blob: Mapped[bytes | None]
    moment: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    day: Mapped[date | None]
    hour: Mapped[time | None]
    span: Mapped[timedelta | None]
    uuid: Mapped[UUID | None]
    words: Mapped[list[str] | None] = mapped_column(ARRAY(String))
    colours: Mapped[list[Colour] | None] = mapped_column(ARRAY(Enum(Colour)))
    address: Mapped[Any] = mapped_column(INET, nullable=True)
    during: Mapped[Any] = mapped_column(TSTZRANGE, nullable=True)


class Person(Base):
    """A row with a type that asyncpg has as text alone."""

    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(CITEXT, unique=True)


class Odd(Base):
    """A row that a COPY cannot write."""

    __tablename__ = "odd"

    id: Mapped[int] = mapped_column(Sequence("odd_ids"), primary_key=True)
    word: Mapped[str | None] = mapped_column(Reversed)
    made_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=func.now())


class Empty(Base):
    """A row of which PostgreSQL fills everything."""

    __tablename__ = "order"
    __table_args__ = {"schema": "Odd Schema"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    select: Mapped[str | None] = mapped_column("a b")


class Animal(Base):
    """A row of one of two classes, with a version."""

    __tablename__ = "animals"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {  # noqa: RUF012
        "polymorphic_on": "kind", "polymorphic_identity": "animal", "version_id_col": version,
    }  # fmt: skip


class Cat(Animal):
    """A class in the same table."""

    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012


class Dog(Animal):
    """A class in a table of its own."""

    __tablename__ = "dogs"

    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


@pytest.fixture(scope="module", params=DRIVERS)
def url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """Give the URL of a database with the tables, for each driver in turn."""
    url = new_database().replace("postgresql://", f"postgresql+{request.param}://")

    async def create() -> None:
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE EXTENSION citext"))
            await connection.execute(text('CREATE SCHEMA "Odd Schema"'))
            await connection.run_sync(Base.metadata.create_all)

    asyncio.run(create())
    return url


@pytest.fixture
async def manager(url: str) -> AsyncIterator[DatabaseSessionManager]:
    """Give a manager that has no connection in use at the end."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(url)
    yield manager
    pool: Any = manager.engine.pool
    assert pool.checkedout() == 0
    await manager.close()


@pytest.fixture
async def session(manager: DatabaseSessionManager) -> AsyncIterator[AsyncSession]:
    """Give a session whose work is rolled back."""
    async with manager.session() as session:
        yield session


def jars(numbers: range) -> Iterator[dict[str, Any]]:
    """Make rows one after the other."""
    return ({"name": str(number)} for number in numbers)


async def names(session: AsyncSession) -> list[str]:
    """Read the names of the jars."""
    return list(await session.scalars(select(Jar.name).order_by(Jar.number)))


async def test_rows_have_the_defaults_of_python_and_of_postgresql(session: AsyncSession) -> None:
    """One of Python is evaluated for each row, one of PostgreSQL is left to it."""
    given: list[dict[str, Any]] = [
        {"name": "a", "size": 3, "note": "first"}, {"name": "b"}, {"name": "c", "note": None},
    ]  # fmt: skip
    assert_type(await Jar.create_many(session, given), int)
    found = (await session.scalars(select(Jar).order_by(Jar.number))).all()

    assert [jar.label for jar in found] == ["jar a", "jar b", "jar c"]
    assert [(jar.size, jar.area, jar.note, jar.place) for jar in found] == [
        (3, 9, "first", "cellar"), (1, 1, None, "cellar"), (1, 1, None, "cellar"),
    ]  # fmt: skip
    assert len({jar.id for jar in found}) == len({jar.number for jar in found}) == 3
    assert len({jar.made_at for jar in found}) == 3
    assert (found[0].changed, found[0].touched, found[0].checked) == (None, None, None)


async def test_nothing_is_committed(manager: DatabaseSessionManager) -> None:
    """Not even when the COPY is the first that a session does."""
    async with manager.session() as session:
        assert await Jar.create_many(session, jars(range(3))) == 3
        assert session.in_transaction()
    async with manager.begin() as session:
        assert await names(session) == []
        assert await Jar.create_many(session, jars(range(2))) == 2
    async with manager.begin() as session:
        assert await names(session) == ["0", "1"]
        await session.execute(delete(Jar))


async def test_what_was_added_before_is_written_before(session: AsyncSession) -> None:
    """A pending row is flushed: it comes first, and its errors too."""
    session.add(Jar(name="a"))
    with pytest.raises(IntegrityError) as failure:
        await Jar.create_many(session, [{"name": "b"}, {"name": "a"}])

    assert constraint_of(failure.value) == "uq_jars_name"


async def test_rows_come_from_a_list_a_generator_or_an_asynchronous_one(
    session: AsyncSession,
) -> None:
    """None of them is read twice, and none is no row."""

    async def slowly() -> AsyncIterator[dict[str, Any]]:
        for row in jars(range(20, 22)):
            await asyncio.sleep(0)
            yield row

    assert await Jar.create_many(session, [*jars(range(2))]) == 2
    assert await Jar.create_many(session, jars(range(10, 12))) == 2
    assert await Jar.create_many(session, slowly()) == 2
    assert await Jar.create_many(session, []) == 0
    assert await names(session) == ["0", "1", "10", "11", "20", "21"]


async def test_rows_may_leave_different_columns_to_postgresql(session: AsyncSession) -> None:
    """A value that is given stands, one that is not is PostgreSQL's, row by row."""
    given: list[dict[str, Any]] = [
        {"name": "a", "place": "attic"}, {"place": "attic", "name": "b"}, {"name": "c"},
        {"name": "d", "note": "x"}, {"name": "e", "place": "yard"},
    ]  # fmt: skip
    assert await Jar.create_many(session, given) == 5
    places = await session.scalars(select(Jar.place).order_by(Jar.name))

    assert list(places) == ["attic", "attic", "cellar", "cellar", "yard"]


THINGS: list[dict[str, Any]] = [
    {
        "colour": Colour.BLUE, "word": "LOUD", "data": {"a": [1, None, "\u2028"]}, "plain": [1.5],
        "amount": Decimal("1.00001"), "real": 0.1, "flag": True, "blob": b"\0\\x",
        "moment": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "day": date(1, 1, 1),
        "hour": time(1, 2, 3, 4), "span": timedelta(days=-1, microseconds=1), "uuid": UUID(int=7),
        "words": ["a,b", '"', "\\", "", "\t\n"], "colours": [Colour.RED, Colour.BLUE],
        "address": IPv4Address("10.0.0.1"),
        "during": Range(datetime(2026, 1, 1, tzinfo=UTC), None, bounds="[)"),
    },
    {"word": "\\N\t\\.", "words": [], "colours": [], "data": None, "plain": "null"},
    {},
]  # fmt: skip


async def test_each_type_is_written_as_an_insert_writes_it(session: AsyncSession) -> None:
    """Enums, JSON, arrays, types of the application's own, and nothing at all."""
    await Thing.create_many(session, THINGS)
    for thing in THINGS:
        await Thing.create(session, **thing)
    columns = [column for column in Thing.__table__.columns if column.key != "id"]
    rows = [tuple(row) for row in await session.execute(select(*columns).order_by(Thing.id))]
    nulls = select(Thing.data.is_(text("NULL"))).order_by(Thing.id)

    assert len(rows) == 6
    assert rows[:3] == rows[3:]
    assert list(await session.scalars(nulls)) == [False, False, True] * 2


async def test_what_asyncpg_has_as_text_alone_is_written_too(session: AsyncSession) -> None:
    """Then an INSERT does it, and what was written before stays."""
    session.add(Person(email="Ann@example.org"))
    for start in (0, 10):
        given = ({"email": f"{number}@Example.org"} for number in range(start, start + 10))
        assert await Person.create_many(session, given) == 10
    with pytest.raises(IntegrityError) as failure:
        await Person.create_many(session, [{"email": "ANN@example.org"}])

    assert constraint_of(failure.value) == "uq_people_email"


async def test_what_a_copy_cannot_hold_is_inserted(session: AsyncSession) -> None:
    """Expressions of SQL, sequences, types that are written by SQL."""
    given = [{"word": f"{number:04}"} for number in range(2500)]
    assert await Odd.create_many(session, given) == 2500
    found = (await session.scalars(select(Odd.word).order_by(Odd.id))).all()

    assert found == [f"{number:04}"[::-1] for number in range(2500)]


async def test_rows_may_give_nothing_and_names_may_be_odd(session: AsyncSession) -> None:
    """Reserved words and blanks are quoted, in any schema."""
    assert await Empty.create_many(session, [{}, {}, {"select": "x"}]) == 3
    rows = [tuple(row) for row in await session.execute(select(Empty.id, Empty.select))]

    assert rows == [(1, None), (2, None), (3, "x")]


async def test_a_class_and_a_version_are_those_of_the_mapper(session: AsyncSession) -> None:
    """A row is of the class that was asked; one of two tables is refused."""
    await Cat.create_many(session, [{}])
    [cat] = await Animal.get_all(session)

    assert (type(cat), cat.version) == (Cat, 1)
    with pytest.raises(ConfigurationError, match="Dog is not of one table"):
        await Dog.create_many(session, [{}])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"nam": "x"}, r"Row 3 of Jar has no attribute 'nam'; it has id, name,"),
        ({"name": "x", "remark": "x"}, "Row 3 of Jar has no attribute 'remark'"),
        ({"name": "x", 7: "x"}, "Row 3 of Jar has no attribute 7"),
        ({"size": 1}, "Row 3 of Jar lacks 'name', which has no default"),
        (["name"], "Row 3 of Jar is a list"),
    ],
)
async def test_a_row_that_does_not_fit_is_named(
    session: AsyncSession, row: Any, message: str
) -> None:
    """By its number, from one; the session goes on after a rollback."""
    with pytest.raises(RowError, match=message):
        await Jar.create_many(session, [*jars(range(2)), row])
    await session.rollback()

    assert await Jar.create_many(session, jars(range(2))) == 2


async def test_the_first_row_may_be_the_one_that_does_not_fit(session: AsyncSession) -> None:
    """Then nothing has begun."""
    with pytest.raises(RowError, match="Row 1 of Jar lacks"):
        await Jar.create_many(session, [{}])
    assert await names(session) == []


@pytest.mark.parametrize(
    ("row", "status", "code", "constraint"),
    [
        ({"name": "0"}, 409, "23505", "uq_jars_name"),
        ({"name": "x", "size": 0}, 422, "23514", "ck_jars_size_positive"),
        ({"name": None}, 422, "23502", None),
        ({"name": "x" * 21}, 422, "22001", None),
        ({"name": "x", "size": 2**40}, 422, None, None),
        ({"name": "x\0"}, 422, None, None),
        ({"name": "x", "size": "much"}, 422, None, None),
    ],
)
async def test_an_error_is_the_one_of_an_insert(
    session: AsyncSession,
    row: dict[str, Any],
    status: int,
    code: str | None,
    constraint: str | None,
) -> None:
    """Its class, SQLSTATE, constraint and meaning in HTTP; the session goes on after a rollback."""
    with pytest.raises(DBAPIError) as failure:
        await Jar.create_many(session, [{"name": "0"}, row])
    problem = problem_of(failure.value, read_only=False, metadata=Base.metadata)
    assert problem is not None
    assert problem.status == status
    assert constraint_of(failure.value) == constraint
    assert sqlstate_of(failure.value) == code or code is None
    assert isinstance(failure.value, IntegrityError) == (code is not None and code[:2] == "23")
    await session.rollback()

    assert await Jar.create_many(session, jars(range(2))) == 2


async def test_an_error_of_the_rows_is_raised_as_it_is(session: AsyncSession) -> None:
    """A mistake in a generator, or in a type of the application, is no error of the database."""

    def broken() -> Iterator[dict[str, Any]]:
        yield from jars(range(600))
        raise ValueError("broken")

    with pytest.raises(ValueError, match=r"^broken$"):
        await Jar.create_many(session, broken())
    await session.rollback()
    with pytest.raises(RowError, match=r"Row 2 of Thing .*'word'.*no attribute 'lower'"):
        await Thing.create_many(session, [{"word": "one"}, {"word": 2}])
    await session.rollback()

    assert await Jar.create_many(session, jars(range(2))) == 2


@pytest.mark.parametrize("by_anyio", [False, True])
async def test_a_copy_that_is_cancelled_leaves_the_connection(
    session: AsyncSession, by_anyio: bool
) -> None:
    """In the midst of the rows: the same session goes on after a rollback."""
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[dict[str, Any]]:
        for row in jars(range(10**9)):
            if int(row["name"]) > 5000:
                begun.set()
                await asyncio.sleep(60)
            yield row

    connection = await (await session.connection()).get_raw_connection()
    driver = connection.driver_connection
    if by_anyio:
        async with anyio.create_task_group() as group:
            group.start_soon(Jar.create_many, session, endless())
            await begun.wait()
            group.cancel_scope.cancel()
    else:
        copying = asyncio.create_task(Jar.create_many(session, endless()))
        await begun.wait()
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
    await session.rollback()

    assert await names(session) == []
    assert await Jar.create_many(session, jars(range(2))) == 2
    assert (await (await session.connection()).get_raw_connection()).driver_connection is driver


async def test_others_have_their_turn_while_rows_are_made(session: AsyncSession) -> None:
    """A generator that never waits does not keep the loop for itself."""
    waited = longest = 0

    async def take_turns() -> None:
        nonlocal waited
        while True:
            waited = 0
            await asyncio.sleep(0)

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal waited, longest
        for row in jars(range(20_000)):
            waited += 1
            longest = max(longest, waited)
            yield row

    others = asyncio.create_task(take_turns())
    await Jar.create_many(session, rows())
    others.cancel()

    assert longest <= 500


async def test_memory_is_that_of_a_few_rows(session: AsyncSession) -> None:
    """However many rows there are."""
    await Jar.create_many(session, jars(range(1000)))
    tracemalloc.start()
    await Jar.create_many(session, jars(range(1000, 21_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2_000_000


async def test_a_read_session_copies_nothing(manager: DatabaseSessionManager) -> None:
    """PostgreSQL itself holds it to reading."""
    async with manager.session(read_only=True) as session:
        with pytest.raises(DBAPIError) as failure:
            await Jar.create_many(session, jars(range(2)))
        assert sqlstate_of(failure.value) == "25006"


async def test_an_upsert_makes_a_row_or_changes_it(session: AsyncSession) -> None:
    """The entity is the one of the session, as the row is now; the primary key stays."""
    made = await Jar.upsert(session, {"name": "a", "size": 2}, on="name")
    assert_type(made, Jar)
    key, label, number = made.id, made.label, made.number
    assert (made.size, made.area, made.place, made.changed, made.touched) == (
        2,
        4,
        "cellar",
        None,
        None,
    )
    again = await Jar.upsert(session, {"name": "a", "size": 3, "id": uuid4()}, on=["name"])

    assert again is made
    assert (made.id, made.label, made.number, made.size, made.area) == (key, label, number, 3, 9)
    assert made.changed is not None
    assert made.touched is not None


async def test_an_upsert_comes_after_what_was_added_before(session: AsyncSession) -> None:
    """It finds a row that is pending, also in a session that flushes nothing by itself."""
    session.sync_session.autoflush = False
    for many, name in ((True, "a"), (False, "b")):
        jar = Jar(name=name, size=2)
        session.add(jar)
        if many:
            await Jar.upsert_many(session, [{"name": name, "size": 3}], on="name")
            await session.refresh(jar)
        else:
            assert await Jar.upsert(session, {"name": name, "size": 3}, on="name") is jar
        assert jar.size == 3


async def test_an_upsert_that_changes_nothing_returns_the_row(session: AsyncSession) -> None:
    """Also where only that is given by which it is found."""
    jar = await Jar.create(session, name="a", size=7)
    same = await Jar.upsert(session, {"name": "a"}, on="name")

    assert same is jar
    assert (jar.size, jar.changed) == (7, None)


@pytest.mark.parametrize("on", ["uq_jars_name", "uq_jars_label"])
async def test_what_makes_two_rows_one_may_be_named(session: AsyncSession, on: str) -> None:
    """A constraint, and a unique index, also one of an expression, whose column may change."""
    await Jar.create(session, name="a", label="Plum")
    name = "a" if on == "uq_jars_name" else "b"
    jar = await Jar.upsert(session, {"name": name, "label": "PLUM"}, on=on)

    assert (jar.name, jar.label) == (name, "PLUM")
    assert len(await names(session)) == 1


async def test_an_index_of_a_part_of_the_rows_may_be_named(session: AsyncSession) -> None:
    """Its condition says which rows are one; others are not."""
    first = await Jar.upsert(session, {"name": "a", "place": "throne"}, on="uq_jars_place")
    second = await Jar.upsert(session, {"name": "b", "place": "throne"}, on="uq_jars_place")
    third = await Jar.upsert(session, {"name": "c", "place": "yard"}, on="uq_jars_place")

    assert (first is second, second.name) == (True, "b")
    assert third is not first


async def test_many_rows_are_made_or_changed(session: AsyncSession) -> None:
    """In statements of many rows; a row may give less than another one."""
    await Jar.create_many(session, jars(range(0, 3000, 2)))
    given = ({"name": str(number), "size": 5} for number in range(3000))
    assert_type(await Jar.upsert_many(session, given, on="name"), int)
    few: list[dict[str, Any]] = [
        {"name": "1", "note": "x"},
        {"name": "2", "size": 6},
        {"name": "3"},
    ]
    assert await Jar.upsert_many(session, few, on="uq_jars_name") == 3
    found = (await session.scalars(select(Jar).order_by(Jar.label))).all()

    assert len(found) == len({jar.id for jar in found}) == 3000
    assert {jar.size for jar in found} == {5, 6}
    by_name = {jar.name: jar for jar in found}
    assert [by_name[name].note for name in "123"] == ["x", None, None]
    assert [by_name[name].size for name in "123"] == [5, 6, 5]
    assert [by_name[name].changed is None for name in ("4", "5")] == [False, True]


async def test_two_rows_of_a_statement_that_are_one_are_refused(session: AsyncSession) -> None:
    """PostgreSQL would not know which of them to keep."""
    with pytest.raises(DBAPIError) as failure:
        await Jar.upsert_many(session, [{"name": "a"}, {"name": "a"}], on="name")

    assert sqlstate_of(failure.value) == "21000"


@pytest.mark.parametrize("on", ["nam", ["name", "nam"], [], "", "ck_jars_size_positive_x"])
async def test_an_upsert_on_what_is_not_there_is_refused(
    session: AsyncSession, on: str | list[str]
) -> None:
    """With what there is."""
    with pytest.raises(ConfigurationError, match=r"Jar has neither .*; it has id, .*uq_jars_label"):
        await Jar.upsert(session, {"name": "a"}, on=on)


async def test_an_upsert_of_what_does_not_fit_is_refused(session: AsyncSession) -> None:
    """An attribute that is not there, a value that is missing, a row that has a version."""
    with pytest.raises(RowError, match="Jar has no attribute 'nam'"):
        await Jar.upsert(session, {"nam": "a"}, on="name")
    with pytest.raises(RowError, match="Row 2 of Jar lacks 'name'"):
        await Jar.upsert_many(session, [{"name": "a"}, {"size": 1}], on="name")
    with pytest.raises(ConfigurationError, match="Cat has a version"):
        await Cat.upsert(session, {"id": 1}, on="id")
    with pytest.raises(IntegrityError) as failure:
        await Jar.upsert(session, {"name": None}, on="name")
    assert sqlstate_of(failure.value) == "23502"
