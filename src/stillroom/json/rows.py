"""The rows of a select as JSON: a column for each field of a model, and objects made of them."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from sqlalchemy import (
    ColumnElement,
    FromClause,
    LargeBinary,
    Subquery,
    Text,
    case,
    cast,
    func,
    inspect,
    literal_column,
    select,
)
from sqlalchemy.sql.selectable import NamedFromClause

from stillroom.joins import AnySelect, filled_with_null
from stillroom.json.conversion import convert, fields_of, mismatch, takes_null


def rows_of(statement: AnySelect, model: type[BaseModel]) -> Subquery:
    """Return the select with a column for each field of the model, as JSON needs it.

    Raises ConfigurationError where a column cannot have the JSON of its field.
    """
    return select(*columns_of(statement, model, statement.subquery())).subquery()


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
        columns.append(convert(column, schema, where).label(field.get("serialization_alias", name)))
    return columns


def object_from(rows: NamedFromClause) -> ColumnElement[Any]:
    """Return each row as a JSON object."""
    return func.row_to_json(rows.table_valued())


def array_from(rows: NamedFromClause) -> ColumnElement[Any]:
    """Return all rows as one JSON array."""
    return func.coalesce(func.json_agg(object_from(rows)), literal_column("'[]'::json"))


def utf8(json: ColumnElement[Any]) -> ColumnElement[bytes]:
    """Return JSON as bytes: the drivers would decode text, which is encoded for the response."""
    return func.convert_to(cast(json, Text), literal_column("'UTF8'"), type_=LargeBinary)


def as_line(json: ColumnElement[Any]) -> ColumnElement[str]:
    """Return JSON as text without a line break, which it may have between its words alone."""
    # Much faster than translate() where there is none, as nearly always.
    line: ColumnElement[str] = cast(json, Text)
    for character in (r"E'\n'", r"E'\r'"):
        line = func.replace(line, literal_column(character), literal_column("' '"), type_=Text)
    return line


def lines_of_few(lines: AnySelect, most: ColumnElement[int]) -> AnySelect:
    """Return the select of all lines as one value of bytes, which is NULL where they are many."""
    some = lines.limit(most + literal_column("1")).subquery()
    text = func.string_agg(some.c[0], literal_column(r"E'\n'"))
    text = func.coalesce(text, literal_column("''"))
    return select(case((func.count() <= most, utf8(text)))).select_from(some)


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
