"""Selects that PostgreSQL answers as JSON: no row, no object and no model in between.

``users = JSONSelect(select(User).order_by(User.id), UserSchema)`` is made once, beside the view,
and ``await users.all(session)`` are bytes that mean what FastAPI would have sent for the same rows.
The model documents the answer; whether the select has what it says is looked at when it is made.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel
from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Join,
    LargeBinary,
    Numeric,
    Select,
    String,
    Subquery,
    Text,
    Time,
    Uuid,
    case,
    cast,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import NullType, TypeEngine

from stillroom.errors import ConfigurationError

AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"

Schema = Mapping[str, Any]
"""A part of a model's core schema: what Pydantic has understood of an annotation."""


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
        self._first = self._each.limit(1)
        self._all = select(_utf8(_array(rows)))

    async def first(self, session: AsyncSession, /, **values: Any) -> bytes | None:
        """Return the first row as an object, or None where there is no row."""
        found: bytes | None = await session.scalar(self._first, values)
        return found

    async def all(self, session: AsyncSession, /, **values: Any) -> bytes:
        """Return all rows as an array, in the order of the select; PostgreSQL holds it whole."""
        found: bytes = (await session.execute(self._all, values)).scalar_one()
        return found

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


def array_of(statement: AnySelect, model: type[BaseModel], *, of: Any) -> ColumnElement[Any]:
    """Make a column that has the rows of another select, as an array of objects.

    `of` is what the select is about a row of: a model or table of the outer select.
    ``array_of(select(User).where(User.team_id == Team.id), UserSchema, of=Team).label("members")``
    """
    rows = select(_array(_rows(statement.correlate(of), model)))
    return type_coerce(rows.scalar_subquery(), _JSONOf(model, True))


def object_of(statement: AnySelect, model: type[BaseModel], *, of: Any) -> ColumnElement[Any]:
    """Make a column that has the first row of another select, as an object; else as `array_of`.

    Where the select has no row the column is NULL.
    """
    rows = select(_object(_rows(statement.correlate(of), model))).limit(1)
    return type_coerce(rows.scalar_subquery(), _JSONOf(model, False))


class _JSONOf(JSON):
    """The type of a column that has objects of a model."""

    cache_ok = True

    # SQLAlchemy makes copies, by these names.
    def __init__(self, model: type[BaseModel] = BaseModel, is_many: bool = False) -> None:
        super().__init__()
        self.model = model
        self.is_many = is_many


def _object(rows: Subquery) -> ColumnElement[Any]:
    return func.row_to_json(rows.table_valued())


def _array(rows: Subquery) -> ColumnElement[Any]:
    return func.coalesce(func.json_agg(_object(rows)), literal_column("'[]'::json"))


def _utf8(json: ColumnElement[Any]) -> ColumnElement[bytes]:
    # As bytes: the drivers would decode text, which is encoded again for the response.
    return func.convert_to(cast(json, Text), literal_column("'UTF8'"), type_=LargeBinary)


def _rows(statement: AnySelect, model: type[BaseModel]) -> Subquery:
    """Return the select with a column for each field of the model, as JSON needs it."""
    found = statement.subquery()
    nullable = set(_made_nullable(statement))
    columns: list[ColumnElement[Any]] = []
    for name, field in _fields(model):
        where = f"{model.__name__}.{name}"
        if name not in found.c:
            has = ", ".join(found.c.keys()) or "no column"
            raise _mismatch(where, f"the select has no column of this name; it has {has}")
        column = found.c[name]
        schema = field["schema"]
        may_be_null = getattr(column, "nullable", False) or name in nullable
        if may_be_null and not _takes_null(schema):
            raise _mismatch(where, "the column may be NULL, and the model says never")
        columns.append(
            _convert(column, schema, where).label(field.get("serialization_alias", name))
        )
    return select(*columns).subquery()


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


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Schema]]:
    schema, name = _schema(model), model.__name__
    if schema["type"] != "model" or schema["root_model"] or "serialization" in schema:
        raise _mismatch(name, "a validator, a serializer or a root makes other JSON of it")
    changing = sorted(_CHANGING_CONFIG & schema.get("config", {}).keys())
    if changing:
        raise _mismatch(name, f"its configuration ({', '.join(changing)}) changes values")
    fields: Schema = schema["schema"]
    if fields["type"] != "model-fields":
        raise _mismatch(name, "a validator of the whole model may change values")
    if fields.get("computed_fields"):
        computed = fields["computed_fields"][0]["property_name"]
        raise _mismatch(f"{name}.{computed}", "it is computed in Python; make it a column")
    for field, its in fields["fields"].items():
        if not its.get("serialization_exclude"):
            yield field, its


def _schema(model: type[BaseModel]) -> Schema:
    schema: Any = model.__pydantic_core_schema__
    found: Schema = schema["schema"] if schema["type"] == "definitions" else schema
    return found


def _takes_null(schema: Schema) -> bool:
    if schema["type"] == "default" or schema["type"].startswith("function"):
        return "schema" not in schema or _takes_null(schema["schema"])
    return schema["type"] in ("nullable", "any", "none")


