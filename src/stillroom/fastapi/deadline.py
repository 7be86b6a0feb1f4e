"""The time that a request has, and what ends when it is over."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sqlalchemy.exc import DBAPIError

from stillroom.errors import DeadlineError
from stillroom.session import ServiceSession


class Deadline:
    """Give the work of a request so many seconds, and end it when they are over.

    PostgreSQL is asked to end the statement under way, so that its connection survives; where it
    does not answer, the connection is closed, and what waits for anything else is cancelled: within
    0.2 seconds in all. A COMMIT is not cut, its session says what becomes of it. The block
    then raises DeadlineError.
    """

    def __init__(self, seconds: float) -> None:
        """Take the time in seconds."""
        self.seconds = seconds
        self.at = 0.0
        self.session: ServiceSession | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancellations = 0
        self._is_over = False
        self._has_cancelled = False
        self._timer: asyncio.TimerHandle

    def __enter__(self) -> Self:
        """Let the time run."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancellations = self._task.cancelling() if self._task else 0
        self.at = loop.time() + self.seconds
        self._timer = loop.call_at(self.at, self._end)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say that the time was over, where the work has ended by that."""
        self._timer.cancel()
        task, self._task = self._task, None  # whose context leads back to here: a cycle
        if not self._is_over or task is None:
            return
        is_mine = isinstance(error, DBAPIError)
        if self._has_cancelled and task.uncancel() <= self._cancellations:
            is_mine = is_mine or isinstance(error, asyncio.CancelledError)
        if is_mine:
            msg = f"The request was not done within its {self.seconds:g} seconds"
            raise DeadlineError(msg) from error

    @property
    def left(self) -> float:
        """Return how many seconds are left."""
        return self.at - asyncio.get_running_loop().time()

    def _end(self) -> None:
        self._is_over = True
        if self.session is not None and self.session.interrupt():
            self._call_later(self._hang_up)
        else:
            self._cancel()

    def _hang_up(self) -> None:
        if self.session is not None:
            self.session.hang_up()
        self._call_later(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._has_cancelled = True
            self._task.cancel()

    def _call_later(self, function: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(_STEP, function)


_STEP = 0.05  # seconds that PostgreSQL has for an answer, and asyncio for the end of a connection
