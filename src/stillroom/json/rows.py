"""The rows of a select as JSON: a column for each field of a model, and objects made of them."""

from collections.abc import Iterator, Sequence
from functools import reduce
from json import dumps
from operator import add
from typing import Any

from pydantic import BaseModel
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Enum,
    Float,
    FromClause,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Subquery,
    Text,
    Time,
    Uuid,
    case,
    cast,
    func,
    inspect,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.sql.selectable import NamedFromClause

from stillroom.joins import AnySelect, filled_with_null
from stillroom.json.conversion import (
    JSONOf,
    convert,
    fields_of,
    mismatch,
    model_within,
    takes_null,
)
from stillroom.json.relationships import related
from stillroom.json.scalar import json_scalar


def rows_of(
    statement: AnySelect, model: type[BaseModel], within: Sequence[type[BaseModel]] = ()
) -> Subquery:
    """Return the select with a column for each field of the model, as JSON needs it.

    `within` are the models around it. Raises ConfigurationError where a column cannot have the JSON
    of its field.
    """
    whole = with_relationships(statement, model, within)
    return select(*columns_of(whole, model, whole.subquery())).subquery()


def with_relationships(
    statement: AnySelect, model: type[BaseModel], within: Sequence[type[BaseModel]] = ()
) -> AnySelect:
    """Return the select with a column more for each field that is a relationship of its entity.

    Raises ConfigurationError where the relationship cannot have the JSON of its field.
    """
    for name, field in fields_of(model):
        inner = model_within(field["schema"], model)
        if inner is None or name in statement.selected_columns:
            continue
        found = related(statement, name)
        if found is None:
            continue
        where = f"{model.__name__}.{name}"
        if inner[0] in (model, *within):
            why = "it is in itself without an end; make its column with array_of() or object_of()"
            raise mismatch(where, why)
        if inner[1] != found.is_many:
            raise mismatch(where, "one of the model and the relationship says one, the other many")
        if not found.is_many and found.may_be_none and not takes_null(field["schema"]):
            raise mismatch(where, "the relationship may lead nowhere, and the model says never")
        column = nested(
            found.statement, inner[0], found.of, is_many=inner[1], within=(model, *within)
        )
        statement = statement.add_columns(column.label(name))
    return statement


def nested(
    statement: AnySelect,
    model: type[BaseModel],
    of: Any,
    *,
    is_many: bool,
    within: Sequence[type[BaseModel]] = (),
) -> ColumnElement[Any]:
    """Return a column that has the rows of another select for each row of `of`, or the first."""
    rows = rows_of(statement.correlate(of), model, within)
    made = select(array_from(rows)) if is_many else select(object_from(rows)).limit(1)
    return type_coerce(made.scalar_subquery(), JSONOf(model, is_many))


def columns_of(
    statement: AnySelect, model: type[BaseModel], rows: FromClause
) -> list[ColumnElement[Any]]:
    """Return the columns of `rows_of` from what has the columns of the select under their names."""
    found = _named(statement, rows)
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
        if not (alias := field.get("serialization_alias", name)):
            raise mismatch(where, "its name in JSON is empty")
        columns.append(convert(column, schema, where).label(alias))
    return columns


def object_from(rows: NamedFromClause) -> ColumnElement[Any]:
    """Return each row as a JSON object."""
    return func.row_to_json(rows.table_valued())


def array_from(rows: NamedFromClause) -> ColumnElement[Any]:
    """Return all rows as one JSON array."""
    return func.coalesce(func.json_agg(object_from(rows)), literal_column("'[]'::json"))


def text_from(rows: NamedFromClause) -> ColumnElement[str]:
    """Return each row as the text of a JSON object: what `object_from` makes, in less time.

    row_to_json() looks up how a type is written for each value anew.
    """
    parts: list[ColumnElement[str]] = []
    for name, column in rows.c.items():
        before = "," if parts else "{"
        parts += [_literal(f"{before}{dumps(name, ensure_ascii=False)}:"), _text_of(column)]
    return reduce(add, [*parts, _literal("}" if parts else "{}")])


def array_text_from(rows: NamedFromClause) -> ColumnElement[str]:
    """Return all rows as the text of one JSON array."""
    objects = func.coalesce(func.string_agg(text_from(rows), _literal(",")), _literal(""))
    return _literal("[") + objects + _literal("]")


def utf8(json: ColumnElement[Any]) -> ColumnElement[bytes]:
    """Return JSON as bytes: the drivers would decode text, which is encoded for the response."""
    return func.convert_to(cast(json, Text), literal_column("'UTF8'"), type_=LargeBinary)


def line_from(rows: NamedFromClause) -> ColumnElement[str]:
    """Return what `text_from` does, without a line break: it may have those of a JSON column."""
    line = text_from(rows)
    if all(isinstance(column.type, _OF_ONE_LINE) for column in rows.c):
        return line
    # Much faster than translate() where there is none, as nearly always.
    for character in (r"E'\n'", r"E'\r'"):
        line = func.replace(line, literal_column(character), literal_column("' '"), type_=Text)
    return line


def lines_of_few(
    rows: NamedFromClause, most: ColumnElement[int], between: ColumnElement[str]
) -> AnySelect:
    """Return the select of all lines as one value of bytes, which is NULL where they are many."""
    some = select(rows).limit(most + literal_column("1")).subquery()
    text = func.string_agg(line_from(some), between)
    text = func.coalesce(text, literal_column("''"))
    return select(case((func.count() <= most, utf8(text)))).select_from(some)


def _text_of(column: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the JSON of a value as text, which is that of some columns as they are."""
    text: ColumnElement[str] = cast(column, Text)
    is_stored = all(isinstance(it, Column) for it in column.base_columns)
    if is_stored and isinstance(column.type, Uuid):
        text = _literal('"') + text + _literal('"')
    elif not (is_stored and isinstance(column.type, _AS_TEXT)):
        is_text = isinstance(column.type, String) and not isinstance(column.type, Enum)
        text = cast(json_scalar(column) if is_text else func.to_json(column), Text)
    return func.coalesce(text, _literal("null"), type_=Text)


def _literal(text: str) -> ColumnElement[str]:
    """Return a constant as part of the statement: a bound one would be sent each time."""
    quoted = text.replace("'", "''")
    return literal_column(f"'{quoted}'", type_=Text)


def _named(statement: AnySelect, rows: FromClause) -> dict[str, ColumnElement[Any]]:
    """Return the columns by their names; those of an entity by the names of its attributes."""
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
    """Yield the names of the columns that an outer join fills with NULL."""
    outer = filled_with_null(statement)
    for name, column in statement.selected_columns.items():
        if outer & set(column.base_columns) or column in outer:
            yield name


_AS_TEXT = (Integer, Boolean, JSON)
"""The types of columns whose text is their JSON."""

_OF_ONE_LINE = (Integer, Boolean, String, Uuid, Date, DateTime, Time, Numeric, Float)
"""The types whose JSON has no line break: one in a string is escaped."""
