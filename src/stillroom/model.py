"""The declarative base: names for constraints, and the queries that every model has."""

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, Self, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Integer,
    MetaData,
    Select,
    SmallInteger,
    bindparam,
    inspect,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, DeclarativeBaseNoMeta, Mapper
from sqlalchemy.types import TypeEngine

from stillroom.bulk import On, Row, Rows, create_many, upsert, upsert_many

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""The name of each constraint, so that a migration can drop it and an error can name it.

https://docs.sqlalchemy.org/en/21/core/constraints.html#configuring-constraint-naming-conventions
"""


class Model:
    """Give a declarative base its naming convention, and its models their queries.

    Write ``class Base(Model, DeclarativeBase)``; each such base has metadata of its own. The
    queries flush and never commit: who opened the session decides that. What PostgreSQL fills in
    (defaults, triggers) is read back by INSERT ... RETURNING and UPDATE ... RETURNING.
    """

    metadata: ClassVar[MetaData]
    __mapper_args__: Any = {"eager_defaults": True}  # noqa: RUF012 - SQLAlchemy takes a plain dict

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Name the constraints of a new declarative base; keep the defaults of a model's mapper."""
        bases = [base for base in cls.__bases__ if base in _DECLARATIVE_BASES]
        if bases and cls.__mro__.index(Model) > cls.__mro__.index(bases[0]):
            msg = f"class {cls.__name__}(Model, {bases[0].__name__}): Model stands first"
            raise TypeError(msg)
        if bases and "metadata" not in vars(cls):
            cls.metadata = MetaData(naming_convention=NAMING_CONVENTION)
        own = vars(cls).get("__mapper_args__")
        if isinstance(own, dict):
            cls.__mapper_args__ = {"eager_defaults": True, **cast("dict[str, Any]", own)}
        super().__init_subclass__(**arguments)

    @classmethod
    async def create(cls, session: AsyncSession, /, **values: Any) -> Self:
        """Insert a row and return it with what PostgreSQL filled in; nothing is committed.

        Raises sqlalchemy.exc.IntegrityError when a constraint refuses the row.
        """
        row = cls(**values)
        session.add(row)
        await session.flush()
        return row

    @classmethod
    async def create_many(cls, session: AsyncSession, rows: Rows, /) -> int:
        """Insert rows by COPY and return their number; nothing is committed.

        A row is a dict by the names of attributes; `rows` may be a generator, asynchronous or not,
        of any length: memory stays that of a few rows. No object is made, so no validator and no
        event of the ORM sees them. Python's defaults are evaluated for each row, PostgreSQL's are
        left to it. Rows that leave other columns to it than the one before begin a new COPY; the
        few things that a COPY cannot write are written by INSERT. All of it is one statement to
        `statement_timeout`.

        Raises RowError, with the number of the row, for an attribute that the model does not have
        or that is missing; else what an INSERT raises, as IntegrityError. After any error and after
        a cancellation the session has to be rolled back.
        """
        return await create_many(session, inspect(cls, raiseerr=True), rows)

    @classmethod
    async def upsert(cls, session: AsyncSession, values: Row, /, *, on: On) -> Self:
        """Insert a row, or change the one that is there, and return it; nothing is committed.

        `on` says what makes two rows one: an attribute, several, or the name of a constraint or of
        a unique index, also of one on an expression. What is given is changed, and what has an
        `onupdate`, but never the primary key. Raises ConfigurationError for an `on` that the
        model does not have, RowError for such an attribute, and what `create` raises.
        """
        return await upsert(session, inspect(cls, raiseerr=True), values, on)

    @classmethod
    async def upsert_many(cls, session: AsyncSession, rows: Rows, /, *, on: On) -> int:
        """Insert or change rows, a thousand by a statement, and return their number.

        Rows and their errors are those of `create_many`, what is changed is that of `upsert`.
        Objects that the session holds already stay as they are. PostgreSQL refuses (21000) two rows
        of one statement that are one.
        """
        return await upsert_many(session, inspect(cls, raiseerr=True), rows, on)

    @classmethod
    async def get(cls, session: AsyncSession, id: Any) -> Self | None:
        """Return the row with this primary key, or None.

        What is no UUID, no integer of the column's size, or no text for a key of such a type is
        nobody's key: it finds nothing, and PostgreSQL is not asked. A composite key is a tuple in
        the order of the table's columns.
        """
        key = cls.key(id)
        return None if key is None else await session.get(cls, tuple(key.values()))

    @classmethod
    def key(cls, id: Any) -> dict[str, Any] | None:
        """Return the values of the primary key by the attributes; None for what is nobody's key."""
        entity: Any = cls
        columns = _primary_key(entity)
        parts: tuple[Any, ...] = id if isinstance(id, tuple) else (id,)  # pyright: ignore[reportUnknownVariableType]
        if len(parts) != len(columns):
            msg = f"The primary key of {cls.__name__} has {len(columns)} columns, not {len(parts)}"
            raise TypeError(msg)
        key = {name: read(part) for (name, read), part in zip(columns, parts, strict=True)}
        return None if None in key.values() else key

    @classmethod
    def row(cls) -> Select[Self]:
        """Return the select of one row, whose parameters are its primary key, as `key` has it."""
        mapper = inspect(cls, raiseerr=True)
        names = {column: mapper.get_property_by_column(column).key for column in mapper.primary_key}
        return select(cls).where(
            *(column == bindparam(name, type_=column.type) for column, name in names.items())
        )

    @classmethod
    def every_row(cls) -> Select[Self]:
        """Return the select of every row, in the order of the primary key."""
        return select(cls).order_by(*inspect(cls, raiseerr=True).primary_key)

    @classmethod
    async def get_all(cls, session: AsyncSession) -> Sequence[Self]:
        """Return every row, in the order of the primary key, all of them in memory."""
        return (await session.scalars(cls.every_row())).all()

    @classmethod
    async def get_all_in_parts(
        cls, session: AsyncSession, size: int
    ) -> AsyncGenerator[Sequence[Self]]:
        """Read every row through a server-side cursor, `size` rows at a time.

        Memory stays that of one part: a session holds a row only as long as somebody else does.
        """
        rows = await session.stream_scalars(cls.every_row(), execution_options={"yield_per": size})
        try:
            # Without a size of its own `partitions` would read the whole table at once.
            async for part in rows.partitions(size):
                yield part
        finally:
            await rows.close()


