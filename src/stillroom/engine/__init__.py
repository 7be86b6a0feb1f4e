"""An engine with settings that are right for a service, and a pool that can be relied on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Dialect, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from stillroom.engine.commit import refuse_lost_commit
from stillroom.engine.pool import watch_pool
from stillroom.engine.reading import READ_ONLY, hold_to_reading
from stillroom.errors import ConfigurationError, DatabaseUnavailableError
from stillroom.url import ADDRESS, connect_arguments

POOL_SIZE = 10
"""The size of a pool where neither the settings nor the number of processes says another."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Hold what a service asks of its connections; times are in seconds.

    A `statement_timeout`, `lock_timeout` or `client_check_interval` of 0 is none, as in PostgreSQL.
    Writes and reads have a pool each, of `pool_size`; None is 10, or what `stillroom serve` has
    found to fit where several processes share a database. It is fixed: overflow connections would
    be closed on return and opened anew under load, which costs half of the throughput. A connection
    that lay unused for longer than `ping_after` is pinged before it is handed out, so a restart of
    an idle database fails no request, and a busy pool pays no round trip for that.
    """

    pool_size: int | None = None
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
        if self.pool_size is not None and self.pool_size < 1:
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
    engine = _create_engine(url, settings, {}, options)
    refuse_lost_commit(engine.sync_engine)
    return engine


def create_read_engine(url: URL, settings: EngineSettings) -> AsyncEngine:
    """Create an engine that PostgreSQL itself holds to reading, whatever is run on it.

    A SELECT costs one round trip: it is a transaction by itself. Where work could tell that from a
    transaction of READ COMMITTED, one is begun: before a cursor, a savepoint, a function that is
    not known to be harmless, any statement but a SELECT. Two statements may differ in now(). An
    option of a connection that would let it write is refused with ConfigurationError.
    """
    options = {
        "isolation_level": "AUTOCOMMIT",
        "skip_autocommit_rollback": True,
        "pool_reset_on_return": None,  # what has a transaction is not taken back: see watch_pool
    }
    engine = _create_engine(url, settings, READ_ONLY, options)
    hold_to_reading(engine.sync_engine)
    return engine


def _create_engine(
    url: URL, settings: EngineSettings, parameters: Mapping[str, str], options: Mapping[str, Any]
) -> AsyncEngine:
    bare = url.set(query={name: url.query[name] for name in url.query if name in ADDRESS})
    defaults: dict[str, Any] = {
        "connect_args": _connect_arguments(url, settings, parameters),
        "pool_size": settings.pool_size or POOL_SIZE,
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
    watch_pool(engine.sync_engine, settings.ping_after)
    return engine


def _connect_arguments(
    url: URL, settings: EngineSettings, parameters: Mapping[str, str]
) -> dict[str, Any]:
    given = connect_arguments(url)
    if url.get_driver_name() == "asyncpg":
        named = {"application_name": settings.application_name}
        start = {**named, **settings.parameters, **given["server_settings"], **parameters}
        return {"timeout": settings.connect_timeout, **given, "server_settings": start}
    chosen, fixed = _options(settings.parameters), _options(parameters)
    return {
        "connect_timeout": max(2, round(settings.connect_timeout)),  # libpq has no shorter one
        "application_name": settings.application_name,
        **given,
        "options": f"{chosen} {given.get('options', '')} {fixed}".strip(),
    }


def _options(parameters: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in parameters.items())


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
            f"{type(error).__name__}: {_without_secrets(str(error), parameters)}"
        )
        raise DatabaseUnavailableError(msg) from error


def _without_secrets(text: str, parameters: Mapping[str, Any]) -> str:
    for name in ("password", "sslpassword"):
        if secret := parameters.get(name):
            text = text.replace(str(secret), "***")
    return text
