"""Pages: put together they are the whole list, whichever way, at the cost of their rows."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum as PyEnum
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    CHAR,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Index,
    Numeric,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from sqlalchemy.pool import NullPool

from stillroom.errors import ConfigurationError, CursorError, LimitError
from stillroom.joins import AnySelect
from stillroom.json.pages import JSONPages
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from stillroom.pages import Pages
from stillroom.pages.cursor import Position, write_cursor
from tests.conftest import DRIVERS, NewDatabase


class Base(Model, DeclarativeBase):
    """The base of the models."""


class Colour(PyEnum):
    """An enum whose order in PostgreSQL is that of its declaration."""

    RED = "red"
    BLUE = "blue"
    AMBER = "amber"


class Shout(TypeDecorator[str]):
    """Text that Python has in capitals, and PostgreSQL in small letters."""

    impl = String(20)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:  # noqa: ARG002
        """Write."""
        return value and value.lower()

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:  # noqa: ARG002
        """Read."""
        return value and value.upper()


class Thing(Base):
    """A column of each type that is often ordered by."""

    __tablename__ = "things"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    place: Mapped[int] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(Text(collation="C"))
    code: Mapped[str] = mapped_column(CHAR(3))
    real: Mapped[float] = mapped_column(Double)
    amount: Mapped[Decimal] = mapped_column(Numeric(30, 10))
    moment: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    naive: Mapped[datetime] = mapped_column(DateTime)
    day: Mapped[date]
    span: Mapped[timedelta]
    flag: Mapped[bool]
    blob: Mapped[bytes]
    colour: Mapped[Colour] = mapped_column(Enum(Colour))
    word: Mapped[str] = mapped_column(Shout)
    note: Mapped[str | None]


class Seen(Base):
    """A row of a large table, with the indexes of its orders."""

    __tablename__ = "seen"
    __table_args__ = (
        Index("ix_seen_created_at_id", "created_at", "id"),
        Index("ix_seen_team", text("team DESC"), "name", "id"),
        Index("ix_seen_code_id", "code", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    team: Mapped[int]
    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    code: Mapped[str] = mapped_column(CHAR(8), server_default="")


class Slot(Base):
    """A row that is unique in ways on which no order can rely."""

    __tablename__ = "slots"
    __table_args__ = (
        UniqueConstraint("place", deferrable=True),
        Index("uq_slots_part", "part", unique=True, postgresql_where=text("part > 0")),
        Index("uq_slots_word", func.lower(text("word")), unique=True),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int]
    part: Mapped[int]
    word: Mapped[str]
    price: Mapped[Decimal] = mapped_column(Numeric(6, 2))


class Visit(Base):
    """A row of which each of the others has many, or none."""

    __tablename__ = "visits"

    id: Mapped[int] = mapped_column(primary_key=True)
    seen_id: Mapped[int] = mapped_column(ForeignKey("seen.id"))
    place: Mapped[str]


class ThingSchema(BaseModel):
    """Show a thing by its key."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID


class SeenSchema(BaseModel):
    """Show a row of the large table."""

    id: int
    name: str


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
MOMENTS = st.sampled_from([
    datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(2026, 2, 1, tzinfo=UTC), datetime(1, 1, 3, tzinfo=UTC),
    datetime(9999, 12, 30, tzinfo=UTC),
])  # fmt: skip
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "place": st.integers(-1, 2),
    "name": st.text(LETTERS, max_size=2) | st.sampled_from(["a", "b", "'\"\\", "%s :x $1"]),
    "code": st.sampled_from(["a", "b ", "bcd"]),
    "real": st.sampled_from([0.1, 0.1 + 2**-56, -0.0, 0.0, 1e300, float("inf"), float("nan")])
    | st.floats(),
    "amount": st.sampled_from([Decimal("0.1"), Decimal("0.1000000001"), Decimal(-(10**19))]),
    "moment": MOMENTS,
    "naive": MOMENTS.map(lambda moment: moment.replace(tzinfo=None)),
    "day": st.sampled_from([date(1, 1, 1), date(2026, 3, 4), date(2026, 4, 3)]),
    "span": st.sampled_from([timedelta(microseconds=1), timedelta(days=-1), timedelta(days=400)]),
    "flag": st.booleans(),
    "blob": st.binary(max_size=2),
    "colour": st.sampled_from(Colour),
    "word": st.sampled_from(["ONE", "TWO"]),
}
"""For each column of an order its values, of which many are equal."""

