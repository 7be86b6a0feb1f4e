"""A select that is built and compiled once, and run with other values each time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.util import greenlet_spawn

from stillroom.engine.alone import can_read_alone, read_alone
from stillroom.joins import AnySelect
from stillroom.session import ServiceSession


class ReadyStatement:
    """Run a select without looking each time for what SQLAlchemy has compiled of it before.

    A select whose text depends on its values, as `in_` with a list does, is run the ordinary way.
    """

    def __init__(self, select: AnySelect) -> None:
        self.select = select
        self._compiled: WeakKeyDictionary[Dialect, _Compiled | None] = WeakKeyDictionary()

    def row(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Return the first row, or None where there is none.

        Raises sqlalchemy.exc.StatementError where a bind parameter has no value.
        """
        if (compiled := self.compiled(connection.dialect, values)) is None:
            return connection.execute(self.select, dict(values)).first()
        return connection.exec_driver_sql(*compiled).first()

    async def row_alone(
        self,
        engine: Engine,
        values: Mapping[str, Any],
        note: Callable[[PoolProxiedConnection], None],
    ) -> Sequence[Any] | None:
        """Do the same on a connection that is held no longer, of which `note` is told."""
        compiled = self.compiled(engine.dialect, values)
        if compiled is not None and can_read_alone(engine, compiled[0]):
            return await read_alone(engine, *compiled, note)

        def read() -> Sequence[Any] | None:
            with engine.connect() as connection:
                note(connection.connection)
                return self.row(connection, values)

        return await greenlet_spawn(read)

    def compiled(self, dialect: Dialect, values: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Return the text and the parameters as the driver takes them, None where it has neither.

        That is a text which depends on the values, or a bind parameter that has none.
        """
        compiled = self._for(dialect)
        if compiled is None or not compiled.has_all(values):
            return None
        return compiled.sql, compiled.parameters(values)

    def _for(self, dialect: Dialect) -> "_Compiled | None":
        if dialect not in self._compiled:
            compiled = _compile(self.select, dialect)
            if dialect.server_version_info is None:  # it may be another text for that
                return compiled
            self._compiled[dialect] = compiled
        return self._compiled[dialect]


async def read_row(
    session: AsyncSession, statement: ReadyStatement, values: Mapping[str, Any]
) -> Sequence[Any] | None:
    """Return the first row that a session reads, in one round trip, or None."""
    if isinstance(session, ServiceSession):
        if (engine := session.lone_engine) is not None:
            return await statement.row_alone(engine, values, session.note)
        return await session.with_connection(lambda it: statement.row(it, values))
    # Another session may have an engine for each model.
    return (await session.execute(statement.select, dict(values))).first()


@dataclass(frozen=True)
class _Compiled:
    sql: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]
    processors: Mapping[str, Callable[[Any], Any]]
    required: frozenset[str]
    is_positional: bool

    def has_all(self, values: Mapping[str, Any]) -> bool:
        return self.required <= values.keys()

    def parameters(self, values: Mapping[str, Any]) -> Any:
        given = {**self.constants, **values}
        for name, process in self.processors.items():
            given[name] = process(given[name])
        if self.is_positional:
            return tuple([given[name] for name in self.names])
        return {name: given[name] for name in self.names}


def _compile(statement: AnySelect, dialect: Dialect) -> _Compiled | None:
    """Compile a select; return None for one whose text is complete only with its values."""
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101  (of a select it is one)
    if compiled.post_compile_params or compiled.literal_execute_params:
        return None
    if compiled.escaped_bind_names:
        return None
    names = tuple(compiled.positiontup or compiled.params)
    binds = {name: compiled.binds[name] for name in names}
    processors = {
        name: bind.type.dialect_impl(dialect).bind_processor(dialect)
        for name, bind in binds.items()
    }
    return _Compiled(
        compiled.string,
        names,
        {name: compiled.params[name] for name, bind in binds.items() if not bind.required},
        {name: process for name, process in processors.items() if process is not None},
        frozenset(name for name, bind in binds.items() if bind.required),
        is_positional=compiled.positional,
    )