_DECLARATIVE_BASES = (DeclarativeBase, DeclarativeBaseNoMeta)
_INTEGERS: dict[type[Integer], int] = {SmallInteger: 15, BigInteger: 63, Integer: 31}


@lru_cache(maxsize=1024)
def _primary_key(entity: type[Any]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """Return the attributes of the primary key, each with what reads a value of it."""
    mapper: Mapper[Any] = inspect(entity, raiseerr=True)
    return tuple(
        (mapper.get_property_by_column(column).key, _reader(column.type))
        for column in mapper.primary_key
    )


def _reader(kind: TypeEngine[Any]) -> Callable[[Any], Any]:
    """Return what makes the Python type of a value, or None where it has no such value."""
    python_type = kind.python_type
    if python_type is UUID:
        return _uuid
    if python_type is int and isinstance(kind, Integer):
        bits = next(bits for known, bits in _INTEGERS.items() if isinstance(kind, known))
        return partial(_integer, 1 << bits)
    return _text if python_type is str else _as_it_is


def _uuid(value: Any) -> UUID | None:
    if isinstance(value, UUID):
        return value
    # UUID() also reads braces, "urn:uuid:" and dashes anywhere; PostgreSQL writes 8-4-4-4-12.
    is_uuid = isinstance(value, str) and _UUID.fullmatch(value) is not None
    return UUID(value) if is_uuid else None


def _integer(end: int, value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -end <= value < end else None


def _text(value: Any) -> str | None:
    is_text = isinstance(value, str) and _NO_TEXT.search(value) is None
    return value if is_text else None


def _as_it_is(value: Any) -> Any:
    return value


_UUID = re.compile(r"[0-9A-Fa-f]{8}(-?)(?:[0-9A-Fa-f]{4}\1){3}[0-9A-Fa-f]{12}")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # PostgreSQL has no NUL, UTF-8 no lone surrogate
