"""Selects that PostgreSQL answers as JSON: no row, no object and no model in between.

``users = JSONSelect(select(User).order_by(User.id), UserSchema)`` is made once, beside the view,
and ``await users.all(session)`` are bytes that mean what FastAPI would have sent for the same rows.
The model documents the answer; whether the select has what it says is looked at when it is made.
"""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from pydantic import BaseModel
from sqlalchemy import (
    ColumnElement,
    Join,
    LargeBinary,
    Subquery,
    Text,
    cast,
    func,
    inspect,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.json.conversion import JSONOf, convert, fields_of, mismatch, takes_null
from stillroom.json.statement import AnySelect, ReadyStatement
from stillroom.model import Model
from stillroom.session import ServiceSession


class JSONSelect:
    """Answer a select as JSON in the form of a Pydantic model.

    Each field takes the column of its name; columns that the model does not have are not sent. A
    field that is a model, or a list of them, takes a column made by `object_of` or `array_of`. The
    JSON has the names of serialization (an alias where there is one) and the types of the model:
    a Decimal is a string, a time with its zone is in UTC, NaN is null.

    Raises ConfigurationError where a field has no column, or one whose JSON could mean something
    else than what Pydantic writes: another type, NULL where the model has none, a validator or
    serializer of the model's own.
    """

    def __init__(self, statement: AnySelect, model: type[BaseModel]) -> None:
        """Take a select, whose bind parameters get their values later, and the model."""
        rows = _rows(statement, model)
        self._each = select(_utf8(_object(rows)))
        self._first = ReadyStatement(self._each.limit(literal_column("1")))
        self._all = ReadyStatement(select(_utf8(_array(rows))))

    async def first(self, session: AsyncSession, /, **values: Any) -> bytes | None:
        """Return the first row as an object, or None where there is no row."""
        return await _read(session, self._first, values)

    async def all(self, session: AsyncSession, /, **values: Any) -> bytes:
        """Return all rows as an array, in the order of the select; PostgreSQL holds it whole."""
        return await _read(session, self._all, values) or b"[]"

    async def in_parts(
        self, session: AsyncSession, size: int, /, **values: Any
    ) -> AsyncGenerator[bytes]:
        """Read every row through a server-side cursor, `size` rows at a time.

        A part is its objects with commas between them. Memory stays that of one part.
        """
        options = {"yield_per": size}
        rows = await session.stream_scalars(self._each, values, execution_options=options)
        try:
            async for part in rows.partitions(size):
                yield b",".join(part)
        finally:
            await rows.close()


class JSONRow:
    """Answer the row that has a primary key as JSON in the form of a Pydantic model.

    ``user = JSONRow(User, UserSchema)`` is made once, and ``await user.get(session, id)`` gives the
    bytes. It raises what `JSONSelect` raises.
    """

    def __init__(self, entity: type[Model], model: type[BaseModel]) -> None:
        """Take a model of the database, and one of the answer."""
        self._entity = entity
        self._select = JSONSelect(entity.row(), model)

    async def get(self, session: AsyncSession, id: Any, /) -> bytes | None:
        """Return the row as an object, or None where there is no such row, as `Model.get` does."""
        key = self._entity.key(id)
        return None if key is None else await self._select.first(session, **key)


def array_of(statement: AnySelect, model: type[BaseModel], *, of: Any) -> ColumnElement[Any]:
    """Make a column that has the rows of another select, as an array of objects.

    `of` is what the select is about a row of: a model or table of the outer select.
    ``array_of(select(User).where(User.team_id == Team.id), UserSchema, of=Team).label("members")``
    """
    rows = select(_array(_rows(statement.correlate(of), model)))
    return type_coerce(rows.scalar_subquery(), JSONOf(model, True))


def object_of(statement: AnySelect, model: type[BaseModel], *, of: Any) -> ColumnElement[Any]:
    """Make a column that has the first row of another select, as an object; else as `array_of`.

    Where the select has no row the column is NULL.
    """
    rows = select(_object(_rows(statement.correlate(of), model))).limit(1)
    return type_coerce(rows.scalar_subquery(), JSONOf(model, False))


async def _read(
    session: AsyncSession, statement: ReadyStatement, values: dict[str, Any]
) -> bytes | None:
    found: bytes | None
    if isinstance(session, ServiceSession):
        found = await session.with_connection(lambda it: statement.scalar(it, values))
    else:  # it may have an engine for each model
        found = await session.scalar(statement.select, values)
    return found


def _object(rows: Subquery) -> ColumnElement[Any]:
    return func.row_to_json(rows.table_valued())


def _array(rows: Subquery) -> ColumnElement[Any]:
    return func.coalesce(func.json_agg(_object(rows)), literal_column("'[]'::json"))


def _utf8(json: ColumnElement[Any]) -> ColumnElement[bytes]:
    # As bytes: the drivers would decode text, which is encoded again for the response.
    return func.convert_to(cast(json, Text), literal_column("'UTF8'"), type_=LargeBinary)


def _rows(statement: AnySelect, model: type[BaseModel]) -> Subquery:
    """Return the select with a column for each field of the model, as JSON needs it."""
    found = _named(statement)
    nullable = set(_made_nullable(statement))
    columns: list[ColumnElement[Any]] = []
    for name, field in fields_of(model):
        where = f"{model.__name__}.{name}"
        if name not in found:
            has = ", ".join(found) or "no column"
            raise mismatch(where, f"the select has no column of this name; it has {has}")
        column = found[name]
        schema = field["schema"]
        may_be_null = getattr(column, "nullable", False) or column.key in nullable
        if may_be_null and not takes_null(schema):
            raise mismatch(where, "the column may be NULL, and the model says never")
        columns.append(convert(column, schema, where).label(field.get("serialization_alias", name)))
    return select(*columns).subquery()


def _named(statement: AnySelect) -> dict[str, ColumnElement[Any]]:
    """Return the columns by their names; those of an entity by the names of its attributes."""
    rows = statement.subquery()
    named: dict[str, ColumnElement[Any]] = dict(rows.c.items())
    for described in statement.column_descriptions:
        entity: Any = described.get("entity")
        if entity is None or described["expr"] is not entity:
            continue
        for attribute in inspect(entity).mapper.column_attrs:
            name = attribute.columns[0].key
            if attribute.key != name and name in named:
                named[attribute.key] = named.pop(name)
    return named


def _made_nullable(statement: AnySelect) -> Iterator[str]:
    """Yield the columns that an outer join fills with NULL."""
    outer: set[Any] = set()
    pending: list[Any] = list(statement.get_final_froms())
    while pending:
        part = pending.pop()
        if isinstance(part, Join):
            pending += [part.left, part.right]
            if part.isouter or part.full:
                outer |= set(part.right.c)
            if part.full:
                outer |= set(part.left.c)
    for name, column in statement.selected_columns.items():
        if outer & set(column.base_columns) or column in outer:
            yield name
