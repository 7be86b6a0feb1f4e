"""What became of a COMMIT whose connection was lost: PostgreSQL is asked before anybody is told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stillroom.errors import (
    DatabaseUnavailableError,
    RolledBackError,
    StillroomError,
    UnknownOutcomeError,
)

logger = logging.getLogger("stillroom")

T = TypeVar("T")

ASKED_FOR = 2.0
"""How long PostgreSQL is asked what has become of a COMMIT, in seconds."""


@dataclass(frozen=True)
class Transaction:
    """Name a transaction so that another connection can ask for it.

    `id` is None where it has written nothing. PostgreSQL gives ids that were lost in a crash to
    other transactions: `history` is the time from which on it has lost none.
    """

    id: str | None
    history: str | None


class Inquiry:
    """Ask PostgreSQL, over a connection of its own, how a transaction has ended."""

    def __init__(self, make_engine: Callable[[], AsyncEngine]) -> None:
        """Take what makes an engine without a pool, in AUTOCOMMIT; it is made when it is needed."""
        self._make_engine = make_engine

    async def repeat(
        self, work: Callable[[Connection], T], find: Callable[[Connection], T | None]
    ) -> T:
        """Run a lone statement again whose connection was lost, and return what it returns.

        It inserts what has a key of its own, so it cannot do it twice: where the first one was
        committed the second is refused, and `find` returns what is there; where the first is under
        way PostgreSQL lets the second wait. Raises what the statement raises, and
        UnknownOutcomeError when there is no answer after ASKED_FOR seconds.
        """

        def run(connection: Connection) -> T:
            try:
                return work(connection)
            except IntegrityError:
                if (found := find(connection)) is None:
                    raise
                return found

        logger.warning("A connection was lost during a statement, which is tried again")
        try:
            async with asyncio.timeout(ASKED_FOR):
                return await self._run(lambda connection: connection.run_sync(run))
        except TimeoutError as error:
            raise UnknownOutcomeError(_UNKNOWN) from error

    async def failure_of(self, transaction: Transaction | None) -> StillroomError | None:
        """Return what its COMMIT has to raise, None where it was committed, when it has ended.

        A server that is away is waited for, for ASKED_FOR seconds; then the outcome is unknown, as
        it is where the server has lost the history of its transactions. No transaction is one that
        was lost before its COMMIT.
        """
        if transaction is None or transaction.id is None:
            return RolledBackError(_LOST_BEFORE)  # nothing was written, or will be
        try:
            async with asyncio.timeout(ASKED_FOR):
                status = await self._end_of(transaction)
        except TimeoutError:
            status = None
        logger.warning("A connection was lost at COMMIT; PostgreSQL says: %s", status or "nothing")
        if status is None:
            return UnknownOutcomeError(_UNKNOWN)
        return None if status == _COMMITTED else RolledBackError(_ROLLED_BACK)

    async def _end_of(self, transaction: Transaction) -> str | None:
        try:
            return await self._run(lambda connection: self._ask(connection, transaction))
        except DBAPIError as error:
            if getattr(error.driver_exception, "sqlstate", None) == _HAS_NOT_COME_SO_FAR:
                return None
            raise

    async def _run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        while True:
            try:
                async with self._engine.connect() as connection:
                    return await work(connection)
            except DatabaseUnavailableError:
                await asyncio.sleep(_PAUSE)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                await asyncio.sleep(_PAUSE)

    async def _ask(self, connection: AsyncConnection, transaction: Transaction) -> str | None:
        values = {"id": transaction.id}
        while True:
            answer = (await connection.execute(_STATUS, values)).one()
            if answer.history == transaction.history is not None:
                if answer.status != _UNDER_WAY:
                    return str(answer.status)
                await connection.execute(_END_WHAT_IS_IDLE, values)
            elif not answer.is_replica:
                # Its id may be another one's now; but what has not been committed is not there.
                return _ABORTED if answer.status == _ABORTED else None
            await asyncio.sleep(_PAUSE)

    @cached_property
    def _engine(self) -> AsyncEngine:
        return self._make_engine()


_LOST_BEFORE = "The connection was lost before anything was committed; it may be tried again."
_ROLLED_BACK = "The connection was lost at COMMIT, and PostgreSQL has rolled back; try again."
_UNKNOWN = (
    "The connection was lost during a COMMIT, and PostgreSQL could not say what has become of it. "
    "Look whether the work is there before it is done again."
)

_HAS_NOT_COME_SO_FAR = "22023"
_UNDER_WAY = "in progress"
_ABORTED = "aborted"
_COMMITTED = "committed"
_PAUSE = 0.02  # seconds

# https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
_STATUS = text(
    "SELECT pg_xact_status(CAST(CAST(:id AS text) AS xid8)) AS status, "
    "pg_is_in_recovery() AS is_replica, "
    "(SELECT stats_reset::text FROM pg_stat_bgwriter) AS history"
)

# A COMMIT that never arrived: its backend waits for it, and may do so for hours. One that is on its
# way has a moment to come. A backend that is at its COMMIT is let be, for it may be waiting for a
# replica: ended then, it would have been committed without. That is also why nothing is ended where
# the server waits for replicas.
_END_WHAT_IS_IDLE = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE backend_xid = CAST(CAST(CAST(:id AS text) AS xid8) AS xid) "
    "AND datname = current_database() AND state LIKE 'idle in transaction%' "
    "AND clock_timestamp() - state_change > interval '0.2 seconds' "
    "AND current_setting('synchronous_standby_names') = ''"
)
