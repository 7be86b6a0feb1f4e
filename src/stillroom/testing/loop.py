"""The event loop in which all that a run of tests does with its server happens.

It belongs to no thread. Whoever waits for something that it does runs it, for as long as there is
something to do: an event loop of the application does so as one of its own callbacks. A statement
of a test so costs no switch between threads, of which each costs more than PostgreSQL's answer.
"""

import asyncio
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from select import POLLIN, poll
from time import monotonic
from typing import Any, TypeVar, TypeVarTuple
from weakref import WeakSet

from stillroom.testing.interrupts import UNDIVIDED, defer_alarms, uninterrupted

T = TypeVar("T")
_Ts = TypeVarTuple("_Ts")


class SharedLoop:
    """Run one event loop in whichever thread needs it, one at a time.

    None of a test's own loops matters to what is done in it.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._loop = _Loop(self._selector)
        self._lock = threading.Lock()
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._driver: asyncio.AbstractEventLoop | None = None
        self._driven = 0.0
        self._calls: set[object] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._process = os.getpid()
        self._is_needed = threading.Event()
        self._is_ending = False
        self._context = Context()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="stillroom")

    def start(self) -> None:
        """Start the thread that runs the loop where nobody else does."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop, and leave those of the application."""
        self._is_ending = True
        self._is_needed.set()
        self._loop.call_soon_threadsafe(_wake)
        self._thread.join()
        for loop in list(self._loops):
            if loop.is_running():
                loop.call_soon_threadsafe(loop.remove_reader, self._selector.fileno())
            elif not loop.is_closed():
                loop.remove_reader(self._selector.fileno())
        with self._lock:
            self._loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there; wait for its result. Called from any thread."""
        future: Future[T] = Future()
        self._post(self._begin, work, future)
        if asyncio._get_running_loop() is not None:
            # A task, perhaps, within which no other loop may run its own.
            self._calls.add(future)
            self._is_needed.set()
            self._loop.call_soon_threadsafe(_wake)
            try:
                return future.result()
            finally:
                self._calls.remove(future)
        while True:
            with uninterrupted():
                self._drive()
            if future.done():
                return future.result()
            self._wait()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Have the loop call something; calls keep their order. Called from any thread."""
        defer_alarms()
        self._post(callback, *args)
        running = asyncio._get_running_loop()
        if running is None:
            self._loop.call_soon_threadsafe(_wake)
        elif running is not self._loop:
            self._join(running)
            running.call_soon(self._drive_posted)

    def at_once(self, callback: Callable[[*_Ts], T], *args: *_Ts) -> T | None:
        """Return what a callback returns, called while the loop stands still; it waits for nothing.

        Nothing is called, and None returned, where somebody has called before and waits, or the
        loop runs, be it that this call comes from within it: a finalizer may write at any line.
        """
        self._check()
        running = asyncio._get_running_loop()
        if running is not None and running is not self._loop:
            self._join(running)
        if self._posted or self._lock.locked():
            return None
        with self._lock:  # whoever has taken it since lets go of it soon
            try:
                if running is None:  # a finalizer must not run a loop of its own in here
                    asyncio._set_running_loop(self._loop)
                return callback(*args)
            finally:
                asyncio._set_running_loop(running)

    def answer(
        self, loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any
    ) -> None:
        """Have a loop of the application call something; called in this loop."""
        if loop is self._driver:
            loop.call_soon(callback, *args)
        else:
            loop.call_soon_threadsafe(callback, *args)

    def _join(self, running: asyncio.AbstractEventLoop) -> None:
        """Have a loop of the application run this one, when there is something to do."""
        if running not in self._loops:
            self._loops.add(running)  # first, for a collection of garbage may come back here
            running.add_reader(self._selector.fileno(), self._drive)

    def _post(self, callback: Callable[..., object], *args: Any) -> None:
        self._check()
        self._posted.append((callback, args))

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise ConnectionResetError(_FORKED)
        if self._loop.is_closed():
            raise ConnectionResetError(_ENDED)

    def _begin(self, work: Coroutine[Any, Any, T], future: "Future[T]") -> None:
        task = self._loop.create_task(_settle(work, future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drive_posted(self) -> None:
        if self._posted:
            self._drive()

    def _drive(self) -> None:
        """Do all that can be done at once."""
        self._run_ready()
        self._driven = monotonic()

    def _run_ready(self) -> None:
        with self._lock:
            if self._loop.is_closed():
                return
            driver = self._driver = asyncio._get_running_loop()
            asyncio._set_running_loop(None)
            try:
                self._take_posted()
                self._loop.run_ready()
                while self._loop.has_more or self._posted:
                    self._take_posted()
                    self._loop.run_ready()
            finally:
                asyncio._set_running_loop(driver)
                self._driver = None

    def _take_posted(self) -> None:
        while self._posted:
            callback, args = self._posted.popleft()
            self._loop.call_soon(callback, *args, context=self._context)

    def _wait(self) -> None:
        waiting = poll()
        waiting.register(self._selector.fileno(), POLLIN)
        waiting.poll(1000 * _TICK)

    def _watch(self) -> None:
        """Run the loop where nobody has done so for a while, and for those who cannot."""
        while not self._is_ending:
            driven = self._driven
            if not self._calls and monotonic() - driven < _TICK:
                self._is_needed.wait(_TICK)
                self._is_needed.clear()
            else:
                self._wait()
            if self._calls or self._driven == driven:  # else somebody has begun to run it
                self._run_ready()


_AT_WORK = (SharedLoop._drive, SharedLoop._drive_posted, SharedLoop._run_ready, SharedLoop.at_once)
UNDIVIDED.update(method.__code__ for method in _AT_WORK)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that runs for a moment."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        self.has_more = False
        """Whether anything was made ready that may not have run."""

    def run_ready(self) -> None:
        """Call what is ready, and what that makes ready; wait for nothing."""
        self._end_soon()
        self.run_forever()

    def call_soon(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Note that there is more to do."""
        self.has_more = True
        return super().call_soon(callback, *args, context=context)

    def _end_soon(self) -> None:
        """Come again behind what has just been made ready; end where nothing was."""
        if self.has_more:
            super().call_soon(self._end_soon)
        else:
            self.stop()
        self.has_more = False


async def _settle(work: Coroutine[Any, Any, T], future: "Future[T]") -> None:
    try:
        future.set_result(await work)
    except BaseException as error:  # noqa: BLE001  (it belongs to who waits)
        future.set_exception(error)


def _wake() -> None:
    """Do nothing: who waits for the loop goes on."""


_TICK = 0.05
"""Seconds after which the loop's own thread looks whether anybody else runs it."""

_FORKED = (
    "This process was forked from that of the tests, where the connections of a test end. Start it "
    "by spawn instead"
)
_ENDED = "The run of tests has ended. End threads and tasks before it does"
