"""An engine with settings that are right for a service, and a pool that can be relied on."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, Connection, Dialect, event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from stillroom.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    UncommittedWritesError,
)
from stillroom.url import ADDRESS, connect_arguments


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Hold what a service asks of its connections; times are in seconds.

    A `statement_timeout`, `lock_timeout` or `client_check_interval` of 0 is none, as in PostgreSQL.
    The pool is fixed: overflow connections would be closed on return and opened anew under load,
    which costs half of the throughput. A connection that lay unused for longer than `ping_after`
    is pinged before it is handed out, so a restart of an idle database fails no request, and a
    busy pool pays no round trip for that.
    """

    pool_size: int = 10
    pool_timeout: float = 2.0
    connect_timeout: float = 5.0
    ping_after: float = 1.0
    recycle_after: float = 1800.0
    statement_timeout: float = 10.0
    lock_timeout: float = 0.0
    client_check_interval: float = 0.5
    application_name: str = "stillroom"

    def __post_init__(self) -> None:
        """Refuse what could not work: a pool of no connections, a time that is none."""
        if self.pool_size < 1:
            msg = f"pool_size is {self.pool_size}; a pool needs at least one connection"
            raise ConfigurationError(msg)
        for name in ("pool_timeout", "connect_timeout", "recycle_after"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("ping_after", "statement_timeout", "lock_timeout", "client_check_interval"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")

    @property
    def parameters(self) -> dict[str, str]:
        """Return the run-time parameters that each connection starts with, for PostgreSQL >= 14.

        `client_connection_check_interval` ends the statement of a client that has left;
        https://www.postgresql.org/docs/current/runtime-config-connection.html
        """
        return {
            "statement_timeout": f"{self.statement_timeout * 1000:.0f}",
            "lock_timeout": f"{self.lock_timeout * 1000:.0f}",
            "client_connection_check_interval": f"{self.client_check_interval * 1000:.0f}",
        }


def _require(name: str, value: float, holds: bool, what: str) -> None:
    if not holds or not math.isfinite(value):
        msg = f"{name} is {value}; it is a time in seconds, {what}"
        raise ConfigurationError(msg)


def create_engine(url: URL, settings: EngineSettings, **options: Any) -> AsyncEngine:
    """Create the engine for a URL of `parse_url`; nothing is opened and no event loop is needed.

    `options` go to SQLAlchemy's create_async_engine and win over what is chosen here.
    """
    bare = url.set(query={name: url.query[name] for name in url.query if name in ADDRESS})
    defaults: dict[str, Any] = {
        "connect_args": _connect_arguments(url, settings),
        "pool_size": settings.pool_size,
        "max_overflow": 0,
        "pool_timeout": settings.pool_timeout,
        "pool_use_lifo": True,
        "pool_recycle": settings.recycle_after,
        "hide_parameters": True,
    }
    if "poolclass" in options:
        defaults = {name: defaults[name] for name in ("connect_args", "hide_parameters")}
    engine = create_async_engine(bare, **{**defaults, **options})
    event.listen(engine.sync_engine, "do_connect", _connect)
    _take_back_only_what_is_whole(engine.sync_engine)
    _ping_when_idle(engine.sync_engine, settings.ping_after)
    _leave_the_access_mode_open(engine.sync_engine)
    _refuse_lost_commit(engine.sync_engine)
    return engine


def read_only(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine with transactions that PostgreSQL holds to reading, on the same pool.

    An option of a connection that would lift this is refused with ConfigurationError.
    """
    reading = engine.execution_options(postgresql_readonly=True)
    event.listen(reading.sync_engine, "set_connection_execution_options", _refuse_to_write)
    return reading


async def retire(engine: AsyncEngine) -> None:
    """Close the pool; a connection that is in use is closed on its return."""
    _retired.add(engine.sync_engine)
    await engine.dispose()


def _refuse_to_write(_connection: Connection, options: Mapping[str, Any]) -> None:
    writes = options.get("postgresql_readonly") is False
    if writes or options.get("isolation_level") == "AUTOCOMMIT":
        msg = (
            "A read session cannot be made to write, nor to AUTOCOMMIT, which ends READ ONLY. Say "
            "@unit_of_work(read_only=False) of the view, or open a write session."
        )
        raise ConfigurationError(msg)


def _connect_arguments(url: URL, settings: EngineSettings) -> dict[str, Any]:
    given = connect_arguments(url)
    if url.get_driver_name() == "asyncpg":
        named = {"application_name": settings.application_name}
        parameters = {**named, **settings.parameters, **given["server_settings"]}
        return {"timeout": settings.connect_timeout, **given, "server_settings": parameters}
    options = " ".join(f"-c {name}={value}" for name, value in settings.parameters.items())
    return {
        "connect_timeout": max(2, round(settings.connect_timeout)),  # libpq has no shorter one
        "application_name": settings.application_name,
        **given,
        "options": f"{options} {given.get('options', '')}".strip(),
    }


def _connect(
    dialect: Dialect,
    _record: ConnectionPoolEntry,
    arguments: Sequence[Any],
    parameters: dict[str, Any],
) -> DBAPIConnection:
    # The drivers disagree: asyncpg lets OSError and TimeoutError through, libpq gives no SQLSTATE.
    # The dialect connects, never an `async_creator`: with one, "do_connect" would not be sent.
    try:
        return dialect.connect(*arguments, **parameters)
    except Exception as error:
        host = parameters.get("host") or "libpq's default"
        database = parameters.get("database") or parameters.get("dbname") or "libpq's default"
        msg = (
            f"No connection to PostgreSQL, host {host}, database {database}: "
            f"{type(error).__name__}: {error}"
        )
        raise DatabaseUnavailableError(msg) from error


def _take_back_only_what_is_whole(engine: Engine) -> None:
    # A session that ended while a task of its user still ran a statement leaves a transaction open:
    # the rollback fails, SQLAlchemy passes over that, and the next one to use it would be stuck.
    def check(connection: Any, record: ConnectionPoolEntry) -> None:
        if connection is not None and (engine in _retired or _in_transaction(record)):
            record.invalidate()

    event.listen(engine, "checkin", check)


def _in_transaction(record: ConnectionPoolEntry) -> bool:
    driver_connection: Any = record.driver_connection
    if hasattr(driver_connection, "is_in_transaction"):  # asyncpg
        return bool(driver_connection.is_in_transaction())
    return bool(driver_connection.info.transaction_status)  # psycopg: IDLE is 0


def _ping_when_idle(engine: Engine, ping_after: float) -> None:
    def note_return(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["stillroom.returned"] = time.monotonic()

    def ping(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        returned = record.info.get("stillroom.returned")
        if returned is None or time.monotonic() - returned < ping_after:
            return
        try:
            engine.dialect.do_ping(connection)
        except (engine.dialect.loaded_dbapi.Error, OSError) as error:
            # One stale connection says that the server was away: none of the pool is trusted.
            raise InvalidatePoolError from error

    event.listen(engine, "checkin", note_return)
    event.listen(engine, "checkout", ping)


def _leave_the_access_mode_open(engine: Engine) -> None:
    # After a read session SQLAlchemy sets psycopg's read_only to False, which means BEGIN READ
    # WRITE: a demoted primary refuses that with another error than the write (0A000, not 25006).
    def reset(connection: Any, _record: ConnectionPoolEntry, _proxy: object) -> None:
        if connection.read_only is False:
            connection.set_read_only(None)

    if engine.dialect.driver == "psycopg":
        event.listen(engine, "checkout", reset)


def _refuse_lost_commit(engine: Engine) -> None:
    # PostgreSQL answers the COMMIT of an aborted transaction with "ROLLBACK" and no error, and the
    # drivers pass over it: a caller that caught the error of a statement and went on would believe
    # its work to be committed. https://www.postgresql.org/docs/current/sql-commit.html
    def note_begin(connection: Connection) -> None:
        connection.info.pop(_FAILED, None)

    def note_error(context: ExceptionContext) -> None:
        if context.connection is not None and not context.is_disconnect:
            context.connection.info[_FAILED] = True

    def check(connection: Connection) -> None:
        if not connection.info.pop(_FAILED, False):
            return
        try:
            connection.exec_driver_sql("SELECT 1")  # refused while the transaction is aborted
        except DBAPIError as error:
            # SQLAlchemy takes a COMMIT that raises for the end of the transaction.
            engine.dialect.do_rollback(connection.connection)
            msg = (
                "Nothing was committed: a statement of the transaction had failed, which aborts "
                "all of it, and its error was passed over. Let the error out, or run a statement "
                "that may fail in a savepoint: async with session.begin_nested()."
            )
            raise UncommittedWritesError(msg) from error

    event.listen(engine, "begin", note_begin)
    event.listen(engine, "handle_error", note_error)
    event.listen(engine, "commit", check)


_FAILED = "stillroom.failed"

_retired: WeakSet[Engine] = WeakSet()
