"""A statement that is a transaction by itself, past what SQLAlchemy puts around one.

A Connection, a cursor and a result cost as much as PostgreSQL's answer to a small statement. Errors
are what they would be with them, and connections are those of SQLAlchemy's pool.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, MissingGreenlet
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from stillroom.engine.driver import busy_lock, fetch_row, fetches_rows
from stillroom.engine.pooler import goes_through_pooler
from stillroom.engine.reading import enter_autocommit, is_the_same_alone, leave_autocommit

Row = Sequence[Any]

T = TypeVar("T")


def can_read_alone(engine: Engine, statement: str) -> bool:
    """Say whether `read_alone` answers a statement as a connection would, and nobody watches it."""
    return (
        not (engine._has_events or engine._should_log_info() or goes_through_pooler(engine.dialect))
        and getattr(engine.dialect, "default_isolation_level", None) == "READ COMMITTED"
        and is_the_same_alone(statement)
    )


async def read_alone(
    engine: Engine,
    statement: str,
    parameters: Any,
    note: Callable[[PoolProxiedConnection], None],
) -> Row | None:
    """Return the first row of a statement that needs no transaction, or None.

    With asyncpg it goes without SQLAlchemy's cursor and, where a connection lies ready, a greenlet
    too. `note` is told on which connection it runs.
    """
    if not fetches_rows(engine.dialect):
        return await greenlet_spawn(_read_by_cursor, engine, statement, parameters, note)
    proxied = await take(engine)
    note(proxied)
    try:
        return await _fetch(engine, proxied, statement, parameters)
    finally:
        proxied.close()


async def write_alone(
    engine: Engine,
    proxied: PoolProxiedConnection,
    work: Callable[[Connection], T],
    compiled: Callable[[Dialect], tuple[str, Any] | None] | None = None,
) -> T:
    """Run a statement that commits by itself on a connection, which goes back to the pool.

    It is run by the function, and what that returns is returned. Where nobody listens, `compiled`
    may say its text and parameters instead, and its first value is returned. A connection whose
    server takes no writes any more is closed.
    """
    is_light = compiled is not None and _can_write_alone(engine)
    try:
        given = compiled(engine.dialect) if compiled and is_light else None
        if given is None:
            return await greenlet_spawn(_write_by_connection, engine, proxied, work)
        row: Any = await _fetch(engine, proxied, *given)
        value: T = row[0]
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "25006" and proxied.is_valid:
            await greenlet_spawn(proxied.invalidate)
        raise
    finally:
        if is_light and not proxied.is_detached:
            proxied.close()
        else:
            await greenlet_spawn(proxied.close)
    return value


@contextmanager
def own_listeners(engine: Engine) -> Generator[None]:
    """Know the listeners that are added within for those that a lone statement needs not tell."""
    before = _listeners(engine)
    yield
    _own_listeners[engine] = _listeners(engine) - before


async def take(engine: Engine) -> PoolProxiedConnection:
    """Return a connection of the pool; who is cancelled before has none, and has sent nothing."""
    if not fetches_rows(engine.dialect):
        return await greenlet_spawn(engine.raw_connection)
    pool: Any = engine.pool
    await pool.reserve()
    try:
        return engine.raw_connection()
    except MissingGreenlet:  # it has become stale since, within a microsecond, and is made anew
        return await greenlet_spawn(engine.raw_connection)


async def _fetch(
    engine: Engine, proxied: PoolProxiedConnection, statement: str, parameters: Any
) -> Row | None:
    try:
        async with busy_lock(proxied.dbapi_connection):
            return await fetch_row(proxied.dbapi_connection, statement, parameters)
    except BaseException as error:
        await greenlet_spawn(_raise, error, engine, proxied, statement, parameters)
        raise


def _read_by_cursor(
    engine: Engine,
    statement: str,
    parameters: Any,
    note: Callable[[PoolProxiedConnection], None],
) -> Row | None:
    proxied = engine.raw_connection()
    note(proxied)
    cursor = proxied.cursor()
    try:
        cursor.execute(statement, parameters)
        row: Row | None = cursor.fetchone()
        cursor.close()
    except BaseException as error:
        _raise(error, engine, proxied, statement, parameters)
        raise
    finally:
        proxied.close()
    return row


def _raise(
    error: BaseException,
    engine: Engine,
    proxied: PoolProxiedConnection,
    statement: str,
    parameters: Any,
) -> None:
    """Raise the error of a driver as a Connection would, which gives up one that is lost."""
    if isinstance(error, Exception) and not isinstance(error, engine.dialect.loaded_dbapi.Error):
        return
    connection = Connection(engine, proxied)
    try:
        raise error  # noqa: TRY301  (it is taken from what is handled, and a greenlet handles nothing)
    except BaseException:  # noqa: BLE001  (this raises it)
        connection._handle_dbapi_exception(error, statement, parameters, None, None)


def _can_write_alone(engine: Engine) -> bool:
    return (
        fetches_rows(engine.dialect)
        and not (engine._should_log_info() or goes_through_pooler(engine.dialect))
        and _listeners(engine) == _own_listeners.get(engine)
    )


def _write_by_connection(
    engine: Engine, proxied: PoolProxiedConnection, work: Callable[[Connection], T]
) -> T:
    connection = Connection(engine, proxied)
    enter_autocommit(connection)
    try:
        result = work(connection)
        connection.commit()  # for those who listen: PostgreSQL has done it
    finally:
        if not connection.invalidated:
            leave_autocommit(connection)
    return result


def _listeners(engine: Engine) -> int:
    heard: Any = engine.dispatch
    by_dialect: Any = engine.dialect.dispatch
    return (
        len(heard.before_cursor_execute)
        + len(heard.after_cursor_execute)
        + len(heard.engine_connect)
        + len(heard.begin)
        + len(heard.commit)
        + len(by_dialect.do_execute)
    )


_own_listeners: WeakKeyDictionary[Engine, int] = WeakKeyDictionary()
