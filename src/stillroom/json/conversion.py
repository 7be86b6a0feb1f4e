"""A column whose JSON means what Pydantic writes for the field of a model."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

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
    Numeric,
    String,
    Text,
    Time,
    Uuid,
    case,
    cast,
    func,
    literal_column,
)
from sqlalchemy.types import NullType, TypeEngine

from stillroom.errors import ConfigurationError

Schema = Mapping[str, Any]
"""A part of a model's core schema: what Pydantic has understood of an annotation."""


class JSONOf(JSON):
    """The type of a column that has objects of a model."""

    cache_ok = True

    # SQLAlchemy makes copies, by these names.
    def __init__(self, model: type[BaseModel] = BaseModel, is_many: bool = False) -> None:
        super().__init__()
        self.model = model
        self.is_many = is_many


def fields_of(model: type[BaseModel]) -> Iterator[tuple[str, Schema]]:
    """Yield the fields of a model that are sent.

    Raises ConfigurationError where something of the model's own changes values.
    """
    schema, name = _schema(model), model.__name__
    if schema["type"] != "model" or schema["root_model"] or "serialization" in schema:
        raise mismatch(name, "a validator, a serializer or a root makes other JSON of it")
    changing = sorted(_CHANGING_CONFIG & schema.get("config", {}).keys())
    if changing:
        raise mismatch(name, f"its configuration ({', '.join(changing)}) changes values")
    fields: Schema = schema["schema"]
    if fields["type"] != "model-fields":
        raise mismatch(name, "a validator of the whole model may change values")
    if fields.get("computed_fields"):
        computed = fields["computed_fields"][0]["property_name"]
        raise mismatch(f"{name}.{computed}", "it is computed in Python; make it a column")
    for field, its in fields["fields"].items():
        if not its.get("serialization_exclude"):
            yield field, its


def _schema(model: type[BaseModel]) -> Schema:
    schema: Any = model.__pydantic_core_schema__
    return _defined(schema["schema"] if schema["type"] == "definitions" else schema, model)


def _defined(schema: Schema, model: type[BaseModel]) -> Schema:
    """Return what a schema refers to, where it does: a model that is used twice, or in itself."""
    if schema.get("type") != "definition-ref":
        return schema
    whole: Any = model.__pydantic_core_schema__
    named: dict[str, Schema] = {it["ref"]: it for it in whole["definitions"]}
    return named[schema["schema_ref"]]


def model_within(schema: Schema, model: type[BaseModel]) -> tuple[type[BaseModel], bool] | None:
    """Return the model that a field of a model is made of, and whether it is a list of it."""
    while schema["type"] in ("default", "nullable"):
        schema = schema["schema"]
    is_many = schema["type"] == "list"
    inner: Schema = schema.get("items_schema", {}) if is_many else schema
    inner = _defined(inner, model)
    return (inner["cls"], is_many) if inner.get("type") == "model" else None


def takes_null(schema: Schema) -> bool:
    """Say whether a field may be None."""
    if schema["type"] == "default" or schema["type"].startswith("function"):
        return "schema" not in schema or takes_null(schema["schema"])
    return schema["type"] in ("nullable", "any", "none")


def convert(column: ColumnElement[Any], schema: Schema, where: str) -> ColumnElement[Any]:
    """Return a column whose JSON means what Pydantic writes for its values."""
    kind = schema["type"]
    if "serialization" in schema or kind.startswith("function"):
        raise mismatch(where, "a validator or a serializer in Python may change the value")
    if changing := sorted(_CHANGING & schema.keys()):
        raise mismatch(where, f"{', '.join(changing)} changes the value")
    if kind in ("default", "nullable"):
        return convert(column, schema["schema"], where)
    if kind in ("model", "definition-ref") or isinstance(column.type, JSONOf):
        _require_nested(column.type, schema, where)
        return column
    if kind == "enum":
        return _convert_enum(column, schema, where)
    if (conversion := _CONVERSIONS.get(kind)) and (converted := conversion(column)) is not None:
        return converted
    if isinstance(column.type, NullType):
        why = "the expression has no type; give it one, as in func.upper(name, type_=String)"
        raise mismatch(where, why)
    if not _is_as_it_is(column.type, schema):
        raise mismatch(where, f"the model says {kind}, and the column is {column.type!r}")
    return column


