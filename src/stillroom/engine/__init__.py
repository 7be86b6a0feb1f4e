"""An engine with settings that are right for a service, and a pool that can be relied on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import URL, Dialect, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from stillroom.engine.commit import refuse_lost_commit, settle_lost_commits
from stillroom.engine.hosts import Hosts
from stillroom.engine.limits import limited_by_asyncpg, limited_by_psycopg
from stillroom.engine.listeners import own_listeners
from stillroom.engine.outcome import Inquiry
from stillroom.engine.plans import give_up_old_plans, renew_old_plans
from stillroom.engine.pool import ConnectionPool
from stillroom.engine.pooler import Pooler, set_pooler
from stillroom.engine.reading import READ_ONLY, hold_to_reading
from stillroom.errors import ConfigurationError
from stillroom.url import ADDRESS, LED_TO, connect_arguments

POOL_SIZE = 10
"""The size of a pool where neither the settings nor the number of processes says another."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Hold what a service asks of its connections; times are in seconds.

    A `statement_timeout`, `lock_timeout` or `client_check_interval` of 0 is none, as in PostgreSQL.
    Writes and reads have a pool each, of `pool_size`; None is 10, or what `stillroom serve` has
    found to fit where several processes share a database. It is fixed: overflow connections would
    be closed on return and opened anew under load, which costs half of the throughput. Who finds
    none free waits for `pool_timeout` at most; no more wait than could be served in a quarter of
    it, and from when one waits for longer than `queue_target` the newest is served first, until all
    could be served within that (`stillroom.engine.admission.Line`). A connection that lay unused
    for longer than `ping_after` is pinged before it is handed out, so a restart of an idle
    database fails no request, and a busy pool pays no round trip for that. With `settle_commits` a
    transaction says its id before COMMIT, which is a round trip, so that PostgreSQL can be asked
    what became of it where the connection is lost.

    `pgbouncer` says whether PgBouncer in transaction mode is between; None finds out at the first
    connection. Through it each transaction says its own timeouts, where they are above 0, reads
    are READ ONLY transactions, and `client_check_interval` is PostgreSQL's own.
    """

    pool_size: int | None = None
    pool_timeout: float = 1.0
    queue_target: float = 0.1
    connect_timeout: float = 5.0
    ping_after: float = 1.0
    recycle_after: float = 1800.0
    statement_timeout: float = 10.0
    lock_timeout: float = 0.0
    client_check_interval: float = 0.5
    settle_commits: bool = True
    application_name: str = "stillroom"
    pgbouncer: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what could not work: a pool of no connections, a time that is none."""
        if self.pool_size is not None and self.pool_size < 1:
            msg = f"pool_size is {self.pool_size}; a pool needs at least one connection"
            raise ConfigurationError(msg)
        for name in ("pool_timeout", "queue_target", "connect_timeout", "recycle_after"):
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

    @property
    def limits(self) -> str:
        """Return what each transaction says by itself, where a session cannot say it for all."""
        return " ".join(
            f"SET LOCAL {name} = {self.parameters[name]};"
            for name in ("statement_timeout", "lock_timeout")
            if float(self.parameters[name])
        )


def _require(name: str, value: float, holds: bool, what: str) -> None:
    if not holds or not math.isfinite(value):
        msg = f"{name} is {value}; it is a time in seconds, {what}"
        raise ConfigurationError(msg)


def create_engine(url: URL, settings: EngineSettings, **options: Any) -> AsyncEngine:
    """Create the engine for a URL of `parse_url`; nothing is opened and no event loop is needed.

    `options` go to SQLAlchemy's create_async_engine and win over what is chosen here.
    """
    engine = _create_engine(url, settings, {}, options)
    with own_listeners(engine.sync_engine):
        refuse_lost_commit(engine.sync_engine)
        if url.get_driver_name() == "asyncpg":
            renew_old_plans(engine.sync_engine)
        if settings.settle_commits and "poolclass" not in options:
            settle_lost_commits(engine.sync_engine, inquiry(url, settings))
    return engine


