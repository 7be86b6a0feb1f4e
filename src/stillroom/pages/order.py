"""An order of rows that is total, and the condition that a row lies beyond another one in it."""

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import (
    CHAR,
    ColumnElement,
    Date,
    DateTime,
    Enum,
    Interval,
    Label,
    Numeric,
    String,
    Text,
    TypeDecorator,
    and_,
    bindparam,
    cast,
    func,
    or_,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.functions import coalesce
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import NullType, TypeEngine

from stillroom.errors import ConfigurationError
from stillroom.joins import AnySelect, filled_with_null
from stillroom.pages.key import missing_key

Column: TypeAlias = ColumnElement[Any]


class Order:
    """Order the rows of a select, so that each has a place of its own.

    Raises ConfigurationError for a column that may be NULL, which no comparison puts in a place.
    """

    def __init__(
        self, statement: AnySelect, order_by: Sequence[Any], key: Sequence[Any] | None
    ) -> None:
        """Take the columns, and those of the key, which go the way of the last one."""
        parts = [_part(given) for given in order_by]
        known = [column for column, _ in parts]
        is_descending = parts[-1][1] if parts else False
        wanted = [_part(given)[0] for given in key] if key else missing_key(statement, known)
        parts += [(column, is_descending) for column in wanted if column not in set(known)]
        filled = filled_with_null(statement)
        for column, _ in parts:
            _require_value(column, filled)
        self._parts = parts

    @property
    def size(self) -> int:
        """Return the number of columns."""
        return len(self._parts)

    @cached_property
    def text(self) -> str:
        """Return the order as SQL, with the types; two orders that read alike are alike."""
        return ", ".join(
            f"{_sql(column)} {column.type.compile(_DIALECT)}{' DESC' if is_descending else ''}"
            for column, is_descending in self._parts
        )

    def columns(self, *, is_backwards: bool) -> list[Column]:
        """Return what ORDER BY says."""
        return [
            column.asc() if is_descending == is_backwards else column.desc()
            for column, is_descending in self._parts
        ]

    def key(self) -> Column:
        """Return the key of a row as JSON: text that PostgreSQL reads back exactly."""
        # JSON has dates in ISO 8601, while as text they are in the DateStyle of the connection.
        texts = [
            column if isinstance(_plain(column.type), Date | DateTime) else cast(column, Text)
            for column, _ in self._parts
        ]
        return cast(func.json_build_array(*texts), Text)

    def beyond(self, *, is_backwards: bool) -> Column:
        """Return the condition that a row lies beyond the key that is given as `values`.

        Columns of one direction are compared as a row, which PostgreSQL answers from an index.
        https://www.postgresql.org/docs/current/functions-comparisons.html#ROW-WISE-COMPARISON
        """
        parts = [
            (is_descending != is_backwards, column, _value(number, column))
            for number, (column, is_descending) in enumerate(self._parts)
        ]
        runs = [
            (goes_down, *_row(list(run))) for goes_down, run in groupby(parts, key=itemgetter(0))
        ]
        return _beyond(runs)

    def values(self, key: Sequence[str]) -> dict[str, str]:
        """Return a key as the parameters of `beyond`."""
        return {_name(number): value for number, value in enumerate(key)}


def _part(given: Any) -> tuple[Column, bool]:
    """Return a column of ORDER BY, and whether it is descending."""
    part: Any = getattr(given, "__clause_element__", lambda: given)()
    modifier = getattr(part, "modifier", None)
    if modifier is not None:
        part = part.element
    label: Any = part
    if isinstance(part, Label):
        part = label.element
    is_column = isinstance(part, ColumnElement)
    if not is_column or modifier not in _DIRECTIONS:
        msg = (
            f"order_by has {given!s}. It takes columns and expressions, and their asc() or desc(); "
            "there is no NULL that could be first or last."
        )
        raise ConfigurationError(msg)
    return part, _DIRECTIONS[modifier]  # pyright: ignore[reportUnknownVariableType]


def _require_value(column: Column, filled: set[Any]) -> None:
    """Refuse a column that may be NULL, and one whose type is not known."""
    if isinstance(column.type, NullType):
        msg = f"{_sql(column)} has no type; give it one, as in func.lower(name, type_=String)."
        raise ConfigurationError(msg)
    if _may_be_null(column, filled):
        msg = (
            f"{_sql(column)} may be NULL, which lies neither before nor behind another row. Order "
            "by func.coalesce(column, value), with an index on the same, or make it NOT NULL."
        )
        raise ConfigurationError(msg)


def _may_be_null(expression: Any, filled: set[Any]) -> bool:
    if isinstance(expression, coalesce):
        return all(_may_be_null(part, filled) for part in expression.clauses)
    parts: list[Any] = [part for part in iterate(expression) if isinstance(part, ColumnClause)]
    return any(getattr(part, "nullable", False) or part in filled for part in parts)


def _sql(column: Column) -> str:
    compiled = column.compile(dialect=_DIALECT)
    return f"{compiled} {compiled.params}" if compiled.params else str(compiled)


def _value(number: int, column: Column) -> Column:
    return cast(bindparam(_name(number), type_=Text), _exact(_plain(column.type)))


def _name(number: int) -> str:
    return f"_key_{number}"


def _plain(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of a column as PostgreSQL knows it."""
    if not isinstance(type_, TypeDecorator) or isinstance(type_, Interval):
        return type_
    return _plain(type_.load_dialect_impl(_DIALECT))


def _exact(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type without a length or scale, to which a value would be cut."""
    if isinstance(type_, Numeric):
        return Numeric()
    is_text = isinstance(type_, String) and not isinstance(type_, CHAR | CITEXT | Enum)
    return Text() if is_text else type_


def _row(run: list[tuple[bool, Column, Column]]) -> tuple[Any, Any]:
    if len(run) == 1:
        return run[0][1:]
    return tuple_(*[column for _, column, _ in run]), tuple_(*[value for _, _, value in run])


def _beyond(runs: Sequence[tuple[bool, Any, Any]]) -> Column:
    """Return the condition for runs of columns that have one direction each."""
    (goes_down, columns, values), *rest = runs
    beyond: Column = columns < values if goes_down else columns > values
    if not rest:
        return beyond
    # The bound says nothing new, but unlike an OR it is one from which an index scan can start.
    bound = columns <= values if goes_down else columns >= values
    return and_(bound, or_(beyond, and_(columns == values, _beyond(rest))))


_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_DIRECTIONS = {None: False, operators.asc_op: False, operators.desc_op: True}
