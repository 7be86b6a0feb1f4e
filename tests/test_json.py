"""Selects that PostgreSQL answers as JSON: what they mean is what Pydantic writes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum as PyEnum
from enum import IntEnum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    StringConstraints,
    TypeAdapter,
    computed_field,
    create_model,
    field_validator,
    model_validator,
)
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Date,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Numeric,
    String,
    Time,
    bindparam,
    func,
    literal_column,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from sqlalchemy.pool import NullPool

from stillroom.errors import ConfigurationError
from stillroom.joins import AnySelect
from stillroom.json import JSONSelect, array_of, object_of
from tests.conftest import DRIVERS, NewDatabase


class Base(DeclarativeBase):
    """The base of the models."""


class Colour(PyEnum):
    """An enum whose names are stored, and whose values are sent."""

    RED = "red"
    DARK_BLUE = "dark blue"


class Size(IntEnum):
    """An enum of integers."""

    SMALL = 1
    LARGE = 10


class Owner(Base):
    """Who has things."""

    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Thing(Base):
    """A column of each type that PostgreSQL writes as Pydantic does."""

    __tablename__ = "things"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    place: Mapped[int] = mapped_column(BigInteger, default=0)
    text: Mapped[str | None]
    flag: Mapped[bool | None]
    real: Mapped[float | None] = mapped_column(Double)
    amount: Mapped[Decimal | None] = mapped_column(Numeric(30, 10))
    moment: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    naive: Mapped[datetime | None] = mapped_column(DateTime)
    day: Mapped[date | None]
    hour: Mapped[time | None]
    colour: Mapped[Colour | None]
    size: Mapped[Size | None]
    kind: Mapped[str | None] = mapped_column(Enum("one", "other", name="kind"))
    numbers: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    words: Mapped[list[str] | None] = mapped_column(ARRAY(String))
    data: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)
    blob: Mapped[bytes | None]
    span: Mapped[timedelta | None]
    zoned: Mapped[time | None] = mapped_column(Time(timezone=True))


# Within a day of what Python has: the driver makes each of them a time of UTC.
MOMENTS = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.timezones(),
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
BIG = st.integers(-(2**63), 2**63 - 1)
SCALAR = st.none() | st.booleans() | TEXT | st.integers(-(10**12), 10**12)
VALUES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "place": (int, BIG),
    "text": (str, TEXT),
    "flag": (bool, st.booleans()),
    "real": (float, st.floats()),
    "amount": (Decimal, st.decimals(-(10**19), 10**19, places=10)),
    "moment": (datetime, MOMENTS),
    "naive": (datetime, st.datetimes()),
    "day": (date, st.dates()),
    "hour": (time, st.times()),
    "colour": (Colour, st.sampled_from(Colour)),
    "size": (Size, st.sampled_from(Size)),
    "kind": (Literal["one", "other"], st.sampled_from(["one", "other"])),
    "numbers": (list[int], st.lists(BIG, max_size=4)),
    "words": (list[str], st.lists(TEXT, max_size=4)),
    "data": (Any, st.dictionaries(TEXT, SCALAR, max_size=3) | st.lists(SCALAR, max_size=3)),
}
"""For each column what a model says of it, and values."""

MODELS = st.lists(st.sampled_from(sorted(VALUES)), min_size=1, unique=True)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            name: values if name == "place" else st.none() | values
            for name, (_, values) in VALUES.items()
        }
    ),
    max_size=4,
)


@pytest.fixture(scope="module", params=DRIVERS)
def url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """Give the URL of a database with the tables, for each driver in turn."""
    url = new_database().replace("postgresql://", f"postgresql+{request.param}://")

    async def create() -> None:
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    asyncio.run(create())
    return url


@pytest.fixture
async def session(url: str) -> AsyncIterator[AsyncSession]:
    """Give a session whose work is rolled back."""
    async with AsyncSession(create_async_engine(url, poolclass=NullPool)) as session:
        yield session


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=MODELS, rows=ROWS, is_aliased=st.booleans())
def test_it_means_what_pydantic_writes(
    url: str, names: list[str], rows: list[dict[str, Any]], is_aliased: bool
) -> None:
    """Whatever the model and the rows are, both answers read alike."""
    model = _model(names, is_aliased=is_aliased)
    statement = select(Thing).order_by(Thing.place, Thing.id)

    async def all_three() -> tuple[bytes, bytes, bytes]:
        engine = create_async_engine(url, poolclass=NullPool)
        async with AsyncSession(engine) as session:
            session.add_all(Thing(**row) for row in rows)
            await session.flush()
            session.expire_all()
            found = (await session.scalars(statement)).all()
            plain = [model.model_validate(row) for row in found]
            select_ = JSONSelect(statement, model)
            return (
                await select_.all(session),
                b"".join([part async for part in select_.in_lines(session, 10)]),
                TypeAdapter(list[Any]).dump_json(plain, by_alias=True),
            )

    ours, lines, pydantics = asyncio.run(all_three())
    expected = _read(pydantics, names, is_aliased=is_aliased)
    assert _read(ours, names, is_aliased=is_aliased) == expected
    array = b"[" + lines.replace(b"\n", b",") + b"]"
    assert _read(array, names, is_aliased=is_aliased) == expected


def _model(names: list[str], *, is_aliased: bool) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name in names:
        kind = VALUES[name][0]
        alias = _alias(name) if is_aliased else None
        fields[name] = (kind if name == "place" else kind | None, Field(serialization_alias=alias))
    config = ConfigDict(from_attributes=True)
    return create_model("Generated", __config__=config, **fields)


def _alias(name: str) -> str:
    """Return a name that has what means something to SQL, to a driver or to JSON."""
    return f"{name}: it's 9 %(s), :1, $1, \\, 'ü', \"q\""


def _read(answer: bytes, names: list[str], *, is_aliased: bool) -> list[dict[str, Any]]:
    """Return what the objects mean: times and numbers by value, whatever their digits."""
    readers = {"moment": datetime.fromisoformat, "naive": datetime.fromisoformat,
               "hour": time.fromisoformat, "amount": Decimal}  # fmt: skip
    objects: list[dict[str, Any]] = json.loads(answer)
    for found in objects:
        assert list(found) == [_alias(name) if is_aliased else name for name in names]
        for name, reader in readers.items():
            key = _alias(name) if is_aliased else name
            if found.get(key) is not None:
                assert isinstance(found[key], str)
                found[key] = reader(found[key])
    return objects


class ThingSchema(BaseModel):
    """A thing as others see it."""

    id: UUID
    text: str | None


class OwnerSchema(BaseModel):
    """An owner and their things."""

    name: str
    things: list[ThingSchema]
    first: ThingSchema | None


THINGS = select(Thing).where(Thing.owner_id == Owner.id).order_by(Thing.place)
OWNERS = select(
    Owner,
    array_of(THINGS, ThingSchema, of=Owner).label("things"),
    object_of(THINGS, ThingSchema, of=Owner).label("first"),
).order_by(Owner.id)


async def test_rows_within_rows(session: AsyncSession) -> None:
    """A relationship is a sub-select; who has nothing has an empty array, and no object."""
    session.add_all([Owner(id=1, name='Ada "the first"'), Owner(id=2, name="Nobody")])
    await session.flush()
    session.add_all([Thing(owner_id=1, place=2, text="b"), Thing(owner_id=1, place=1, text="a")])
    await session.flush()

    found = json.loads(await JSONSelect(OWNERS, OwnerSchema).all(session))

    assert [owner["name"] for owner in found] == ['Ada "the first"', "Nobody"]
    assert [thing["text"] for thing in found[0]["things"]] == ["a", "b"]
    assert found[0]["first"] == found[0]["things"][0]
    assert found[1] == {"name": "Nobody", "things": [], "first": None}


async def test_a_statement_is_made_once_and_its_values_come_later(session: AsyncSession) -> None:
    """A row is an object; none is None, and an empty list an array."""
    session.add(Owner(id=7, name="Ada"))
    await session.flush()
    one = JSONSelect(select(Owner).where(Owner.id == bindparam("id")), _Named)

    assert await one.first(session, id=7) == b'{"name":"Ada"}'
    assert await one.first(session, id=8) is None
    assert await one.all(session, id=8) == b"[]"


async def test_many_rows_come_in_parts(session: AsyncSession) -> None:
    """Together they are objects with commas or breaks between them, however many there are."""
    every = JSONSelect(
        select(Owner).where(Owner.id < bindparam("end")).order_by(Owner.id.desc()), _Named
    )
    session.add_all(Owner(id=number, name=str(number)) for number in range(20_000))
    for number in (0, 3, 2, 20_000, 1, 3, 2):  # the last answer decides how the next is asked for
        names = [f'{{"name":"{it}"}}' for it in reversed(range(number))]
        parts = [part async for part in every.in_parts(session, 2, end=number)]
        assert b"".join(parts).decode() == ",".join(names)
        assert (len(parts) > 1) == (number == 20_000)
        lines = [part async for part in every.in_lines(session, 2, end=number)]
        assert b"".join(lines).decode() == "\n".join(names)


async def test_what_is_infinite_is_what_asyncpg_makes_of_it(session: AsyncSession) -> None:
    """To asyncpg the first and the last value of Python are infinity, in both directions."""
    ends = JSONSelect(
        select(
            literal_column("'-infinity'::date", Date).label("day"),
            literal_column("'infinity'::timestamptz", DateTime(timezone=True)).label("moment"),
            literal_column("'infinity'::timestamp", DateTime).label("naive"),
        ),
        create_model("Ends", day=(date, ...), moment=(datetime, ...), naive=(datetime, ...)),
    )
    found = json.loads(await ends.first(session) or b"")

    assert found == {
        "day": "0001-01-01",
        "moment": "9999-12-31T23:59:59.999999Z",
        "naive": "9999-12-31T23:59:59.999999",
    }


async def test_a_line_is_one_line_whatever_is_in_it(session: AsyncSession) -> None:
    """What COPY would quote or escape comes as it is, and JSON that was stored with breaks too."""
    name = 'a "b" \\ \\n \r\n \t \x01 \x02 , ü €'
    session.add(Owner(id=1, name=name))
    await session.flush()
    raw = text("SELECT '{\n\"a\":\r\n1}'::json AS data").columns(data=JSON).subquery()
    stored = select(Owner.name, raw.c.data).join(raw, true())
    line = JSONSelect(stored, create_model("Line", name=(str, ...), data=(Any, ...)))

    for size in (1, 0):
        parts = [part async for part in line.in_lines(session, size)]
        assert b"\n" not in parts[0]
        assert json.loads(b"".join(parts)) == {"name": name, "data": {"a": 1}}


async def test_a_sign_of_percent_is_one_in_every_answer(session: AsyncSession) -> None:
    """The drivers disagree on what it means in a statement, and in one with values."""
    session.add(Owner(id=1, name="50 %"))
    await session.flush()
    half = create_model("Half", name=(str, Field(serialization_alias="a%s")))
    for of in (select(Owner.name), select(Owner.name).where(Owner.name.like("%0 \\%"))):
        line = JSONSelect(of, half)
        for size in (1, 0):
            parts = [part async for part in line.in_lines(session, size)]
            assert json.loads(b"".join(parts)) == {"a%s": "50 %"}


@pytest.mark.parametrize("ends", [True, False])
async def test_a_copy_leaves_the_session_as_it_was(session: AsyncSession, ends: bool) -> None:
    """With its transaction and its timeout, also where the reader stops in the middle."""
    session.add_all(Owner(id=number, name="n" * 100) for number in range(5000))
    await session.execute(text("SET LOCAL statement_timeout = '7s'"))
    every = JSONSelect(select(Owner), _Named)

    async with aclosing(every.in_lines(session, 1)) as parts:
        async for _ in parts:
            if not ends:
                break

    if ends:
        assert await session.scalar(text("SHOW statement_timeout")) == "7s"
        assert await session.scalar(select(func.count()).select_from(Owner)) == 5000
    else:
        await session.rollback()
        assert await session.scalar(select(func.count()).select_from(Owner)) == 0


async def test_an_error_in_mid_copy_is_raised(session: AsyncSession) -> None:
    """What came before it is no whole answer."""
    session.add_all(Owner(id=number, name="n" * 100) for number in range(5000))
    wrong = select((1 / (4000 - Owner.id)).label("n"))
    every = JSONSelect(wrong, create_model("Number", n=(Decimal, ...)))

    with pytest.raises(Exception, match="division by zero"):
        async for _ in every.in_lines(session, 1):
            pass


async def test_a_column_may_be_an_expression(session: AsyncSession) -> None:
    """Joins, groups, functions and limits are the select's own matter."""
    session.add_all([Owner(id=1, name="a"), Owner(id=2, name="b")])
    await session.flush()
    session.add_all(Thing(owner_id=1) for _ in range(3))
    await session.flush()
    statement = (
        select(
            func.upper(Owner.name, type_=String).label("name"), func.count(Thing.id).label("things")
        )
        .join(Thing, isouter=True)
        .group_by(Owner.id)
        .order_by(func.count(Thing.id).desc())
        .limit(1)
    )
    counted = create_model("Counted", name=(str, ...), things=(int, ...))

    assert await JSONSelect(statement, counted).all(session) == b'[{"name":"A","things":3}]'


