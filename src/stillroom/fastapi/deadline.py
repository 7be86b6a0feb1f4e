"""The time that a request has, and what ends when it is over."""

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import Self
from weakref import WeakKeyDictionary

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
        self._clock: _Clock
        self._next: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        """Let the time run."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancellations = self._task.cancelling() if self._task else 0
        self.at = loop.time() + self.seconds
        self._clock = _Clock.of(loop)
        self._clock.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say that the time was over, where the work has ended by that."""
        self._clock.remove(self)
        if self._next is not None:
            self._next.cancel()
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

    def end(self) -> None:
        """Begin to end the work: its time is over."""
        self._is_over = True
        if self.session is not None and self.session.interrupt():
            self._call_later(_ANSWER, self._hang_up)
        else:
            self._cancel()

    def _hang_up(self) -> None:
        if self.session is not None:
            self.session.hang_up()
        self._call_later(_END, self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._has_cancelled = True
            self._task.cancel()

    def _call_later(self, seconds: float, function: Callable[[], None]) -> None:
        self._next = asyncio.get_running_loop().call_later(seconds, function)


class _Clock:
    """Wait for the earliest of many deadlines, by one timer.

    A timer for each would be a sixth of a small request, and nearly all are not needed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._deadlines: set[Deadline] = set()
        self._rings = math.inf
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> "_Clock":
        if (clock := _clocks.get(loop)) is None:
            clock = _clocks[loop] = cls(loop)
        return clock

    def add(self, deadline: Deadline) -> None:
        self._deadlines.add(deadline)
        if deadline.at < self._rings:
            self._set(deadline.at)

    def remove(self, deadline: Deadline) -> None:
        self._deadlines.discard(deadline)

    def _set(self, time: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = time
        self._timer = self._loop.call_at(time, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings = None, math.inf
        now = self._loop.time()
        for deadline in [it for it in self._deadlines if it.at <= now]:
            self._deadlines.discard(deadline)
            deadline.end()
        if self._deadlines:
            self._set(min(it.at for it in self._deadlines))


_clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Clock] = WeakKeyDictionary()

_ANSWER = 0.12  # seconds that PostgreSQL has for its answer to the request to cancel
_END = 0.03  # seconds that the driver has for the end of a connection
