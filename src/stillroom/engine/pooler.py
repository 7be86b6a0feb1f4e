"""PgBouncer between a service and PostgreSQL: whether it is there, and what works through it.

In transaction mode each transaction may run in another session of PostgreSQL. What belongs to a
session is then nobody's: startup parameters, settings, prepared statements, session locks.
https://www.pgbouncer.org/features.html
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Dialect, event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError

from stillroom.engine.hosts import Connect
from stillroom.engine.probes import is_direct, keeps_statements, lost_a_parameter

logger = logging.getLogger("stillroom")


@dataclass(eq=False)
class Pooler:
    """Know of an engine whether its connections go through PgBouncer, and how to connect then.

    `is_between` is None until the first connection has told. What is right through PgBouncer is
    right without it, so to take one for there that is not costs round trips and nothing else;
    and any later connection that tells may change a no into a yes.
    """

    declared: bool | None
    through: Callable[[bool], Mapping[str, Any]]
    """Return what replaces arguments of the driver; True where prepared statements are kept."""
    is_between: bool | None = field(init=False)
    _keeps_statements: bool | None = field(default=None, init=False)
    _prepares: WeakSet[Any] = field(default_factory=WeakSet[Any], init=False)

    def __post_init__(self) -> None:
        """Believe what was declared."""
        self.is_between = self.declared

    def connect(self, open_by: Connect, arguments: Mapping[str, Any]) -> DBAPIConnection:
        """Open a connection, by the arguments that suit the way it goes."""
        if not self.is_between and (connection := self._connect_directly(open_by, arguments)):
            return connection
        if self._keeps_statements is not False:
            connection = open_by({**arguments, **self.through(True)})
            if self._keeps_statements is None:
                self._keeps_statements = _ask(connection, keeps_statements)
            if self._keeps_statements:
                self._prepares.add(_driver_connection(connection))
                return connection
            connection.close()
        return open_by({**arguments, **self.through(False)})

    def prepares(self, connection: DBAPIConnection) -> bool:
        """Say whether a connection prepares statements that PgBouncer keeps."""
        return _driver_connection(connection) in self._prepares

    def stop_preparing(self) -> None:
        """Let new connections prepare nothing."""
        self._keeps_statements = False

    def _connect_directly(
        self, open_by: Connect, arguments: Mapping[str, Any]
    ) -> DBAPIConnection | None:
        try:
            connection = open_by(arguments)
        except Exception as error:
            # PgBouncer refuses what it cannot keep for each client, PostgreSQL knows it all.
            if self.declared is False or _REFUSAL not in str(error):
                raise
            self._note()
            return None
        if self.declared is False:
            return connection
        if self.is_between is None and _ask(connection, is_direct):
            self.is_between = False
        if self.is_between is False and not lost_a_parameter(connection, arguments):
            return connection
        self._note()  # one that passes over what it cannot keep: ignore_startup_parameters
        connection.close()
        return None

    def _note(self) -> None:
        if not self.is_between:
            self.is_between = True
            logger.info(
                "PgBouncer stands before PostgreSQL: each transaction says its own timeouts, and "
                "reads are READ ONLY transactions. DB_PGBOUNCER=1 says so from the start."
            )


def set_pooler(engine: Engine, pooler: Pooler) -> None:
    """Remember the pooler of an engine by its dialect, which is the engine's own.

    PgBouncer gives a statement that is prepared anew the plan of the old one, by its text. So where
    a change of the schema has made one invalid, nothing is prepared any more: what would fail
    until somebody says RECONNECT fails once.
    """
    _poolers[engine.dialect] = pooler

    def look(context: ExceptionContext) -> None:
        connection = context.connection
        dbapi_connection = connection and connection.connection.dbapi_connection
        if dbapi_connection and _is_stale_plan(context) and pooler.prepares(dbapi_connection):
            logger.warning(
                "The schema has changed, and PgBouncer keeps the old plan of a statement: none is "
                "prepared from now on. Say RECONNECT on its console, and restart, for new ones."
            )
            pooler.stop_preparing()
            event.listen(engine, "checkout", replace)

    def replace(connection: DBAPIConnection, _record: object, _proxy: object) -> None:
        if pooler.prepares(connection):
            raise InvalidatePoolError

    event.listen(engine, "handle_error", look)


def goes_through_pooler(dialect: Dialect) -> bool:
    """Say whether PgBouncer is known to stand between an engine and PostgreSQL."""
    pooler = _poolers.get(dialect)
    return pooler is not None and bool(pooler.is_between)


def _ask(connection: DBAPIConnection, question: Callable[[DBAPIConnection], bool]) -> bool:
    try:
        return question(connection)
    except BaseException:
        connection.close()  # nobody else knows of it yet
        raise


def _driver_connection(connection: DBAPIConnection) -> Any:
    adapted: Any = connection
    return adapted.driver_connection


def _is_stale_plan(context: ExceptionContext) -> bool:
    error = context.original_exception
    found_by = getattr(getattr(error, "diag", None), "source_function", None)  # psycopg
    return found_by == "RevalidateCachedQuery" or "InvalidCachedStatement" in type(error).__name__


_REFUSAL = "unsupported startup parameter"

_poolers: WeakKeyDictionary[Dialect, Pooler] = WeakKeyDictionary()
