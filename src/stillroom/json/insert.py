"""A row that is inserted and answered as JSON by one statement."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import CTE, Column, Connection, Dialect, bindparam, insert, inspect, select
from sqlalchemy.orm import Mapper, aliased

from stillroom.engine.alone import first_value
from stillroom.errors import ConfigurationError
from stillroom.json.rows import rows_of, text_from, utf8
from stillroom.json.statement import ReadyStatement
from stillroom.model import Model


class JSONInsert:
    """Insert a row, and answer it as JSON in the form of a Pydantic model.

    ``new_user = JSONInsert(User, UserSchema)`` is made once. INSERT ... RETURNING writes the
    answer, with what PostgreSQL fills in. No object of the entity is made: defaults of its columns
    are taken, its constructor and events are not. Raises ConfigurationError for an entity that
    depends on those, and where `JSONSelect` does.
    """

    def __init__(self, entity: type[Model], model: type[BaseModel]) -> None:
        """Take a model of the database, and one of the answer."""
        self._mapper: Mapper[Any] = inspect(entity, raiseerr=True)
        self._model = model
        self._columns = _columns(self._mapper)
        self._defaults = {
            name: default
            for name, column in self._columns.items()
            if (default := _default(entity, column)) is not None
        }
        self._statements: dict[frozenset[str], ReadyStatement] = {}
        self._keys = [
            self._mapper.get_property_by_column(it).key for it in self._mapper.primary_key
        ]
        self._row = ReadyStatement(select(utf8(text_from(rows_of(entity.row(), model)))))
        _refuse_events(self._mapper)
        self._statement(frozenset(self._defaults))  # what does not fit the model is found now

    def run(self, connection: Connection, values: Mapping[str, Any]) -> bytes:
        """Insert by the names of attributes, and return the row as an object.

        Raises TypeError for a name that is no column's, and sqlalchemy.exc.IntegrityError when a
        constraint refuses the row, NoResultFound when a trigger or a rule leaves it out.
        """
        given = self.complete(values)
        statement = self._statement(frozenset(given))
        row = statement.row(connection, {f"{_NEW}{name}": it for name, it in given.items()})
        answer: bytes = first_value(row)
        return answer

    def compiled(self, dialect: Dialect, values: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Return the statement of `run` as a driver takes it, None where it has to be run.

        Its first value is the row as an object.
        """
        given = self.complete(values)
        statement = self._statement(frozenset(given))
        return statement.compiled(dialect, {f"{_NEW}{name}": it for name, it in given.items()})

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values, and the defaults of those that are not given."""
        made = {name: make() for name, make in self._defaults.items() if name not in values}
        return {**made, **values}

    def makes_key(self, values: Mapping[str, Any]) -> bool:
        """Say whether the row gets a key that no other row has: a UUID of Python's making."""
        made = self._defaults.keys() - values.keys()
        return all(name in made and self._is_uuid(name) for name in self._keys)

    def find(self, connection: Connection, values: Mapping[str, Any]) -> bytes | None:
        """Return the row that has the key of complete values as an object, None where none has."""
        row = self._row.row(connection, {name: values[name] for name in self._keys})
        return None if row is None else row[0]

    def _is_uuid(self, name: str) -> bool:
        return self._columns[name].type.python_type is UUID

    def _statement(self, names: frozenset[str]) -> ReadyStatement:
        if names not in self._statements:
            if unknown := sorted(names - self._columns.keys()):
                msg = f"{unknown[0]!r} is no column of {self._mapper.class_.__name__}"
                raise TypeError(msg)
            rows = select(aliased(self._mapper.class_, self._inserted(names)))
            each = select(utf8(text_from(rows_of(rows, self._model))))
            self._statements[names] = ReadyStatement(each)
        return self._statements[names]

    def _inserted(self, names: frozenset[str]) -> CTE:
        columns = {self._columns[name]: name for name in sorted(names)}
        values = {
            column: bindparam(f"{_NEW}{name}", type_=column.type)
            for column, name in columns.items()
        }
        table: Any = self._mapper.local_table
        return insert(table).values(values).returning(*self._columns.values()).cte("inserted")


def _columns(mapper: Mapper[Any]) -> dict[str, Column[Any]]:
    """Return the columns by the names of their attributes."""
    if mapper.polymorphic_on is not None or len(mapper.tables) != 1:
        raise _refuse(mapper.class_, "it is inherited, and a row of it is more than its values")
    columns: dict[str, Column[Any]] = {
        attribute.key: attribute.columns[0]
        for attribute in mapper.column_attrs
        if isinstance(attribute.columns[0], Column)
    }
    return columns


def _default(entity: type[Any], column: Column[Any]) -> Callable[[], Any] | None:
    """Return what makes the default of a column, None where PostgreSQL does it."""
    default: Any = column.default
    if default is None or not (default.is_scalar or default.is_callable):
        return None
    if default.is_scalar:
        return lambda: default.arg
    # SQLAlchemy wraps a function that takes no context into one that does.
    if not hasattr(default.arg, "__wrapped__"):
        raise _refuse(entity, f"the default of {column.key} depends on the statement")
    return lambda: default.arg(None)


def _refuse_events(mapper: Mapper[Any]) -> None:
    listened = [name for name in _EVENTS if getattr(mapper.dispatch, name)]
    listened += ["validates"] if mapper.validators else []
    listened += ["version_id_col"] if mapper.version_id_col is not None else []
    if listened:
        raise _refuse(mapper.class_, f"it has code that an INSERT would pass by ({listened[0]})")


def _refuse(entity: type[Any], why: str) -> ConfigurationError:
    name = entity.__name__
    return ConfigurationError(
        f"{name} cannot be inserted without its objects: {why}. Use {name}.create"
    )


_EVENTS = ("before_insert", "after_insert")

_NEW = "new_"
"""SQLAlchemy keeps the names of the columns to itself in an INSERT."""