def inquiry(url: URL, settings: EngineSettings) -> Inquiry:
    """Return what asks the database of a URL, outside of every pool, how a transaction ended."""
    options = {"poolclass": NullPool, "isolation_level": "AUTOCOMMIT"}
    return Inquiry(lambda: create_engine(url, settings, **options))


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
    with own_listeners(engine.sync_engine):
        hold_to_reading(engine.sync_engine)
    return engine


def _create_engine(
    url: URL, settings: EngineSettings, parameters: Mapping[str, str], options: Mapping[str, Any]
) -> AsyncEngine:
    bare = url.set(query={name: url.query[name] for name in url.query if name in ADDRESS})
    defaults: dict[str, Any] = {
        "connect_args": _connect_arguments(url, settings, parameters),
        "poolclass": ConnectionPool,
        "pool_size": settings.pool_size or POOL_SIZE,
        "pool_timeout": settings.pool_timeout,
        "pool_recycle": settings.recycle_after,
        "queue_target": settings.queue_target,
        "ping_after": settings.ping_after,
        "hide_parameters": True,
    }
    if "poolclass" in options:
        defaults = {name: defaults[name] for name in ("connect_args", "hide_parameters")}
    engine = create_async_engine(bare, **{**defaults, **options})
    _connect_by(engine.sync_engine, url, settings, is_read=bool(parameters))
    if url.get_driver_name() == "psycopg":
        with own_listeners(engine.sync_engine):
            event.listen(engine.sync_engine, "checkout", _leave_the_access_mode_open)
        event.listen(engine.sync_engine, "handle_error", give_up_old_plans)
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


def _connect_by(engine: Engine, url: URL, settings: EngineSettings, *, is_read: bool) -> None:
    hosts, elsewhere = Hosts(_session(url, is_read=is_read)), Hosts(None)
    pooler = Pooler(settings.pgbouncer, partial(_arguments_through, url, settings))
    set_pooler(engine, pooler)

    # The dialect connects, never an `async_creator`: with one, "do_connect" would not be sent.
    def connect(
        dialect: Dialect,
        record: ConnectionPoolEntry | None,
        positional: Sequence[Any],
        arguments: dict[str, Any],
    ) -> DBAPIConnection:
        def open_by(these: Mapping[str, Any]) -> DBAPIConnection:
            return dialect.connect(*positional, **these)

        if record is not None and (record.record_info or {}).get(LED_TO) is not None:
            return elsewhere.connect(open_by, arguments)
        return hosts.connect(partial(pooler.connect, open_by), arguments)

    event.listen(engine, "do_connect", connect)


def _session(url: URL, *, is_read: bool) -> str | None:
    session = url.query.get("target_session_attrs")
    assert session is None or isinstance(session, str)  # noqa: S101  (parse_url has looked)
    return _OF_READS.get(session, session) if is_read and session else session


def _arguments_through(
    url: URL, settings: EngineSettings, keeps_statements: bool
) -> dict[str, Any]:
    """Return what replaces arguments of the driver where a pooler is between."""
    given = connect_arguments(url)
    if url.get_driver_name() == "asyncpg":
        start = {"application_name": settings.application_name, **given["server_settings"]}
        caches = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        return {
            "server_settings": start,
            "connection_class": limited_by_asyncpg(settings.limits),
            **({} if keeps_statements else caches),
        }
    return {
        "options": given.get("options"),
        "async_creator_fn": limited_by_psycopg(settings.limits),
        **({} if keeps_statements else {"prepare_threshold": None}),
    }


def _leave_the_access_mode_open(
    connection: Any, _record: ConnectionPoolEntry, _proxy: object
) -> None:
    # After a read session SQLAlchemy sets psycopg's read_only to False, which means BEGIN READ
    # WRITE: a demoted primary refuses that with another error than the write (0A000, not 25006).
    if connection.read_only is False:
        connection.set_read_only(None)


# A session of reads never takes a write, so its server is asked whether it could.
_OF_READS = {"read-write": "primary", "read-only": "standby"}
