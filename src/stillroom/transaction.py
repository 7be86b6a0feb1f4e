"""The end of a transaction: a COMMIT that nothing cuts short, a close that nothing skips."""

import asyncio
import logging
from typing import Any

import anyio
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from stillroom.errors import UnknownOutcomeError

logger = logging.getLogger("stillroom")


class TrackedSession(Session):
    """Remember the connection that is held, so that it can be discarded while a COMMIT hangs."""


@event.listens_for(TrackedSession, "after_begin")
def _remember(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    session.info[_CONNECTION] = connection


async def commit(session: AsyncSession, *, timeout: float) -> None:  # noqa: ASYNC109
    """Commit; once COMMIT is under way it runs to its end, whoever is cancelled meanwhile.

    A cancellation that comes before, in the flush too, leaves nothing written. Raises
    UnknownOutcomeError when PostgreSQL has not answered the COMMIT after `timeout` seconds: its
    connection leaves the pool, and is closed when the answer comes.
    """
    if not session.in_transaction():
        return
    await session.flush()
    await asyncio.sleep(0)  # a cancellation that is due arrives here, before COMMIT is sent
    committing = asyncio.ensure_future(session.commit())
    cancelled = await _wait(committing, timeout)
    if not committing.done():
        _leave_behind(session, committing)
        failure: BaseException | None = UnknownOutcomeError(
            f"PostgreSQL has not answered a COMMIT within {timeout:g} s; its outcome is unknown. "
            "Look whether the work is there before it is done again."
        )
    else:
        failure = committing.exception()
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure


async def close(session: AsyncSession, *, timeout: float, discard: bool = False) -> None:  # noqa: ASYNC109
    """Roll back what is not committed and return the connection, whoever is cancelled meanwhile.

    With `discard` the connection is closed instead. One that cannot be rolled back, or not within
    `timeout` seconds, is closed too; its work has ended, so that is logged and not raised.
    """
    if _LEFT_BEHIND in session.info:
        return
    closing = asyncio.ensure_future(session.invalidate() if discard else session.close())
    closing.add_done_callback(_log_loss)
    cancelled = await _wait(closing, timeout)
    if not closing.done():
        _hang_up(session)
        closing.cancel()  # psycopg does not notice that its connection was closed
    if cancelled:
        raise cancelled


async def _wait(task: asyncio.Future[None], timeout: float) -> asyncio.CancelledError | None:  # noqa: ASYNC109
    """Wait for the end of a task or of the time; return the cancellation that came meanwhile."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    cancelled: asyncio.CancelledError | None = None
    # anyio repeats a cancellation on each turn of the loop: unshielded, the wait would spin.
    with anyio.CancelScope(shield=True):
        while not task.done() and (remaining := deadline - clock()) > 0:
            try:
                await asyncio.wait({task}, timeout=remaining)
            except asyncio.CancelledError as error:
                cancelled = error
    return cancelled


def _leave_behind(session: AsyncSession, committing: asyncio.Future[None]) -> None:
    session.info[_LEFT_BEHIND] = True
    connection: Connection = session.info[_CONNECTION]
    driver_connection: Any = connection.connection.driver_connection
    connection.detach()  # its place in the pool is free from now on
    ending = asyncio.ensure_future(_end(session, committing, driver_connection))
    _endings.add(ending)
    ending.add_done_callback(_endings.discard)


async def _end(
    session: AsyncSession, committing: asyncio.Future[None], driver_connection: Any
) -> None:
    await asyncio.wait({committing})
    failure = None if committing.cancelled() else committing.exception()
    outcome = f"failed: {type(failure).__name__}" if failure else "succeeded"
    logger.warning("The COMMIT whose outcome was unknown has %s", outcome)
    await session.close()
    await driver_connection.close()  # SQLAlchemy leaves one of psycopg open


def _log_loss(closing: asyncio.Future[None]) -> None:
    failure = None if closing.cancelled() else closing.exception()
    if closing.cancelled() or failure is not None:
        logger.warning("A connection was lost at its end: %s", type(failure).__name__)


def _hang_up(session: AsyncSession) -> None:
    # At once and without a greenlet, for a statement of the session hangs.
    connection: Connection | None = session.info.get(_CONNECTION)
    if connection is None or connection.closed or connection.invalidated:
        return
    driver_connection: Any = connection.connection.driver_connection
    if hasattr(driver_connection, "terminate"):
        connection.invalidate()
    else:  # psycopg has only a close() that is awaited
        connection.detach()
        driver_connection.pgconn.finish()


_CONNECTION = "stillroom.connection"
_LEFT_BEHIND = "stillroom.left_behind"

# The event loop keeps only weak references to tasks.
_endings: set[asyncio.Future[None]] = set()
