"""Signals that come while a run of tests does what must not be left halfway."""

import importlib
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

UNDIVIDED: set[CodeType] = set()
"""The functions within which no alarm is heard, nor within what they call."""


@contextmanager
def uninterrupted() -> Generator[None]:
    """Let a Ctrl-C wait, and an alarm: each would stop what all tests depend on at any line.

    A Ctrl-C within a test is asyncio.Runner's to handle, which does not interrupt either. By alarms
    a test is given a limit of time, as by pytest-timeout.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {
        number: handler for number in _INTERRUPTS if callable(handler := _signal.getsignal(number))
    }
    came: dict[int, FrameType | None] = {}
    try:
        for number in handlers:
            _signal.signal(number, came.setdefault)
        yield
    finally:
        _restore(list(handlers.items()))
    for number in came:
        handlers[number](number, sys._getframe())


def _restore(handlers: list[tuple[int, Any]]) -> None:
    """Set the last of the handlers, and those before it whatever that one is told meanwhile."""
    if not handlers:
        return
    number, handler = handlers.pop()
    try:
        _signal.signal(number, handler)
    finally:
        _restore(handlers)


def defer_alarms() -> None:
    """Let an alarm wait that comes while the sandbox is at work in the application's loop.

    What its handler raises would be raised there, at any line: between two messages of an answer,
    or within asyncpg, which may crash by it. And a loop drops what its callbacks raise.
    """
    if not _ALARM or threading.current_thread() is not threading.main_thread():
        return
    handler = _signal.getsignal(_ALARM[0])
    if callable(handler) and not isinstance(handler, _Deferring):
        _signal.signal(_ALARM[0], _Deferring(handler))


class _Deferring:
    """A handler that lets an alarm come again a moment later, where it comes too early."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True  # a failure by the handler is at the line that it interrupts
        within = frame
        while within is not None:
            if within.f_code in UNDIVIDED:
                # By the timer that it came from: who has set that may still end it.
                left, interval = signal.getitimer(signal.ITIMER_REAL)
                signal.setitimer(signal.ITIMER_REAL, min(left or _MOMENT, _MOMENT), interval)
                return
            within = within.f_back
        self._handler(number, frame)


# The module `signal` looks for an enum's member in each handler, which takes longer than the rest
# of what is done between two tests. This is what it calls.
_signal: Any = importlib.import_module("_signal")

_ALARM = [signal.SIGALRM] if hasattr(signal, "SIGALRM") else []
_INTERRUPTS = [int(number) for number in (*_ALARM, signal.SIGINT)]
_MOMENT = 0.001
"""Seconds after which an alarm that came too early comes again."""
