"""A session whose COMMIT nothing cuts short and whose end nothing skips."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Engine, event, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from stillroom.deferred import DeferredSession
from stillroom.ending import ask_to_end, keep, log_loss, outwait
from stillroom.engine.alone import take, write_alone
from stillroom.engine.commit import inquiry_of
from stillroom.engine.driver import hang_up, is_busy
from stillroom.engine.listeners import pool_is_heard
from stillroom.engine.reading import is_at_rest, is_autocommit, leave_autocommit
from stillroom.errors import UnknownOutcomeError

logger = logging.getLogger("stillroom")

TIMEOUT = "stillroom.timeout"
"""Where `Session.info` says how long a COMMIT or ROLLBACK may take, in seconds; 0 is no limit."""


READS = "stillroom.reads"
"""Where `Session.info` says that the session is one of a read engine."""

LONGER = "stillroom.longer"
"""Where `Session.info` has the `statement_timeout`, in seconds, of work that takes longer."""

T = TypeVar("T")


class TrackedSession(Session):
    """Remember the connection that is held, so that it can be given up while it hangs."""


@event.listens_for(TrackedSession, "after_begin")
def _remember(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    session.info[_CONNECTION] = connection
    if _HAS_ENDED in session.info:
        transaction._connections.clear()  # else who rolls back would be told of that alone
        connection.close()  # nobody will end this session once more
        raise InvalidRequestError(_ENDED)
    if (seconds := session.info.get(LONGER)) is not None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {seconds * 1000:.0f}")


@event.listens_for(TrackedSession, "after_commit")
def _note_commit(session: Session) -> None:
    session.info[_HAS_COMMITTED] = True


class ServiceSession(DeferredSession):
    """End a transaction wholly, whoever is cancelled meanwhile.

    It is SQLAlchemy's session in all else. The times are those of `Session.info[TIMEOUT]`.
    """

    sync_session_class = TrackedSession

    deadline: float | None = None
    """When its work has to be over, in the time of the event loop."""

    _lone: PoolProxiedConnection | None = None

    async def with_connection(self, work: Callable[[Connection], T]) -> T:
        """Return what a function returns that reads on the session's connection.

        What was added to the session is flushed before. In a read session that holds none, the
        connection goes back to the pool at once, and the session is as it was: that is the
        cheapest way to one answer.
        """
        if (engine := self.lone_engine) is None:
            return await self.run_sync(_on_its_connection, work)

        def read() -> T:
            with engine.connect() as connection:
                self.note(connection.connection)
                return work(connection)

        return await greenlet_spawn(read)

    @property
    def lone_engine(self) -> Engine | None:
        """Return the engine of a read session that holds no connection, else None."""
        info = self.info
        if READS not in info or _HAS_ENDED in info or LONGER in info or self.in_transaction():
            return None
        return self._engine.sync_engine

    @property
    def has_committed(self) -> bool:
        """Say whether any work has been committed."""
        return _HAS_COMMITTED in self.info

    def note(self, connection: PoolProxiedConnection) -> None:
        """Note on which connection a statement runs that has no transaction of the session."""
        self._lone = connection

    def interrupt(self, *, is_reading: bool = False) -> bool:
        """Ask PostgreSQL to end the statement under way, if one is; a COMMIT goes on.

        Of a cursor's next rows only who asks for them knows that they are under way: `is_reading`.

        Says whether there is anything that will end. The connection stays, and who waits for the
        statement gets its error (57014).
        """
        if _COMMITTING in self.info:
            return True
        if (connection := self._under_way(is_reading=is_reading)) is None:
            return False
        keep(asyncio.ensure_future(ask_to_end(connection.driver_connection)))
        return True

    def hang_up(self) -> None:
        """Close the connection on which a statement is still under way; not for a COMMIT."""
        if _COMMITTING not in self.info and (connection := self._under_way()) is not None:
            hang_up(connection.driver_connection)

    async def commit(self) -> None:
        """Commit; once COMMIT is under way it runs to its end.

        A cancellation that comes before, in the flush too, leaves nothing written. Raises
        UnknownOutcomeError when PostgreSQL does not answer the COMMIT in time, its connection then
        leaves the pool and is closed when the answer comes. Where the connection is lost PostgreSQL
        is asked: the commit has succeeded, or raises DatabaseUnavailableError, for nothing was
        written; UnknownOutcomeError where that is not known.
        """
        if not self.in_transaction():
            return
        await self.flush()
        await asyncio.sleep(0)  # a cancellation that is due arrives here, before COMMIT is sent
        await self._finish(asyncio.ensure_future(super().commit()))

    async def commit_with(
        self,
        work: Callable[[Connection], T],
        find: Callable[[Connection], T | None] | None = None,
        compiled: Callable[[Dialect], tuple[str, Any] | None] | None = None,
    ) -> T:
        """Commit, together with one last statement; return what the function returns that runs it.

        Where the session has done nothing before, that statement is a transaction by itself, in one
        round trip. It is kept from cancellations as a COMMIT is, and raises what `commit` raises.
        With `find` it may be run again when its connection was lost: it is an INSERT with a key of
        its own, and `find` returns what it would have, where the row is there already. `compiled`
        returns the text and the parameters of the statement, if `work` returns its first value: it
        may then run without a Connection.
        """
        if READS in self.info or _HAS_ENDED in self.info or LONGER in self.info or self._has_work():
            done = await self.run_sync(_on_its_connection, work)
            await self.commit()
            return done
        await asyncio.sleep(0)  # a cancellation that is due arrives here, before it is sent
        engine = self._engine.sync_engine
        proxied = await take(engine)
        self.note(proxied)
        if _HAS_ENDED in self.info:
            await greenlet_spawn(proxied.close)
            raise InvalidRequestError(_ENDED)
        committing = asyncio.ensure_future(write_alone(engine, proxied, work, compiled))
        # PostgreSQL ends a statement after the same time, and what it says then is worth a wait.
        try:
            await self._finish(committing, more=_GRACE)
        except UnknownOutcomeError:
            inquiry = inquiry_of(engine)
            if find is None or inquiry is None or not committing.done():
                raise
            committing = asyncio.ensure_future(inquiry.repeat(work, find))
            await self._finish(committing)
        return committing.result()

    async def close(self) -> None:
        """Roll back what is not committed and return the connection; the session has ended.

        A connection that cannot be rolled back, or not in time, is closed. Its work has ended
        anyway, so that is logged and not raised.
        """
        self.info[_HAS_ENDED] = True
        if self._has_nothing_to_undo():
            self.close_at_rest()  # nothing can come between
        else:
            await self._end(self._close)

    async def __aexit__(self, *_: object) -> None:
        """Close; SQLAlchemy's own wait for that would spin under a cancellation by anyio."""
        await self.close()

    async def invalidate(self) -> None:
        """Close the connection instead of returning it: its server is of no more use."""
        self.info[_HAS_ENDED] = True
        await self._end(super().invalidate)

    def _has_work(self) -> bool:
        if not self.is_made:
            return False
        session = self.sync_session
        return bool(self.in_transaction() or session.new or session.dirty or session.deleted)

    def _under_way(self, *, is_reading: bool = False) -> PoolProxiedConnection | None:
        held = self._held()
        if held is None or held.dbapi_connection is None or _LEFT_BEHIND in self.info:
            return None
        return held if is_reading or is_busy(held.dbapi_connection) else None

    def _time_left(self, timeout: float) -> float:
        """Return how long the end of the work may take; 0 is no limit."""
        if self.deadline is None:
            return timeout
        left: float = max(self.deadline - asyncio.get_running_loop().time(), _LAST_MOMENT)
        return min(left, timeout or left)

    async def _finish(self, committing: "asyncio.Future[Any]", more: float = 0) -> None:
        timeout = self.info.get(TIMEOUT, 0)
        self.info[_COMMITTING] = True
        try:
            cancelled = await outwait(committing, self._time_left(timeout and timeout + more))
        finally:
            self.info.pop(_COMMITTING, None)
        if committing.done():
            failure = _failure(committing)
        else:
            _leave_behind(self, committing)
            failure = UnknownOutcomeError(_NOT_ANSWERED)
        if cancelled is not None:
            raise cancelled
        if failure is not None:
            raise failure

    def _has_nothing_to_undo(self) -> bool:
        if (connection := self._connection_in_use()) is None:
            return not self.in_transaction()
        if connection.get_execution_options() or pool_is_heard(connection.engine):
            return False  # what the pool does on the return of the connection may ask PostgreSQL
        return is_autocommit(connection) and is_at_rest(connection)

    async def _close(self) -> None:
        if (connection := self._connection_in_use()) is not None:
            # A task of its user may still run a statement, which a rollback has to wait for.
            await self.run_sync(lambda _: leave_autocommit(connection))
        await super().close()

    def _connection_in_use(self) -> Connection | None:
        connection: Connection | None = self.info.get(_CONNECTION)
        if connection is None or connection.closed or connection.invalidated:
            return None
        return connection

    def _held(self) -> PoolProxiedConnection | None:
        connection = self._connection_in_use()
        return self._lone if connection is None else connection.connection

    async def _end(self, end: Any) -> None:
        if _LEFT_BEHIND in self.info:
            return
        ending = asyncio.ensure_future(end())
        ending.add_done_callback(log_loss)
        cancelled = await outwait(ending, self._time_left(self.info.get(TIMEOUT, 0)))
        if not ending.done() or ending.cancelled() or ending.exception() is not None:
            _hang_up(self)
            ending.cancel()  # psycopg does not notice that its connection was closed
        if cancelled is not None:
            raise cancelled


