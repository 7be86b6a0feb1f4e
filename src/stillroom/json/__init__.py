"""Selects that PostgreSQL answers as JSON: no row, no object and no model in between.

``users = JSONSelect(select(User).order_by(User.id), UserSchema)`` is made once, beside the view,
and ``await users.all(session)`` are bytes that mean what FastAPI would have sent for the same rows.
The model documents the answer; whether the select has what it says is looked at when it is made.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Integer, Text, bindparam, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.joins import AnySelect
from stillroom.json.copy import copy_lines
from stillroom.json.insert import JSONInsert
from stillroom.json.rows import (
    array_text_from,
    line_from,
    lines_of_few,
    nested,
    rows_of,
    text_from,
    utf8,
)
from stillroom.json.statement import ReadyStatement, read_row
from stillroom.model import Model

__all__ = ["JSONInsert", "JSONRow", "JSONSelect", "array_of", "object_of"]


class JSONSelect:
    """Answer a select as JSON in the form of a Pydantic model.

    Each field takes the column of its name; columns that the model does not have are not sent. A
    field that is a model, or a list of them, takes the relationship of its name, as a sub-select,
    or a column made by `object_of` or `array_of`. The JSON has the names of serialization (an alias
    where there is one) and the types of the model: a Decimal is a string, a time with its zone is
    in UTC, NaN is null.

    Raises ConfigurationError where a field has no column, or one whose JSON could mean something
    else than what Pydantic writes: another type, NULL where the model has none, a validator or
    serializer of the model's own.
    """

    def __init__(self, statement: AnySelect, model: type[BaseModel]) -> None:
        """Take a select, whose bind parameters get their values later, and the model."""
        rows = rows_of(statement, model)
        self._each = select(utf8(text_from(rows)))
        self._first = ReadyStatement(self._each.limit(literal_column("1")))
        self._all = ReadyStatement(select(utf8(array_text_from(rows))))
        self._lines = select(line_from(rows))
        self._few = ReadyStatement(
            lines_of_few(rows, bindparam(_MOST, type_=Integer), bindparam(_BETWEEN, type_=Text))
        )
        self._were_many = False

    async def first(self, session: AsyncSession, /, **values: Any) -> bytes | None:
        """Return the first row as an object, or None where there is no row."""
        row = await read_row(session, self._first, values)
        return None if row is None else row[0]

    async def all(self, session: AsyncSession, /, **values: Any) -> bytes:
        """Return all rows as an array, in the order of the select; PostgreSQL holds it whole."""
        row = await read_row(session, self._all, values)
        return b"[]" if row is None else row[0]

    def in_parts(self, session: AsyncSession, size: int, /, **values: Any) -> AsyncGenerator[bytes]:
        """Read every row, as objects with commas between them, in pieces of any length.

        Up to `size` rows are one piece, made by PostgreSQL; more are sent by COPY, in constant
        memory. The session has a transaction of its own then, which no timeout of a statement ends.
        """
        return self._pieces(session, size, ",", values)

    def in_lines(self, session: AsyncSession, size: int, /, **values: Any) -> AsyncGenerator[bytes]:
        """Do the same with line breaks between the objects: JSON Lines, but for the last break."""
        return self._pieces(session, size, "\n", values)

    async def _pieces(
        self, session: AsyncSession, size: int, between: str, values: Mapping[str, Any]
    ) -> AsyncGenerator[bytes]:
        # Whether there are more than a few is asked first only where the last answer had few.
        if not self._were_many:
            few = {_MOST: size, _BETWEEN: between, **values}
            row = await read_row(session, self._few, few)
            if row is not None and row[0] is not None:
                yield row[0]
                return
        end, rows = b"", 0
        async with aclosing(copy_lines(session, self._lines, values)) as lines:
            async for piece in lines:
                rows += piece.count(b"\n")
                whole = end + piece
                end = b"\n" if whole.endswith(b"\n") else b""
                yield whole.removesuffix(b"\n").replace(b"\n", between.encode())
        self._were_many = rows > size


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
    return nested(statement, model, of, is_many=True)


def object_of(statement: AnySelect, model: type[BaseModel], *, of: Any) -> ColumnElement[Any]:
    """Make a column that has the first row of another select, as an object; else as `array_of`.

    Where the select has no row the column is NULL.
    """
    return nested(statement, model, of, is_many=False)


# Bind parameters: how many rows are few, and what stands between them.
_MOST = "stillroom_most"
_BETWEEN = "stillroom_between"
