"""Rows of JSON as COPY sends them: bytes that Python does not look at."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import anyio
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.engine.driver import cancel_statement
from stillroom.joins import AnySelect


async def copy_lines(
    session: AsyncSession, statement: AnySelect, values: Mapping[str, Any]
) -> AsyncGenerator[bytes]:
    """Yield the answer of a select of one column, each row a line, in pieces of any length.

    The column is JSON as text without a line break. It is one statement, in a transaction of the
    session, and takes as long as its reader does: `statement_timeout` does not count for it.
    """
    await session.flush()
    connection = await session.connection()
    before = await session.scalar(select(func.current_setting("statement_timeout")))
    await session.execute(_TIMEOUT, {"value": "0"})
    driver_connection: Any = (await connection.get_raw_connection()).driver_connection
    sql, parameters = _literal(statement.params(**values), connection.dialect)
    copy = _of_asyncpg if connection.dialect.driver == "asyncpg" else _of_psycopg
    async with aclosing(copy(driver_connection, sql, parameters)) as pieces:
        held: list[bytes] = []
        length = 0
        async for piece in pieces:
            held.append(piece)
            length += len(piece)
            if length >= _PIECE:
                yield b"".join(held)
                held, length = [], 0
        if held:
            yield b"".join(held)
    await session.execute(_TIMEOUT, {"value": before})


def _literal(statement: AnySelect, dialect: Any) -> tuple[str, Any]:
    compiled: Any = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    values = compiled.construct_params(escape_names=False)
    processors = compiled._bind_processors
    given = {
        name: processors[name](value) if name in processors else value
        for name, value in values.items()
    }
    if compiled.positional:
        return compiled.string, [given[name] for name in compiled.positiontup]
    return compiled.string, given


async def _of_asyncpg(connection: Any, sql: str, parameters: list[Any]) -> AsyncGenerator[bytes]:
    send, receive = anyio.create_memory_object_stream[bytes](1)

    async def take(piece: bytes) -> None:
        with suppress(anyio.BrokenResourceError):  # the reader has left, and PostgreSQL goes on
            await send.send(piece)

    async def copy() -> None:
        async with send:
            await connection.copy_from_query(
                sql, *parameters, output=take, format="csv", quote=_QUOTE, delimiter=_DELIMITER
            )

    copying = asyncio.create_task(copy())
    try:
        async for piece in receive:
            yield piece
        await copying
    finally:
        receive.close()
        if not copying.done():
            with anyio.CancelScope(shield=True):
                await _stop(connection, copying)


async def _stop(connection: Any, copying: "asyncio.Task[None]") -> None:
    """End a COPY whose reader has left.

    PostgreSQL is asked to, and what it still sends is read: a task that is cancelled would leave
    asyncpg's connection in the middle of it.
    """
    await cancel_statement(connection)
    await asyncio.wait({copying}, timeout=_STOP)
    if not copying.done():
        connection.terminate()
        await asyncio.wait({copying})
    copying.exception()  # nobody else asks for it


async def _of_psycopg(connection: Any, sql: str, parameters: Any) -> AsyncGenerator[bytes]:
    if not parameters:  # SQLAlchemy has doubled it, and psycopg undoes that only where it has some
        sql = sql.replace("%%", "%")
    options = f"FORMAT csv, QUOTE '{_QUOTE}', DELIMITER '{_DELIMITER}'"
    async with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY ({sql}) TO STDOUT ({options})", parameters) as pieces,
    ):
        async for piece in pieces:
            yield bytes(piece)


_STOP = 5.0
"""Seconds that PostgreSQL has for ending a COPY."""

_PIECE = 1 << 16
"""Bytes that are worth a packet; psycopg gives each row by itself."""

_TIMEOUT = text("SELECT set_config('statement_timeout', :value, true)")

# CSV leaves a value as it is that has neither of these, and in JSON no control character is bare.
_QUOTE = "\x01"
_DELIMITER = "\x02"
