"""Connections whose transactions say their own limits, for where a session cannot keep them.

BEGIN and SET LOCAL go in one message, so that costs no round trip.
"""

from collections.abc import Awaitable, Callable, Generator
from functools import cache
from typing import Any


@cache
def limited_by_asyncpg(limits: str) -> Any:
    """Return asyncpg's class of connections, with statements that follow each BEGIN."""
    from asyncpg import Connection  # noqa: PLC0415 - a process needs one of the drivers

    class LimitedConnection(Connection):  # type: ignore[misc]  # asyncpg says no types
        async def execute(
            self,
            query: str,
            *args: Any,
            timeout: float | None = None,  # noqa: ASYNC109  (asyncpg's)
        ) -> str:
            if query.startswith("BEGIN") and not args:
                query = f"{query}; {limits}"
            connection: Any = super()
            status: str = await connection.execute(query, *args, timeout=timeout)
            return status

    return LimitedConnection


@cache
def limited_by_psycopg(limits: str) -> Callable[..., Awaitable[Any]]:
    """Return what connects by psycopg, with statements that follow each BEGIN."""
    from psycopg import AsyncConnection  # noqa: PLC0415 - as above
    from psycopg.errors import error_from_result  # noqa: PLC0415
    from psycopg.generators import execute  # noqa: PLC0415
    from psycopg.pq import ExecStatus, TransactionStatus  # noqa: PLC0415

    class LimitedConnection(AsyncConnection[Any]):
        def _start_query(self) -> Generator[Any, Any, None]:
            if self._autocommit or self.pgconn.transaction_status != TransactionStatus.IDLE:
                return
            if self._pipeline:
                yield from super()._start_query()
                for limit in filter(None, limits.split(";")):
                    yield from self._exec_command(limit.encode())
                return
            # What psycopg does itself, but for an answer of more than one result.
            self._check_connection_ok()
            self.pgconn.send_query(self._get_tx_start_command() + b"; " + limits.encode())
            for result in (yield from execute(self.pgconn)):
                if result.status != ExecStatus.COMMAND_OK:
                    raise error_from_result(result, encoding=self.info.encoding)

    return LimitedConnection.connect
