"""Where the engines of the process connect to during a run of tests, whatever their URLs say."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import URL, Dialect, event, make_url
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from stillroom.errors import StillroomError
from stillroom.testing.refusal import MARKER
from stillroom.testing.transport import AnyLoop


class Target(Protocol):
    """A place that engines connect to."""

    def direct(self, dialect: Dialect, arguments: dict[str, Any], /) -> None:
        """Change a driver's arguments so that it connects here and nowhere else."""
        ...


class StrayConnectionError(StillroomError):
    """Refuse a connection that would leave the databases of the run."""


class SandboxTarget:
    """Send engines into the sandbox."""

    def __init__(self, loop: AnyLoop) -> None:
        self._loop = loop

    def direct(self, dialect: Dialect, arguments: dict[str, Any]) -> None:
        """Let asyncpg connect by a wire. Raises StrayConnectionError for any other driver."""
        if dialect.driver != "asyncpg":
            msg = (
                f"An engine for {dialect.driver} was used in a test that runs in the sandbox, "
                f"which knows asyncpg alone. Give the test a database of its own: {MARKER}"
            )
            raise StrayConnectionError(msg)
        _wire(arguments, self._loop)


class DatabaseTarget:
    """Send engines to one database, by their own drivers; asyncpg by a wire, where one is given."""

    def __init__(self, url: str | URL, loop: AnyLoop | None = None) -> None:
        self.url = make_url(url)
        self._loop = loop

    def direct(self, dialect: Dialect, arguments: dict[str, Any]) -> None:
        """Put this database in the place of the one that the engine's URL names."""
        if self._loop is not None and dialect.driver == "asyncpg":
            _wire(arguments, self._loop)
            return
        _keep(arguments, _OF_ASYNCPG if dialect.driver == "asyncpg" else _OF_LIBPQ)
        url = self.url.set(drivername=f"postgresql+{dialect.driver}")
        arguments.update(dialect.create_connect_args(url)[1])


class NoTarget:
    """Refuse all connections: no test runs."""

    def direct(self, dialect: Dialect, _arguments: dict[str, Any]) -> None:
        """Raise StrayConnectionError."""
        msg = (
            f"An engine ({dialect.name}+{dialect.driver}) was used while no test runs, so there is "
            "no database that it may use. Connect in a fixture or in a test"
        )
        raise StrayConnectionError(msg)


def install() -> None:
    """Listen to every engine of the process, to those that exist already too.

    The hooks stay, and do nothing without a target.
    """
    if not event.contains(Engine, "do_connect", _direct):
        event.listen(Engine, "do_connect", _direct)
        event.listen(Pool, "checkout", _check)


def direct_to(target: Target | None) -> None:
    """Send new connections to a target; pooled ones of another target are replaced when used.

    With None engines connect to where their URLs say.
    """
    global _target  # noqa: PLW0603  (engines are hooked by their class: there is one for all)
    _target = target


@contextmanager
def routed(url: str | URL) -> Generator[None]:
    """Send all engines of the process to one database, for as long as the block runs."""
    before = _target
    install()
    direct_to(DatabaseTarget(url))
    try:
        yield
    finally:
        direct_to(before)


def _direct(
    dialect: Dialect,
    record: ConnectionPoolEntry,
    _arguments: Sequence[Any],
    parameters: dict[str, Any],
) -> None:
    if _target is not None and dialect.name == "postgresql":
        _target.direct(dialect, parameters)
        record.info[_KEY] = _target


def _check(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    if _target is None or record.info.get(_KEY) is _target:
        return
    if type(connection).__module__.startswith("sqlalchemy.dialects.postgresql") or (
        "psycopg" in type(connection).__module__
    ):
        raise DisconnectionError  # the pool makes a new one, for this target


def _wire(arguments: dict[str, Any], loop: AnyLoop) -> None:
    _keep(arguments, _OF_ASYNCPG)
    # The password keeps asyncpg from looking for one in files.
    arguments.update(host="/wire", user="wire", password="-", database="wire", loop=loop)  # noqa: S106


def _keep(arguments: dict[str, Any], names: frozenset[str]) -> None:
    for name in arguments.keys() - names:
        del arguments[name]


_KEY = "stillroom.target"
_target: Target | None = None

# What does not say where to connect to, and as whom.
_OF_ASYNCPG = frozenset(
    {
        "timeout",
        "command_timeout",
        "statement_cache_size",
        "max_cached_statement_lifetime",
        "max_cacheable_statement_size",
        "connection_class",
        "record_class",
        "server_settings",
        "prepared_statement_cache_size",
        "prepared_statement_name_func",
    }
)
_OF_LIBPQ = frozenset(
    {
        "application_name",
        "autocommit",
        "client_encoding",
        "connect_timeout",
        "cursor_factory",
        "options",
        "prepare_threshold",
        "row_factory",
    }
)