def _convert(column: ColumnElement[Any], schema: Schema, where: str) -> ColumnElement[Any]:
    """Return a column whose JSON means what Pydantic writes for its values."""
    kind = schema["type"]
    if "serialization" in schema or kind.startswith("function"):
        raise _mismatch(where, "a validator or a serializer in Python may change the value")
    if changing := sorted(_CHANGING & schema.keys()):
        raise _mismatch(where, f"{', '.join(changing)} changes the value")
    if kind in ("default", "nullable"):
        return _convert(column, schema["schema"], where)
    if kind in ("model", "definition-ref") or isinstance(column.type, _JSONOf):
        _require_nested(column.type, schema, where)
        return column
    if kind == "enum":
        return _convert_enum(column, schema, where)
    if (convert := _CONVERSIONS.get(kind)) and (converted := convert(column)) is not None:
        return converted
    if isinstance(column.type, NullType):
        why = "the expression has no type; give it one, as in func.upper(name, type_=String)"
        raise _mismatch(where, why)
    if not _is_as_it_is(column.type, schema):
        raise _mismatch(where, f"the model says {kind}, and the column is {column.type!r}")
    return column


def _convert_float(column: ColumnElement[Any]) -> ColumnElement[Any] | None:
    if not isinstance(column.type, Numeric | Float | Integer):
        return None
    real: ColumnElement[Any] = cast(column, Double)
    for none in ("NaN", "Infinity", "-Infinity"):  # what JSON does not have Pydantic writes as null
        real = func.nullif(real, literal_column(f"'{none}'::float8"))
    return real


def _convert_decimal(column: ColumnElement[Any]) -> ColumnElement[Any] | None:
    is_exact = isinstance(column.type, Numeric) and column.type.asdecimal
    return cast(column, Text) if is_exact else None


def _convert_datetime(column: ColumnElement[Any]) -> ColumnElement[Any] | None:
    if not isinstance(column.type, DateTime):
        return None
    if column.type.timezone:
        return func.to_char(func.timezone("UTC", column), _DATETIME + '"Z"')
    return func.to_char(column, _DATETIME)


def _require_nested(made: TypeEngine[Any], schema: Schema, where: str) -> None:
    is_many = schema["type"] == "list"
    inner: Schema = schema.get("items_schema", {}) if is_many else schema
    if isinstance(made, _JSONOf) and made.is_many == is_many:
        own = _schema(made.model)
        name = inner.get("schema_ref") or inner.get("ref")
        if inner.get("cls") is made.model or (name is not None and own.get("ref") == name):
            return
    how = "array_of" if is_many else "object_of"
    raise _mismatch(where, f"it is made of objects; make the column with {how}(), of its model")


def _convert_enum(column: ColumnElement[Any], schema: Schema, where: str) -> ColumnElement[Any]:
    enum, its = column.type, schema["cls"]
    if not (isinstance(enum, Enum) and enum.enum_class == its):
        raise _mismatch(where, f"the column is {enum!r}, not the enum {its.__name__}")
    named: Mapping[str, Any] = its.__members__
    members = [member for name, member in named.items() if member.name == name]
    values: list[Any] = [member.value for member in members]
    if not any(all(isinstance(value, kind) for value in values) for kind in (str, int)):
        raise _mismatch(where, "the values of the enum are neither all strings nor all integers")
    stored = dict(zip(enum.enums, values, strict=True))
    if all(label == value for label, value in stored.items()):
        return column
    return case(stored, value=cast(column, Text))


def _is_as_it_is(type_: TypeEngine[Any], schema: Schema) -> bool:
    """Say whether PostgreSQL and Pydantic write the values of a type alike."""
    kind = schema["type"]
    of_array: Any = type_
    if isinstance(type_, Enum) and type_.enum_class is not None:
        return False
    if isinstance(type_, Enum) and kind == "literal":
        return {*type_.enums} <= {*schema["expected"]}
    if isinstance(type_, Time) and type_.timezone:
        return False
    if isinstance(type_, ARRAY) and kind == "list":
        return _is_as_it_is(of_array.item_type, schema.get("items_schema", {"type": "any"}))
    return isinstance(type_, _AS_IT_IS.get(kind, ()))


def _mismatch(where: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"PostgreSQL cannot write the JSON of {where}: {why}.")


_AS_IT_IS: dict[str, tuple[type[Any], ...]] = {
    "int": (Integer,),
    "str": (String,),
    "bool": (Boolean,),
    "uuid": (Uuid,),
    "date": (Date,),
    "time": (Time,),
    "any": (JSON,),
    "dict": (JSON,),
}
_CONVERSIONS: dict[str, Callable[[ColumnElement[Any]], ColumnElement[Any] | None]] = {
    "float": _convert_float,
    "decimal": _convert_decimal,
    "datetime": _convert_datetime,
}
"""What makes the JSON of a column that of a type; None where it cannot."""

_DATETIME = 'YYYY-MM-DD"T"HH24:MI:SS.US'
_CHANGING = {"strip_whitespace", "to_lower", "to_upper", "coerce_numbers_to_str"}
_CHANGING_CONFIG = {
    "str_strip_whitespace", "str_to_lower", "str_to_upper", "ser_json_inf_nan", "ser_json_temporal",
    "ser_json_timedelta", "coerce_numbers_to_str",
}  # fmt: skip