class _Named(BaseModel):
    name: str


def _field(name: str, kind: Any) -> tuple[AnySelect, type[BaseModel]]:
    fields: dict[str, Any] = {name: (kind, ...)}
    return select(Thing), create_model("Model", **fields)


class _Id(BaseModel):
    id: UUID


class _Computed(BaseModel):
    @computed_field
    def name(self) -> str:
        return "Ada"


class _Validated(BaseModel):
    text: str | None

    @field_validator("text")
    @classmethod
    def shout(cls, text: str) -> str:
        return text.upper()


class _Checked(BaseModel):
    text: str | None

    @model_validator(mode="after")
    def look(self) -> "_Checked":
        return self


class _Stripped(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)

    text: str | None


def _shout(text: str | None) -> str | None:
    return text and text.upper()


_Other = aliased(Owner)


@pytest.mark.parametrize(
    ("statement", "model", "message"),
    [
        (*_field("nothing", str), r"Model\.nothing: the select has no column of this name; it has"),
        (*_field("text", str), r"Model\.text: the column may be NULL, and the model says never"),
        (*_field("text", int | None), r"the model says int, and the column is String\(\)"),
        (*_field("place", str), "the model says str"),
        (*_field("colour", str | None), "the model says str"),
        (*_field("colour", Size | None), "not the enum Size"),
        (*_field("kind", Literal["one"] | None), "the model says literal"),
        (*_field("text", Literal["one"] | None), "the model says literal"),
        (*_field("blob", bytes | None), "the model says bytes"),
        (*_field("span", timedelta | None), "the model says timedelta"),
        (*_field("zoned", time | None), "the model says time"),
        (*_field("words", list[int] | None), "the model says list"),
        (*_field("numbers", list[float] | None), "the model says list"),
        (*_field("data", _Named | None), r"make the column with object_of\(\)"),
        (*_field("data", list[_Named] | None), "the model says list"),
        (
            *_field("text", Annotated[str | None, StringConstraints(to_upper=True)]),
            "to_upper changes the value",
        ),
        (*_field("text", Annotated[str | None, AfterValidator(_shout)]), "a validator"),
        (*_field("text", Annotated[str | None, PlainSerializer(_shout)]), "a serializer"),
        (select(func.upper(Owner.name).label("name")), _Named, "the expression has no type"),
        (select(Owner), _Computed, r"_Computed\.name: it is computed in Python"),
        (select(Thing), _Validated, "a validator"),
        (select(Thing), _Checked, "a validator"),
        (select(Thing), _Stripped, "str_strip_whitespace"),
        (select(Thing), RootModel[int], "a root"),
        (
            select(Thing.id, Owner.name).join(Owner, isouter=True),
            _Named,
            "the column may be NULL",
        ),
        (
            select(_Other.name).select_from(Thing).join(_Other, isouter=True),
            _Named,
            "the column may be NULL",
        ),
        (select(Owner.name).join(Thing, full=True), _Named, "the column may be NULL"),
        (
            select(Owner.name, array_of(THINGS, _Id, of=Owner).label("things")),
            OwnerSchema,
            r"make the column with array_of\(\)",
        ),
    ],
)  # fmt: skip
def test_what_would_mean_something_else_is_refused(
    statement: AnySelect, model: type[BaseModel], message: str
) -> None:
    """It is an error where the select is declared, with the field's name, and not in a request."""
    with pytest.raises(ConfigurationError, match=message):
        JSONSelect(statement, model)
