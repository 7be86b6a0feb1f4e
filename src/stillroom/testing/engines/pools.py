"""Pools that outlive the event loop of a test."""

from typing import Any

from sqlalchemy.util.queue import AsyncAdaptedQueue


def install() -> None:
    """Let a pool on which a connection was waited for in one event loop be waited on in the next.

    asyncio binds a queue to the loop in which somebody first waits on it. A module-level engine has
    one queue for all tests, each of which may have a loop of its own.
    """
    _Queue.get = _get


def uninstall() -> None:
    """Leave pools as they were."""
    _Queue.get = _original_get


def _get(self: AsyncAdaptedQueue[Any], block: bool = True, timeout: float | None = None) -> Any:
    queue: Any = self._queue
    if queue._loop is not None and not queue._loop.is_running():
        queue._loop = None
        queue._getters.clear()  # who waited there is gone with the loop
    return _original_get(self, block, timeout)


_Queue: Any = AsyncAdaptedQueue  # of any type of items
_original_get: Any = _Queue.get
