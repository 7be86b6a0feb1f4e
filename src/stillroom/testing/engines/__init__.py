"""Where the engines of the process connect to during a run of tests, whatever their URLs say.

`install()` once, then `direct_to()` whenever another database is the test's. From then on a
connection that an engine makes leads to the target, one that a pool has kept for another target is
replaced when it is taken, and one that a driver is asked for past the engines is refused.
"""

import asyncio
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakSet

from sqlalchemy import URL, Connection, Dialect, event, make_url
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from stillroom.errors import StillroomError
from stillroom.testing.callsite import find_call_site
from stillroom.testing.engines import pools
from stillroom.testing.engines.arguments import to_database, to_wire
from stillroom.testing.engines.drivers import Watch
from stillroom.testing.engines.places import Place
from stillroom.testing.refusal import MARKER
from stillroom.testing.wire.transport import AnyLoop
from stillroom.url import LED_TO


class Target(Protocol):
    """What engines connect to."""

    @property
    def place(self) -> Place | None:
        """Return the database that drivers may connect to by themselves, if there is one yet."""
        ...

    def direct(self, dialect: Dialect, arguments: dict[str, Any], /) -> None:
        """Change a driver's arguments so that it connects here and nowhere else."""
        ...


class StrayConnectionError(StillroomError):
    """Refuse a connection that would leave the databases of the run."""


class SandboxTarget:
    """Send engines into the sandbox."""

    place = None

    def __init__(self, loop: AnyLoop) -> None:
        self._loop = loop

    def direct(self, dialect: Dialect, arguments: dict[str, Any]) -> None:
        """Let asyncpg connect by a wire. Raises StrayConnectionError for any other driver."""
        if dialect.driver != "asyncpg":
            raise StrayConnectionError(
                f"An engine for {dialect.driver} was used by {_caller()} in a test that runs in "
                "the sandbox, which knows asyncpg alone. Give the test a database of its own, "
                f"where {dialect.driver} works: {MARKER}"
            )
        to_wire(arguments, self._loop)


class DatabaseTarget:
    """Send engines to one database, by their own drivers; asyncpg by a wire, where one is given.

    Connections that are opened past the engines may lead to this database too.
    """

    def __init__(self, url: str | URL, loop: AnyLoop | None = None) -> None:
        self.url = make_url(url)
        self.place: Place | None = Place.of_url(self.url)
        self._loop = loop

    def direct(self, dialect: Dialect, arguments: dict[str, Any]) -> None:
        """Put this database in the place of the one that the engine's URL names.

        Raises StrayConnectionError for a driver that is none of asyncpg, psycopg and psycopg2.
        """
        if dialect.driver not in _DRIVERS:
            raise StrayConnectionError(
                f"An engine for {dialect.driver} was used by {_caller()}. What that driver takes "
                f"from its environment is not known here. Use one of {', '.join(_DRIVERS)}"
            )
        if self._loop is not None and dialect.driver == "asyncpg":
            to_wire(arguments, self._loop)
        else:
            to_database(dialect, arguments, self.url)


class NoTarget:
    """Refuse all connections: there is no database that they could go to."""

    place = None

    def __init__(self, reason: str) -> None:
        """Take why there is none, and what to do, without a full stop."""
        self._reason = reason

    def direct(self, dialect: Dialect, arguments: dict[str, Any]) -> None:
        """Raise StrayConnectionError."""
        _ = arguments
        raise StrayConnectionError(
            f"{_caller()} used an engine for {dialect.driver}, and nothing was opened: "
            f"{self._reason}"
        )


def install() -> None:
    """Listen to every engine and driver of the process, to those that exist already too.

    Nothing happens without a target.
    """
    for subject, name, listener in _LISTENERS:
        if not event.contains(subject, name, listener):
            event.listen(subject, name, listener)
    _watch.start()
    pools.install()


def uninstall() -> None:
    """Leave engines and drivers as they were before `install()`."""
    direct_to(None)
    _watch.stop()
    pools.uninstall()
    for subject, name, listener in _LISTENERS:
        if event.contains(subject, name, listener):
            event.remove(subject, name, listener)


def direct_to(target: Target | None) -> None:
    """Send new connections to a target; pooled ones of another target are replaced when used.

    With None engines connect to where their URLs say, and drivers to where they are told.
    """
    global _target, _process
    _target, _process = target, os.getpid()


def directed_to() -> Target | None:
    """Return where new connections are sent."""
    return _target


@contextmanager
def routed(url: str | URL) -> Generator[None]:
    """Send this thread, and those that start while the block runs, to one database.

    Other threads go on where they are: a database that is being prepared is not theirs.
    """
    global _route  # noqa: PLW0603
    before = _route
    current = threading.current_thread()
    others = WeakSet(thread for thread in threading.enumerate() if thread is not current)
    install()
    _route = _Route(DatabaseTarget(url), others)
    try:
        yield
    finally:
        _route = before


def is_routed() -> bool:
    """Say whether this thread is away from the test's database: what it does is not the test's."""
    return _route is not None and threading.current_thread() not in _route.others


def allow(url: str | URL) -> None:
    """Let engines and drivers connect to a database that the run has made for the test."""
    _allowed.add(Place.of_url(url))


def disallow(url: str | URL) -> None:
    """Take back what `allow()` said."""
    _allowed.discard(Place.of_url(url))


