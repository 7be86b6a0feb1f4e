"""The end of a transaction: a COMMIT that nothing cuts short, a close that nothing skips."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import anyio
from sqlalchemy import Connection, event
from sqlalchemy.exc import SQLAlchemyError
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
    """Commit; once COMMIT is under way a cancellation waits for its end.

    A cancellation that comes before, in the flush too, leaves nothing written. Raises
    UnknownOutcomeError when PostgreSQL has not answered the COMMIT after `timeout` seconds; the
    connection is discarded then.
    """
    if not session.in_transaction():
        return
    await session.flush()
    await asyncio.sleep(0)  # a cancellation that is due arrives here, before COMMIT is sent
    if not await _run_to_the_end(session.commit(), session, timeout):
        msg = (
            f"PostgreSQL has not answered a COMMIT within {timeout:g} s; its outcome is unknown. "
            "Look whether the work is there before it is done again."
        )
        raise UnknownOutcomeError(msg)


async def close(session: AsyncSession, *, timeout: float, discard: bool = False) -> None:  # noqa: ASYNC109
    """Roll back what is not committed and return the connection, whoever is cancelled meanwhile.

    With `discard` the connection is closed instead. One that cannot be rolled back, or not within
    `timeout` seconds, is closed too; its work has ended, so that is logged and not raised.
    """
    try:
        await _run_to_the_end(
            session.invalidate() if discard else session.close(), session, timeout
        )
    except (SQLAlchemyError, OSError) as error:
        _abandon(session)
        logger.warning("A connection was lost before its end: %s", type(error).__name__)


_CONNECTION = "stillroom.connection"


async def _run_to_the_end(
    work: Coroutine[Any, Any, None],
    session: AsyncSession,
    timeout: float,  # noqa: ASYNC109
) -> bool:
    task = asyncio.ensure_future(work)
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
    in_time = task.done()
    if in_time:
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            raise failure
    else:
        _abandon(session)
        task.add_done_callback(_retrieve)
        task.cancel()  # psycopg does not notice that its connection was closed
    if cancelled is not None:
        raise cancelled
    return in_time


def _abandon(session: AsyncSession) -> None:
    # At once and without a greenlet, for a statement of the session may be hanging.
    connection: Connection | None = session.info.get(_CONNECTION)
    if connection is None or connection.closed or connection.invalidated:
        return
    driver_connection: Any = connection.connection.driver_connection
    if hasattr(driver_connection, "terminate"):
        connection.invalidate()
    else:  # psycopg has only a close() that is awaited
        connection.detach()
        driver_connection.pgconn.finish()


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