async def has_writes(session: AsyncSession) -> bool:
    """Say whether something would be lost, a row lock included, if the session ended now."""
    if not session.in_transaction():
        return False
    if session.new or session.dirty or session.deleted:
        return True
    try:
        # PostgreSQL gives a transaction its id at the first write or row lock.
        query = text("SELECT pg_current_xact_id_if_assigned()::text")
        return await session.scalar(query) is not None
    except SQLAlchemyError:
        return True  # the transaction is aborted already, and all that it wrote is lost


def _on_its_connection(session: Session, work: Callable[[Connection], T]) -> T:
    if session.autoflush:
        session.flush()
    return work(session.connection())


def _failure(committing: asyncio.Future[Any]) -> BaseException | None:
    failure = committing.exception()
    if isinstance(failure, DBAPIError) and failure.connection_invalidated:
        # "terminating connection" is no answer either: it may have been committed before that.
        unknown = UnknownOutcomeError(_LOST)
        unknown.__cause__ = failure
        return unknown
    return failure


def _leave_behind(session: ServiceSession, committing: asyncio.Future[Any]) -> None:
    session.info[_LEFT_BEHIND] = True
    driver_connection: Any = None
    held = session._held()
    if held is not None and held.is_valid:  # it is not where it was lost, and the work is repeated
        driver_connection = held.driver_connection
        held.detach()  # its place in the pool is free from now on
    keep(asyncio.ensure_future(_await_outcome(session, committing, driver_connection)))


