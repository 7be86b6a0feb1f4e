"""What a connection can be asked about the way that it goes, whichever driver has made it."""

from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from sqlalchemy.engine.interfaces import DBAPIConnection


def is_direct(connection: DBAPIConnection) -> bool:
    """Say whether PostgreSQL itself answers, by one round trip.

    A pooler hands out keys of its own for cancelling: the pid with them is none of PostgreSQL's.
    https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
    """
    adapted: Any = connection
    work = _is_direct_by_asyncpg if _is_of_asyncpg(adapted) else _is_direct_by_psycopg
    return bool(adapted.run_async(work))


def lost_a_parameter(connection: DBAPIConnection, arguments: Mapping[str, Any]) -> bool:
    """Say whether a connection that was to be read-only is not, which costs nothing to see.

    PostgreSQL reports that parameter to each client, from 14 on.
    https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC
    """
    if _READ_ONLY not in f"{arguments.get('server_settings')} {arguments.get('options')}":
        return False
    adapted: Any = connection
    driver_connection = adapted.driver_connection
    if _is_of_asyncpg(adapted):
        return getattr(driver_connection.get_settings(), _READ_ONLY, None) == "off"
    return bool(driver_connection.info.parameter_status(_READ_ONLY) == "off")


def keeps_statements(connection: DBAPIConnection) -> bool:
    """Say whether PgBouncer gives a client's prepared statements to each session as needed.

    It does so from 1.21 on where max_prepared_statements is above 0, under names of its own. So
    one is prepared, and PostgreSQL is asked for its name: what is found nobody looked after. It is
    not left there.
    """
    adapted: Any = connection
    work = _keeps_by_asyncpg if _is_of_asyncpg(adapted) else _keeps_by_psycopg
    return bool(adapted.run_async(work))


async def _is_direct_by_asyncpg(connection: Any) -> bool:
    # The status of the simple protocol tells: to fetch a row a statement would be prepared.
    pid = connection.get_server_pid()
    status = await connection.execute(f"SELECT 1 WHERE pg_backend_pid() = {pid}")
    return bool(status == "SELECT 1")


async def _is_direct_by_psycopg(connection: Any) -> bool:
    await connection.set_autocommit(True)
    cursor = await connection.execute("SELECT pg_backend_pid()")
    (pid,) = await cursor.fetchone()
    await connection.set_autocommit(False)
    return bool(pid == connection.info.backend_pid)


async def _keeps_by_asyncpg(connection: Any) -> bool:
    name = f"stillroom_{token_hex(8)}"
    async with connection.transaction():  # in one session
        statement = await connection.prepare("SELECT 1", name=name)
        found = f"SELECT 1 FROM pg_prepared_statements WHERE name = '{name}'"  # noqa: S608
        is_kept = bool(await connection.execute(found) == "SELECT 0")
        if not is_kept:
            await connection.execute(f"DEALLOCATE {name}")
        del statement
    return is_kept


async def _keeps_by_psycopg(connection: Any) -> bool:
    from psycopg import capabilities  # noqa: PLC0415 - an extra: only its users have it
    from psycopg.errors import DuplicatePreparedStatement  # noqa: PLC0415

    # A libpq before 17 closes a statement by SQL, of which PgBouncer knows nothing.
    if not capabilities.has_send_close_prepared():
        return False
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1", prepare=True)
            found = "SELECT 1 FROM pg_prepared_statements WHERE name = '_pg3_0'"
            is_kept = bool((await connection.execute(found, prepare=False)).rowcount == 0)
            if not is_kept:
                await connection.execute("DEALLOCATE _pg3_0", prepare=False)
    except DuplicatePreparedStatement:  # somebody else has left one
        return False
    return is_kept


def _is_of_asyncpg(adapted: Any) -> bool:
    return hasattr(adapted.driver_connection, "get_server_pid")


_READ_ONLY = "default_transaction_read_only"
