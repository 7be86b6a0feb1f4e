"""What goes on behind a task that has been cancelled, or a session that has ended."""

import asyncio
import logging
import math
from typing import Any

import anyio

from stillroom.engine.driver import cancel_statement

logger = logging.getLogger("stillroom")


async def outwait(task: asyncio.Future[Any], timeout: float) -> asyncio.CancelledError | None:  # noqa: ASYNC109
    """Wait for the end of a task or of the time; return the cancellation that came meanwhile."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + (timeout or math.inf)
    cancelled: asyncio.CancelledError | None = None
    # anyio repeats a cancellation on each turn of the loop: unshielded, the wait would spin.
    with anyio.CancelScope(shield=True):
        while not task.done() and (remaining := deadline - clock()) > 0:
            try:
                await asyncio.wait({task}, timeout=remaining if timeout else None)
            except asyncio.CancelledError as error:
                cancelled = error
    return cancelled


def keep(ending: "asyncio.Future[None]") -> None:
    """Hold a task until it has ended: the event loop keeps only weak references."""
    _endings.add(ending)
    ending.add_done_callback(_endings.discard)


async def ask_to_end(driver_connection: Any) -> None:
    """Ask PostgreSQL to end a statement; where that cannot be done it is logged."""
    try:
        await asyncio.wait_for(cancel_statement(driver_connection), _CANCEL)
    except Exception as error:  # noqa: BLE001  (the connection is closed, if it does not help)
        logger.warning("PostgreSQL could not be asked to end a statement: %r", error)


def log_loss(ending: asyncio.Future[Any]) -> None:
    """Log that a connection could not be ended as it should."""
    failure = None if ending.cancelled() else ending.exception()
    if ending.cancelled() or failure is not None:
        logger.warning("A connection was lost at its end: %s", type(failure).__name__)


_CANCEL = 2.0  # seconds

_endings: set[asyncio.Future[Any]] = set()