def _convert_float(column: ColumnElement[Any]) -> ColumnElement[Any] | None:
    if not isinstance(column.type, Numeric | Float | Integer):
        return None
    real: ColumnElement[Any] = cast(column, Double)
    for none in ("NaN", "Infinity", "-Infinity"):  # what JSON does not have Pydantic writes as null
        real = func.nullif(real, literal_column(f"'{none}'::float8"), type_=Double)
    return real


def _convert_decimal(column: ColumnElement[Any]) -> ColumnElement[Any] | None:
    is_exact = isinstance(column.type, Numeric) and column.type.asdecimal
    return cast(column, Text) if is_exact else None


def _convert_datetime(column: ColumnElement[Any]) -> ColumnElement[Any] | None:
    if not isinstance(column.type, DateTime):
        return None
    has_zone = column.type.timezone
    kind = "timestamptz" if has_zone else "timestamp"
    finite = _finite(column, kind, "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00")
    if has_zone:
        return func.to_char(func.timezone("UTC", finite), _DATETIME + '"Z"', type_=Text)
    return func.to_char(finite, _DATETIME, type_=Text)


def _convert_date(column: ColumnElement[Any]) -> ColumnElement[Any] | None:
    if not isinstance(column.type, Date):
        return None
    return _finite(column, "date", "0001-01-01", "9999-12-31")


def _finite(column: ColumnElement[Any], kind: str, first: str, last: str) -> ColumnElement[Any]:
    """Return a column without infinity, which to asyncpg is Python's first and last value."""

    def of_type(value: str) -> ColumnElement[Any]:
        return literal_column(f"'{value}'::{kind}")

    return case(
        (column == of_type("-infinity"), of_type(first)),
        (column == of_type("infinity"), of_type(last)),
        else_=column,
    )


def _require_nested(made: TypeEngine[Any], schema: Schema, where: str) -> None:
    is_many = schema["type"] == "list"
    inner: Schema = schema.get("items_schema", {}) if is_many else schema
    if isinstance(made, JSONOf) and made.is_many == is_many:
        own = _schema(made.model)
        name = inner.get("schema_ref") or inner.get("ref")
        if inner.get("cls") is made.model or (name is not None and own.get("ref") == name):
            return
    how = "array_of" if is_many else "object_of"
    raise mismatch(where, f"it is made of objects; make the column with {how}(), of its model")


def _convert_enum(column: ColumnElement[Any], schema: Schema, where: str) -> ColumnElement[Any]:
    enum, its = column.type, schema["cls"]
    if not (isinstance(enum, Enum) and enum.enum_class == its):
        raise mismatch(where, f"the column is {enum!r}, not the enum {its.__name__}")
    named: Mapping[str, Any] = its.__members__
    members = [member for name, member in named.items() if member.name == name]
    values: list[Any] = [member.value for member in members]
    if not any(all(isinstance(value, kind) for value in values) for kind in (str, int)):
        raise mismatch(where, "the values of the enum are neither all strings nor all integers")
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


def mismatch(where: str, why: str) -> ConfigurationError:
    """Return the error that names the field."""
    return ConfigurationError(f"PostgreSQL cannot write the JSON of {where}: {why}.")


_AS_IT_IS: dict[str, tuple[type[Any], ...]] = {
    "int": (Integer,),
    "str": (String,),
    "bool": (Boolean,),
    "uuid": (Uuid,),
    "time": (Time,),
    "any": (JSON,),
    "dict": (JSON,),
}
_CONVERSIONS: dict[str, Callable[[ColumnElement[Any]], ColumnElement[Any] | None]] = {
    "float": _convert_float,
    "decimal": _convert_decimal,
    "datetime": _convert_datetime,
    "date": _convert_date,
}
"""What makes the JSON of a column that of a type; None where it cannot."""

_DATETIME = 'YYYY-MM-DD"T"HH24:MI:SS.US'
_CHANGING = {"strip_whitespace", "to_lower", "to_upper", "coerce_numbers_to_str"}
_CHANGING_CONFIG = {
    "str_strip_whitespace", "str_to_lower", "str_to_upper", "ser_json_inf_nan", "ser_json_temporal",
    "ser_json_timedelta", "coerce_numbers_to_str",
}  # fmt: skip
