"""A statement that is a transaction by itself, past what SQLAlchemy puts around one.

A Connection, a cursor and a result cost as much as PostgreSQL's answer to a small statement. Errors
are what they would be with them, and connections are those of SQLAlchemy's pool.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, MissingGreenlet, NoResultFound
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from stillroom.engine.driver import (
    busy_lock,
    fetch_row,
    fetches_rows,
    note_old_types,
    renew_types,
)
from stillroom.engine.listeners import is_heard, pool_is_heard
from stillroom.engine.pool import ConnectionPool
from stillroom.engine.pooler import goes_through_pooler
from stillroom.engine.reading import enter_autocommit, is_the_same_alone, leave_autocommit

Row = Sequence[Any]

T = TypeVar("T")


def can_read_alone(engine: Engine, statement: str) -> bool:
    """Say whether `read_alone` answers a statement as a connection would, and nobody watches it.

    A read engine has no listeners of its own to statements, so SQLAlchemy's flag says enough.
    """
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
        await _give_back(engine, proxied)


async def write_alone(
    engine: Engine,
    proxied: PoolProxiedConnection,
    work: Callable[[Connection], T],
    compiled: Callable[[Dialect], tuple[str, Any] | None] | None = None,
) -> T:
    """Run a statement that commits by itself on a connection, which goes back to the pool.

    It is run by the function, and what that returns is returned. Where nobody listens, `compiled`
    may say its text and parameters instead, and its first value is returned. A connection whose
    server takes no writes any more is closed. Raises sqlalchemy.exc.NoResultFound for no row.
    """
    is_light = fetches_rows(engine.dialect) and not (
        is_heard(engine) or goes_through_pooler(engine.dialect)
    )
    try:
        given = compiled(engine.dialect) if compiled and is_light else None
        if given is None:
            return await greenlet_spawn(_write_by_connection, engine, proxied, work)
        value: T = first_value(await _fetch(engine, proxied, *given))
    except DBAPIError as error:
        if proxied.is_valid and _takes_no_writes(error):
            await greenlet_spawn(proxied.invalidate)
        raise
    finally:
        await _give_back(engine, proxied)
    return value


def first_value(row: Row | None) -> Any:
    """Return the value that an INSERT ... RETURNING answers; raises NoResultFound for no row."""
    if row is None:
        msg = (
            "The INSERT has written no row: a trigger or a rule of the table has kept it out. "
            "Let it raise an error instead, or insert with Model.create_many."
        )
        raise NoResultFound(msg)
    return row[0]


async def take(engine: Engine) -> PoolProxiedConnection:
    """Return a connection of the pool; who is cancelled before has none, and has sent nothing.

    Raises what `Engine.connect` does.
    """
    pool = engine.pool
    try:
        is_ready = isinstance(pool, ConnectionPool) and await pool.reserve()
        if is_ready and _needs_no_greenlet(engine):
            with suppress(MissingGreenlet):  # it became too old within a microsecond
                return pool.connect()
        return await greenlet_spawn(pool.connect)
    except engine.dialect.loaded_dbapi.Error as error:
        Connection._handle_dbapi_exception_noconnection(error, engine.dialect, engine)
        raise


async def _give_back(engine: Engine, proxied: PoolProxiedConnection) -> None:
    if not proxied.is_valid:
        return  # it is back already, or lost
    if _needs_no_greenlet(engine):
        proxied.close()
    else:
        await greenlet_spawn(proxied.close)


def _needs_no_greenlet(engine: Engine) -> bool:
    """Say whether connections come and go without waiting, which only a greenlet can."""
    is_ready = fetches_rows(engine.dialect) and isinstance(engine.pool, ConnectionPool)
    return is_ready and not pool_is_heard(engine)


async def _fetch(
    engine: Engine, proxied: PoolProxiedConnection, statement: str, parameters: Any
) -> Row | None:
    dbapi_connection = proxied.dbapi_connection
    try:
        async with busy_lock(dbapi_connection):
            await renew_types(dbapi_connection, engine.dialect)
            return await fetch_row(dbapi_connection, statement, parameters)
    except BaseException as error:
        note_old_types(engine.dialect, error)
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


def _write_by_connection(
    engine: Engine, proxied: PoolProxiedConnection, work: Callable[[Connection], T]
) -> T:
    with Connection(engine, proxied) as connection:
        enter_autocommit(connection)
        try:
            result = work(connection)
            connection.commit()  # for those who listen: PostgreSQL has done it
        except DBAPIError as error:
            if _takes_no_writes(error):
                connection.invalidate()
            raise
        finally:
            if not connection.invalidated:
                leave_autocommit(connection)
    return result


def _takes_no_writes(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == "25006"