ORDERS = st.lists(
    st.tuples(st.sampled_from(sorted(VALUES)), st.booleans()),
    max_size=4,
    unique_by=lambda it: it[0],
)
ROWS = st.lists(st.fixed_dictionaries(VALUES), max_size=12)
LARGE = 50_000
FILL_SEEN = text("""INSERT INTO seen (id, created_at, team, name, email, code)
    SELECT n, timestamptz '2026-01-01 00:00Z' + n / 3 * interval '1 us', n % 50, 'name ' || n % 7,
        n || '@example.org', n / 2 FROM generate_series(1, :rows) n""")
FILL_VISITS = text("INSERT INTO visits SELECT n, n % 9 + 1, n FROM generate_series(1, 40) n")


@pytest.fixture(scope="module", params=DRIVERS)
def url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """Give the URL of a database with the tables, for each driver in turn."""
    url = new_database()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(FILL_SEEN, {"rows": LARGE})
        connection.execute(FILL_VISITS)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()
    return url.replace("postgresql://", f"postgresql+{request.param}://")


@pytest.fixture
async def session(url: str) -> AsyncIterator[AsyncSession]:
    """Give a session whose work is rolled back."""
    async with AsyncSession(create_async_engine(url, poolclass=NullPool)) as session:
        yield session


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, order=ORDERS, limit=st.integers(1, 5))
def test_pages_put_together_are_the_whole_list(
    url: str, rows: list[dict[str, Any]], order: list[tuple[str, bool]], limit: int
) -> None:
    """Forwards and backwards, from either end, whatever the columns, directions, types and ties."""
    columns: list[Any] = [getattr(Thing, name) for name, _ in order]
    directions = [is_down for _, is_down in order]
    order_by = [it.desc() if down else it for it, down in zip(columns, directions, strict=True)]
    last = Thing.id.desc() if directions and directions[-1] else Thing.id
    pages = Pages(select(Thing), order_by=order_by)
    json_pages = JSONPages(select(Thing), ThingSchema, order_by=order_by)

    async def look() -> None:
        engine = create_async_engine(url, poolclass=NullPool)
        async with AsyncSession(engine) as session:
            session.add_all(Thing(**row) for row in rows)
            await session.flush()
            whole = list(await session.scalars(select(Thing.id).order_by(*order_by, last)))
            forwards, backwards = await _walk(pages, session, limit)
            assert forwards == whole
            assert backwards == whole[: len(backwards)]
            assert len(whole) - limit <= len(backwards) < len(whole) or not whole
            assert await _walk_json(json_pages, session, limit) == (forwards, backwards)

    asyncio.run(look())


async def _walk(
    pages: Pages[Thing], session: AsyncSession, limit: int
) -> tuple[list[UUID], list[UUID]]:
    """Return what the pages have, and what those before the last one have on the way back."""
    page = await pages.rows(session, limit)
    assert page.previous is None
    forwards = [row.id for row in page.rows]
    while page.next is not None:
        page = await pages.rows(session, limit, page.next)
        forwards += [row.id for row in page.rows]
    backwards: list[UUID] = []
    while page.previous is not None:
        page = await pages.rows(session, limit, page.previous)
        backwards = [row.id for row in page.rows] + backwards
    return forwards, backwards


