"""A database URL becomes an engine with settings that are right for a service."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import URL, Connection, Dialect, event, make_url
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from stillroom.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    UncommittedWritesError,
)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Hold what a service asks of its connections; times are in seconds, 0 is no limit.

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
        """Refuse a pool that could never hand out a connection."""
        if self.pool_size < 1:
            msg = f"pool_size is {self.pool_size}; a pool needs at least one connection"
            raise ConfigurationError(msg)

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


def parse_url(url: str | URL) -> URL:
    """Return the URL with the driver that will be used, asyncpg unless it names psycopg.

    Raises ConfigurationError, without the password, for what is no URL of PostgreSQL and for
    parameters that the driver does not have.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        msg = (
            "The database URL cannot be read (it is not shown here: it may hold a password). "
            "Write postgresql://user:password@host:5432/database, with special characters "
            "percent-encoded."
        )
        raise ConfigurationError(msg) from None
    drivername = _DRIVERS.get(parsed.drivername)
    if drivername is None:
        msg = (
            f"The database URL starts with {parsed.drivername}://, which Stillroom cannot use. "
            "Use postgresql:// (the driver is then asyncpg) or postgresql+psycopg://."
        )
        raise ConfigurationError(msg)
    parsed = parsed.set(drivername=drivername)
    _arguments(parsed, EngineSettings())
    return parsed


def create_engine(url: URL, settings: EngineSettings, **options: Any) -> AsyncEngine:
    """Create the engine for a URL of `parse_url`; nothing is opened and no event loop is needed.

    `options` go to SQLAlchemy's create_async_engine and win over what is chosen here.
    """
    bare = url.set(query={name: url.query[name] for name in url.query if name in _ADDRESS})
    defaults: dict[str, Any] = {
        "connect_args": _arguments(url, settings),
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
    _ping_when_idle(engine.sync_engine, settings.ping_after)
    _leave_the_access_mode_open(engine.sync_engine)
    _refuse_lost_commit(engine.sync_engine)
    return engine


_DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+psycopg",
    "postgresql+psycopg_async": "postgresql+psycopg",
}

# SQLAlchemy itself reads these from the query part, several hosts included.
_ADDRESS = frozenset({"host", "port"})

# libpq's parameters that asyncpg understands in a DSN; the rest of libpq's has no counterpart.
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_ASYNCPG_DSN = frozenset({
    "gsslib", "krbsrvname", "passfile", "service", "ssl_max_protocol_version",
    "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslpassword", "sslrootcert", "target_session_attrs",
})  # fmt: skip

# What libpq would do anyway where nothing is said, so saying it asks nothing of asyncpg.
_HARMLESS = {
    "channel_binding": {"disable", "prefer"},
    "client_encoding": {"utf8", "utf-8"},
    "gssencmode": {"disable", "prefer"},
    "keepalives": {"1"},
}


def _arguments(url: URL, settings: EngineSettings) -> dict[str, Any]:
    query: dict[str, str] = {}
    for name, value in url.query.items():
        if name in _ADDRESS:
            continue
        if not isinstance(value, str):
            msg = f"The database URL gives the parameter {name} more than once; give it once."
            raise ConfigurationError(msg)
        query[name] = value
    if url.get_driver_name() == "asyncpg":
        return _asyncpg_arguments(query, settings)
    return _psycopg_arguments(query, settings)


def _asyncpg_arguments(query: Mapping[str, str], settings: EngineSettings) -> dict[str, Any]:
    parameters = {"application_name": settings.application_name, **settings.parameters}
    arguments: dict[str, Any] = {
        "timeout": settings.connect_timeout,
        "server_settings": parameters,
    }
    dsn: dict[str, str] = {}
    refused: list[str] = []
    for name, value in query.items():
        if name in _ASYNCPG_DSN:
            dsn[name] = value
        elif name == "ssl":
            dsn["sslmode"] = value
        elif name == "connect_timeout":
            arguments["timeout"] = _seconds(name, value)
        elif name in {"application_name", "options"}:
            parameters[name] = value
        elif value.lower() not in _HARMLESS.get(name, ()):
            refused.append(name)
    if refused:
        msg = (
            f"The database URL has parameters that asyncpg does not know: {', '.join(refused)}. "
            "Remove them, or use libpq's driver: postgresql+psycopg://"
        )
        raise ConfigurationError(msg)
    if dsn:
        arguments["dsn"] = "postgresql:///?" + urlencode(dsn)
    return arguments


def _psycopg_arguments(query: Mapping[str, str], settings: EngineSettings) -> dict[str, Any]:
    try:
        from psycopg import ProgrammingError  # noqa: PLC0415 - an extra: only its users have it
        from psycopg.conninfo import make_conninfo  # noqa: PLC0415
    except ImportError as error:
        msg = "The database URL asks for psycopg: pip install 'stillroom[psycopg]'"
        raise ConfigurationError(msg) from error
    options = " ".join(f"-c {name}={value}" for name, value in settings.parameters.items())
    arguments: dict[str, Any] = {
        "connect_timeout": max(2, round(settings.connect_timeout)),  # libpq has no shorter one
        "application_name": settings.application_name,
        **query,
        "options": f"{options} {query.get('options', '')}".strip(),
    }
    try:
        make_conninfo(**arguments)
    except ProgrammingError as error:
        msg = f"The database URL has a parameter that libpq refuses: {error}. Remove it."
        raise ConfigurationError(msg) from error
    return arguments


def _seconds(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        msg = f"The database URL gives {name}={value}, which is no number of seconds."
        raise ConfigurationError(msg) from None


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
