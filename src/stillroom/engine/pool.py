"""Connections on their way out of the pool and back: whole, alive, and as they were."""

import time
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry


def watch_pool(engine: Engine, ping_after: float) -> None:
    """Take back only what is whole, and hand out only what is alive."""
    _take_back_only_what_is_whole(engine)
    _ping_when_idle(engine, ping_after)
    _leave_the_access_mode_open(engine)


async def retire(engine: AsyncEngine) -> None:
    """Close the pool; a connection that is in use is closed on its return."""
    _retired.add(engine.sync_engine)
    await engine.dispose()


def is_quiet(dbapi_connection: Any) -> bool:
    """Say whether a connection has neither a transaction nor a statement under way."""
    driver_connection = dbapi_connection.driver_connection
    if hasattr(driver_connection, "is_in_transaction"):  # asyncpg
        is_busy: bool = dbapi_connection._execute_mutex.locked()
        return not is_busy and not driver_connection.is_in_transaction()
    return not driver_connection.info.transaction_status  # psycopg: IDLE is 0


def _take_back_only_what_is_whole(engine: Engine) -> None:
    # A session that ended while a task of its user still ran a statement leaves a transaction open:
    # the rollback fails, SQLAlchemy passes over that, and the next one to use it would be stuck.
    def check(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        if dbapi_connection is None:
            return
        if engine in _retired or not is_quiet(dbapi_connection):
            record.invalidate()

    event.listen(engine, "checkin", check)


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


_retired: WeakSet[Engine] = WeakSet()