def take_strays() -> list[StrayConnectionError]:
    """Return what was refused since the last call, for an application may pass over an error."""
    return [_strays.pop(0) for _ in range(len(_strays))]


@dataclass(frozen=True)
class _Route:
    target: Target
    others: WeakSet[threading.Thread]


def _direct(
    dialect: Dialect,
    record: ConnectionPoolEntry | None,  # a creator that is called by itself has none
    positional: list[Any],
    arguments: dict[str, Any],
) -> None:
    if dialect.name != "postgresql":
        return
    target = _current()
    _note(record, _IS_DIRECTED, value=True)
    if target is None or _is_allowed(dialect, positional, arguments):
        _note(record, _KEY, target and _ALLOWED)
        return
    positional.clear()  # a connection string of libpq's
    try:
        target.direct(dialect, arguments)
    except StrayConnectionError as error:
        raise _stray(str(error)) from None
    _note(record, _KEY, target)


def _is_allowed(dialect: Dialect, positional: list[Any], arguments: dict[str, Any]) -> bool:
    if not _allowed or any(positional) or not arguments.keys().isdisjoint({"dsn", "conninfo"}):
        return False
    if dialect.driver == "asyncpg":
        names = {"host": "", "port": 5432, "database": ""}
        return Place(*(str(arguments.get(*pair)) for pair in names.items())) in _allowed
    return Place.of_libpq(arguments) in _allowed


def _check_new(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    # An engine with a creator of its own is not asked where to; if the creator's driver was, it is
    # known to lead to where the test may go.
    is_directed = (record.record_info or {}).pop(_IS_DIRECTED, False)
    if is_directed or not (drivers := _drivers(record)):
        return
    target = _current()
    if target is not None and drivers.isdisjoint(_DRIVERS):
        raise _stray(
            f"An engine with a creator of its own was used by {_caller()}, with the driver "
            f"{', '.join(drivers)}: where it has connected to is not known. Make the engine of a "
            "URL, which is led to the test's database"
        )
    _note(record, _KEY, target)


def _check_taken(_connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    if not _leads_to(record.record_info, _current()) and _drivers(record):
        raise DisconnectionError  # the pool makes a new one, for this target


def _check_used(connection: Connection, *_: object) -> None:
    target = _current()
    if target is None or connection.dialect.name != "postgresql":
        return
    info = connection.connection.record_info  # it has none when it was detached from its pool
    if info is not None and not _leads_to(info, target):
        raise _stray(
            f"{_caller()} used a connection that was opened for another database than the test's, "
            "and kept open since: nothing was sent. Close the connection or session before a test "
            f"that has a database of its own ({MARKER}) begins or ends, and open another one"
        )


def _check_driver(driver: str, place: Place) -> None:
    target = _current()
    if target is None or place == target.place or place in _allowed:
        return
    raise _stray(
        f"{_caller()} asked {driver} for a connection past the engines: {place}. In a run of tests "
        "that could be any database, so nothing was opened. Use an engine or a session of "
        f"SQLAlchemy, which is led to the test's database; or mark the test with {MARKER} and "
        "connect to the URL of its fixture stillroom_url"
    )


def _current() -> Target | None:
    if _route is not None and threading.current_thread() not in _route.others:
        return _route.target
    if _target is not None and os.getpid() != _process:
        return _FORKED
    return _target


def _note(record: ConnectionPoolEntry | None, key: str, value: object) -> None:
    if record is not None and record.record_info is not None:
        record.record_info[key] = value


def _leads_to(info: dict[Any, Any] | None, target: Target | None) -> bool:
    return info is None or info.get(_KEY) in (target, _ALLOWED)


def _drivers(record: ConnectionPoolEntry) -> set[str]:
    kinds = type(record.driver_connection).__mro__
    return {kind.__module__.partition(".")[0] for kind in kinds} & _OF_POSTGRESQL


def _stray(message: str) -> StrayConnectionError:
    _strays.append(StrayConnectionError(message))  # one that is not raised, so it keeps no frame
    return StrayConnectionError(message)


def _caller() -> str:
    site = find_call_site()
    if site is not None:
        return str(site)
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return f"task {task.get_name()}" if task else f"thread {threading.current_thread().name}"


_FORKED = NoTarget(
    "this process was forked from that of the tests, where the connections of a test end. Start it "
    f"anew (spawn, or a subprocess), and give the test a database of its own: {MARKER}"
)

_DRIVERS = ("asyncpg", "psycopg", "psycopg2")
_OF_POSTGRESQL = {*_DRIVERS, "pg8000", "psycopg2cffi"}

# In `record_info`, which each connection writes anew: `info` is the application's.
_IS_DIRECTED = "stillroom.is_directed"
_KEY = LED_TO
_ALLOWED = object()

_target: Target | None = None
_process = 0  # which process the target is of
_route: _Route | None = None
_allowed: set[Place] = set()
_strays: list[StrayConnectionError] = []
_watch = Watch(_check_driver)

_LISTENERS: tuple[tuple[type[Engine | Pool], str, Any], ...] = (
    (Engine, "do_connect", _direct),
    (Pool, "connect", _check_new),
    (Pool, "checkout", _check_taken),
    (Engine, "before_cursor_execute", _check_used),
)