async def _await_outcome(
    session: AsyncSession, committing: asyncio.Future[Any], driver_connection: Any
) -> None:
    await asyncio.wait({committing})
    failure = None if committing.cancelled() else committing.exception()
    outcome = f"failed: {type(failure).__name__}" if failure else "succeeded"
    logger.warning("The COMMIT whose outcome was unknown has %s", outcome)
    await AsyncSession.close(session)
    if driver_connection is not None:
        await driver_connection.close()  # SQLAlchemy leaves one of psycopg open


def _hang_up(session: ServiceSession) -> None:
    # At once and without a greenlet, for a statement of the session may be hanging. The place in
    # the pool is freed first: an invalidated Connection would take another one for what still runs.
    if (connection := session._connection_in_use()) is None:
        return
    driver_connection: Any = connection.connection.driver_connection
    connection.detach()
    hang_up(driver_connection)


_COMMITTING = "stillroom.committing"
_CONNECTION = "stillroom.connection"
_HAS_COMMITTED = "stillroom.has_committed"
_HAS_ENDED = "stillroom.has_ended"
_LEFT_BEHIND = "stillroom.left_behind"

_GRACE = 1.0  # seconds
_LAST_MOMENT = 0.05  # seconds

_ENDED = (
    "The session has ended while a task of its user waited for its connection; nothing was done. "
    "Await such a task before the session ends, or give it a session of its own."
)
_NOT_ANSWERED = (
    "PostgreSQL has not answered a COMMIT in time; its outcome is unknown. Look whether the work "
    "is there before it is done again."
)
_LOST = (
    "The connection was lost during a COMMIT; its outcome is unknown. Look whether the work is "
    "there before it is done again."
)