async def _walk_json(
    pages: JSONPages, session: AsyncSession, limit: int
) -> tuple[list[UUID], list[UUID]]:
    page = await pages.read(session, limit)
    assert page.previous is None
    forwards = _ids(page.body)
    while page.next is not None:
        page = await pages.read(session, limit, page.next)
        forwards += _ids(page.body)
    backwards: list[UUID] = []
    while page.previous is not None:
        page = await pages.read(session, limit, page.previous)
        backwards = _ids(page.body) + backwards
    return forwards, backwards


def _ids(body: bytes) -> list[UUID]:
    return [UUID(row["id"]) for row in json.loads(body)]


BY_TIME = [Seen.created_at.desc()]
BY_TEAM = [Seen.team.desc(), Seen.name]


@pytest.mark.parametrize("order_by", [BY_TIME, BY_TEAM, [Seen.email], [Seen.code]])
@pytest.mark.parametrize("is_json", [False, True])
async def test_a_page_is_read_from_an_index_alone(
    session: AsyncSession, order_by: list[Any], is_json: bool
) -> None:
    """In the middle of the table, in both directions, no row is sorted and few are looked at."""
    rows = Pages(select(Seen), order_by=order_by)
    objects = JSONPages(select(Seen), SeenSchema, order_by=order_by)
    place = Pages(select(Seen), order_by=order_by, maximum=LARGE)
    middle = await place.rows(session, LARGE // 2)
    assert middle.next is not None
    behind = await rows.rows(session, 1, middle.next)
    assert behind.previous is not None
    for cursor in (middle.next, behind.previous):
        ran = Ran(session)
        _ = await (objects.read if is_json else rows.rows)(session, 20, cursor)
        ran.stop()
        nodes = await ran.plan(session)
        limited = nodes[[node["Node Type"] for node in nodes].index("Limit") :]
        assert [node["Node Type"].replace(" Only", "") for node in limited] == [
            "Limit",
            "Index Scan",
        ]
        assert limited[1]["Actual Rows"] == 21
        assert limited[1].get("Rows Removed by Filter", 0) <= LARGE / 50  # those of one team


class Ran:
    """Remember the one statement that a session runs."""

    def __init__(self, session: AsyncSession) -> None:
        """Begin to look."""
        self._engine = session.get_bind().engine
        self.statements: list[tuple[str, Any]] = []
        event.listen(self._engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        self.statements.append((sql, parameters))

    def stop(self) -> None:
        """Look no longer."""
        event.remove(self._engine, "before_cursor_execute", self._note)

    async def plan(self, session: AsyncSession) -> list[dict[str, Any]]:
        """Return the nodes of the plan as it was run, from the top."""
        [(sql, parameters)] = self.statements
        connection = await session.connection()
        explain = f"EXPLAIN (ANALYZE, FORMAT json) {sql}"
        found: Any = (await connection.exec_driver_sql(explain, parameters)).scalar()
        explained: Any = json.loads(found) if isinstance(found, str) else found
        pending: list[dict[str, Any]] = [explained[0]["Plan"]]
        nodes: list[dict[str, Any]] = []
        while pending:
            node = pending.pop()
            nodes.append(node)
            pending += node.get("Plans", [])
        return nodes


async def test_a_row_that_goes_or_comes_meanwhile_hides_and_repeats_no_other(
    session: AsyncSession,
) -> None:
    """Also when it is the row that the cursor names."""
    pages = Pages(select(Seen.id).where(Seen.id <= 20), order_by=[Seen.id.desc()])
    first = await pages.rows(session, 5)
    await session.execute(delete(Visit))
    await session.execute(delete(Seen).where(Seen.id.in_([16, 14])))
    session.add(Seen(id=-1, created_at=datetime.now(UTC), team=1, name="x", email="x"))
    second = await pages.rows(session, 5, first.next)
    third = await pages.rows(session, 5, second.previous)

    assert (first.rows, second.rows) == ([20, 19, 18, 17, 16], [15, 13, 12, 11, 10])
    assert third.rows == [20, 19, 18, 17]


@pytest.mark.parametrize("is_backwards", [False, True])
async def test_an_empty_page_leads_back(session: AsyncSession, is_backwards: bool) -> None:
    """When all rows beyond it are gone, the way back is to the end that it has reached."""
    few = select(Seen.id).where(Seen.id.between(1, 9) | (Seen.id == 100))
    pages = Pages(few, order_by=[Seen.id])
    first = await pages.rows(session, 5)
    second = await pages.rows(session, 4, first.next)
    await session.execute(delete(Visit))
    gone = Seen.id <= 5 if is_backwards else Seen.id > 5
    await session.execute(delete(Seen).where(gone))
    empty = await pages.rows(session, 5, second.previous if is_backwards else first.next)
    back = await pages.rows(session, 5, empty.next if is_backwards else empty.previous)

    assert (second.rows, empty.rows) == ([6, 7, 8, 9], [])
    assert None in (empty.next, empty.previous)
    assert back.rows == ([6, 7, 8, 9, 100] if is_backwards else [1, 2, 3, 4, 5])
    assert (back.previous, back.next) == (None, None)


@pytest.mark.parametrize(
    "cursor",
    ["", "=", "a", "abc", "é", "\0", "x" * 10_000, "../../etc/passwd", "AQ", "Ag" + "A" * 20],
)
async def test_what_is_no_cursor_is_refused(session: AsyncSession, cursor: str) -> None:
    """Before PostgreSQL is asked, and without an echo."""
    pages = Pages(select(Seen), order_by=BY_TIME)
    with pytest.raises(CursorError, match=r"seen\.created_at .*Begin without a cursor") as failure:
        await pages.rows(session, 5, cursor)

    assert not session.in_transaction()
    assert len(cursor) < 10 or cursor not in str(failure.value)


async def test_a_cursor_belongs_to_one_order(session: AsyncSession) -> None:
    """One of another order, direction or table is refused, and one of which a letter is changed."""
    first = await Pages(select(Seen), order_by=BY_TIME).rows(session, 5)
    assert first.next is not None
    for other in (
        Pages(select(Seen), order_by=[Seen.created_at]),
        Pages(select(Seen), order_by=[Seen.team.desc()]),
        Pages(select(Seen), order_by=[func.coalesce(Seen.team, 1).desc()]),
        Pages(select(Thing), order_by=[Thing.moment.desc()]),
    ):
        with pytest.raises(CursorError, match="belongs to another order"):
            await other.rows(session, 5, first.next)
    changed = first.next[:20] + ("B" if first.next[20] == "A" else "A") + first.next[21:]
    with pytest.raises(CursorError, match="it was changed"):
        await Pages(select(Seen), order_by=BY_TIME).rows(session, 5, changed)
    same = JSONPages(select(Seen), SeenSchema, order_by=[Seen.created_at.desc(), Seen.id.desc()])
    assert (await same.read(session, 5, first.next)).previous is not None


@pytest.mark.parametrize("content", [("1", "2"), (1,), ([],), (None,)])
async def test_a_cursor_that_was_forged_is_refused(
    session: AsyncSession, content: tuple[Any, ...]
) -> None:
    """Its values are text, as many as the order has columns."""
    pages = Pages(select(Seen), order_by=[Seen.id])
    forged = write_cursor(Position(key=content), "seen.id INTEGER")
    with pytest.raises(CursorError, match="made by somebody else"):
        await pages.rows(session, 5, forged)


@pytest.mark.parametrize("limit", [-1, 0, 101])
async def test_a_page_has_a_size(session: AsyncSession, limit: int) -> None:
    """From one row to the maximum."""
    with pytest.raises(LimitError, match=f"1 to 100 rows, not {limit}"):
        await Pages(select(Seen), order_by=[]).rows(session, limit)
    with pytest.raises(LimitError):
        await JSONPages(select(Seen), SeenSchema, order_by=[]).read(session, limit)


async def test_a_select_may_have_parameters_and_columns(session: AsyncSession) -> None:
    """Its values come with each call; several columns are a row of these."""
    few = select(Seen.id, Seen.name).where(Seen.team == bindparam("team"))
    pages = Pages(few, order_by=[Seen.id])
    first = await pages.rows(session, 2, team=7)
    second = await pages.rows(session, 1, first.next, team=7)

    assert [(row.id, row.name) for row in first.rows] == [(7, "name 0"), (57, "name 1")]
    assert [tuple(row) for row in second.rows] == [(107, "name 2")]


async def test_a_joined_table_adds_its_key_only_where_it_repeats_rows(
    session: AsyncSession,
) -> None:
    """One that is joined by its key is one row at most; others are told apart by theirs."""
    of_one = select(Visit.id, Seen.name).join(Seen, Seen.id == Visit.seen_id)
    of_many = select(Seen.id, Visit.place).join(Visit, Visit.seen_id == Seen.id)
    other = aliased(Visit)
    of_both = of_many.join(other, other.seen_id == Seen.id).add_columns(other.id)

    for statement, order_by, columns in (
        (of_one, [Seen.name], "seen.name VARCHAR, visits.id INTEGER"),
        (of_one, [Visit.id], "visits.id INTEGER"),
        (of_many, [Seen.email], "seen.email VARCHAR, visits.id INTEGER"),
        (of_both, [], "seen.id INTEGER, visits.id INTEGER, visits_1.id INTEGER"),
    ):
        found: list[tuple[Any, ...]] = []
        pages = Pages(statement, order_by=order_by)
        cursor = None
        while not found or cursor is not None:
            page = await pages.rows(session, 7, cursor)
            found += [tuple(row) for row in page.rows]
            cursor = page.next
        whole = [tuple(row) for row in await session.execute(statement)]
        assert sorted(found) == sorted(whole)
        assert pages._keyset._order.text == columns


def test_an_order_relies_on_what_is_unique_at_any_time_in_every_row() -> None:
    """A constraint that is checked later, a part of the rows and an expression add the key."""
    for column in (Slot.place, Slot.part, Slot.word):
        pages = Pages(select(Slot), order_by=[column])
        assert pages._keyset._order.text.endswith(", slots.id INTEGER")


async def test_a_value_is_not_rounded_to_the_scale_of_a_column(session: AsyncSession) -> None:
    """An expression may have more digits than its type says."""
    prices = [Decimal("0.01"), Decimal("0.02"), Decimal("0.03")]
    session.add_all(
        Slot(id=-n, place=n, part=n, word=str(n), price=price) for n, price in enumerate(prices)
    )
    await session.flush()
    pages = Pages(select(Slot.price), order_by=[Slot.price * Slot.price])
    first = await pages.rows(session, 1)
    second = await pages.rows(session, 1, first.next)

    assert [first.rows, second.rows] == [prices[:1], prices[1:2]]


async def test_rows_of_a_subquery_are_told_apart_by_a_key(session: AsyncSession) -> None:
    """What is no table has a key of which the caller knows."""
    counted = select(Visit.seen_id, func.count().label("visits")).group_by(Visit.seen_id).subquery()
    statement = select(counted.c.seen_id, counted.c.visits)
    pages = Pages(statement, order_by=[counted.c.visits.desc()], key=[counted.c.seen_id])
    first = await pages.rows(session, 5)
    second = await pages.rows(session, 5, first.next)

    assert [tuple(row) for row in [*first.rows, *second.rows]] == [
        (5, 5), (4, 5), (3, 5), (2, 5), (9, 4), (8, 4), (7, 4), (6, 4), (1, 4),
    ]  # fmt: skip


async def test_a_key_is_exact_in_any_style_of_dates(session: AsyncSession) -> None:
    """What one connection wrote, another one reads, whatever its settings are."""
    pages = Pages(select(Seen.id), order_by=BY_TIME)
    await session.execute(text("SET LOCAL datestyle TO 'SQL, DMY'"))
    await session.execute(text("SET LOCAL timezone TO 'Asia/Kolkata'"))
    first = await pages.rows(session, 5)
    await session.execute(text("SET LOCAL datestyle TO 'Postgres, MDY'"))
    await session.execute(text("SET LOCAL timezone TO 'America/Caracas'"))
    second = await pages.rows(session, 5, first.next)

    assert [*first.rows, *second.rows] == list(range(LARGE, LARGE - 10, -1))


async def test_a_page_of_json_is_one_statement_that_holds_no_connection(url: str) -> None:
    """In a read session it is one round trip, without a transaction."""
    manager = DatabaseSessionManager()
    manager.init(url)
    pages = JSONPages(select(Seen), SeenSchema, order_by=BY_TIME)
    pool: Any = manager.read_engine.pool
    async with manager.session(read_only=True) as session:
        ran = Ran(session)
        first = await pages.read(session, 2)
        second = await pages.read(session, 1, first.next)
        ran.stop()
        assert (pool.checkedout(), session.in_transaction()) == (0, False)
    await manager.close()

    assert first.body == b'[{"id":50000,"name":"name 6"}, {"id":49999,"name":"name 5"}]'
    assert second.body == b'[{"id":49998,"name":"name 4"}]'
    assert len(ran.statements) == 2


Other = aliased(Seen)
COUNTED = select(Visit.seen_id, func.count().label("visits")).group_by(Visit.seen_id).subquery()


@pytest.mark.parametrize(
    ("statement", "order_by", "message"),
    [
        (select(Thing), [Thing.note], r"things\.note may be NULL.*coalesce"),
        (select(Thing), [func.lower(Thing.note, type_=String)], "may be NULL"),
        (select(Thing), [func.coalesce(Thing.note, Thing.note)], "may be NULL"),
        (select(Thing), [func.lower(Thing.name)], "has no type"),
        (select(Thing), [Thing.name.desc().nulls_last()], "no NULL that could be"),
        (select(Thing), ["name"], "order_by has name"),
        (select(Thing, Seen.id).join(Seen, isouter=True, onclause=Seen.team == Thing.place), [],
         r"seen\.id may be NULL"),
        (select(Visit).join(Other, Other.id == Visit.seen_id, isouter=True), [Other.name],
         "may be NULL"),
        (select(Visit).join(Other, Other.id == Visit.seen_id, full=True), [], "may be NULL"),
        (select(COUNTED), [COUNTED.c.seen_id], r"no table with a primary key.*key="),
        (select(Thing).order_by(Thing.id), [], "its own ORDER BY"),
        (select(Thing).limit(1), [], "its own LIMIT"),
        (select(Thing).offset(1), [], "its own OFFSET"),
        (select(Thing.name).group_by(Thing.name), [Thing.name], "its own GROUP BY"),
        (select(Thing.name).distinct(), [Thing.name], "its own DISTINCT"),
    ],
)  # fmt: skip
def test_what_has_no_total_order_is_refused(
    statement: AnySelect, order_by: Sequence[Any], message: str
) -> None:
    """It is an error where the pages are declared, and not a row that is skipped."""
    with pytest.raises(ConfigurationError, match=message):
        Pages(statement, order_by=order_by)


def test_a_column_that_may_be_null_has_a_place_by_coalesce() -> None:
    """The value in place of NULL is the caller's choice."""
    by_note = func.coalesce(Thing.note, "").label("note")

    assert Pages(select(Thing), order_by=[by_note.desc()])


def test_a_maximum_is_at_least_one() -> None:
    """A page of no rows leads nowhere."""
    with pytest.raises(ConfigurationError, match="maximum is 0"):
        Pages(select(Thing), order_by=[], maximum=0)
