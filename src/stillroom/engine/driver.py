"""What asyncpg and psycopg do each in their own way."""

import asyncio
from collections.abc import Sequence
from typing import Any


def is_busy(dbapi_connection: Any) -> bool:
    """Say whether a statement is under way on a connection."""
    driver_connection = dbapi_connection.driver_connection
    if _is_of_asyncpg(driver_connection):
        return busy_lock(dbapi_connection).locked()
    return bool(driver_connection.info.transaction_status == _ACTIVE)


def is_quiet(dbapi_connection: Any) -> bool:
    """Say whether a connection has neither a transaction nor a statement under way."""
    driver_connection = dbapi_connection.driver_connection
    if _is_of_asyncpg(driver_connection):
        return not is_busy(dbapi_connection) and not driver_connection.is_in_transaction()
    return not driver_connection.info.transaction_status  # IDLE is 0


async def cancel_statement(driver_connection: Any) -> None:
    """Ask PostgreSQL to end what runs on a connection, which goes on."""
    if _is_of_asyncpg(driver_connection):
        # Its own way is to cancel a task, whose error SQLAlchemy takes for the connection's end.
        await driver_connection._cancel(asyncio.get_running_loop().create_future())
    else:
        await driver_connection.cancel_safe()


def fetches_rows(dialect: Any) -> bool:
    """Say whether `fetch_row` is for connections of a dialect."""
    return bool(dialect.driver == "asyncpg")


def busy_lock(dbapi_connection: Any) -> asyncio.Lock:
    """Return what SQLAlchemy holds during a statement of asyncpg: `is_busy` looks at it."""
    lock: asyncio.Lock = dbapi_connection._execute_mutex
    return lock


async def fetch_row(
    dbapi_connection: Any, statement: str, parameters: Any = ()
) -> Sequence[Any] | None:
    """Return the first row of a statement, or None, by asyncpg itself.

    That costs half of what SQLAlchemy's cursor on it does. Errors are those of the cursor.
    """
    driver_connection = dbapi_connection.driver_connection
    try:
        row: Sequence[Any] | None = await driver_connection.fetchrow(statement, *parameters)
    except Exception as error:
        dbapi_connection._handle_exception(error)
        raise
    return row


async def renew_types(dbapi_connection: Any, dialect: Any) -> None:
    """Let asyncpg look anew at the types of the database, where one has been made anew since.

    SQLAlchemy's cursor does so before each statement, for what it has prepared itself.
    """
    if dialect._invalidate_schema_cache_asof > dbapi_connection._invalidate_schema_cache_asof:
        dbapi_connection.driver_connection._drop_local_statement_cache()
        await dbapi_connection._check_type_cache_invalidation(dialect._invalidate_schema_cache_asof)


def note_old_types(dialect: Any, error: BaseException) -> None:
    """See from an error whether the types of the database have changed, as SQLAlchemy does."""
    dbapi = dialect.loaded_dbapi
    if isinstance(error, (dbapi.InvalidCachedStatementError, dbapi.InternalServerError)):
        dialect._invalidate_schema_cache()


def hang_up(driver_connection: Any) -> None:
    """Close a connection at once: without a word to PostgreSQL, and without waiting."""
    if _is_of_asyncpg(driver_connection):
        driver_connection.terminate()
    else:  # psycopg has only a close() that is awaited
        driver_connection.pgconn.finish()


def _is_of_asyncpg(driver_connection: Any) -> bool:
    return hasattr(driver_connection, "is_in_transaction")


_ACTIVE = 1  # psycopg.pq.TransactionStatus
