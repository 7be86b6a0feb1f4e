"""The worker's end of its supervisor's socket.

The other end is the supervisor's alone: it sends a byte when the server may serve, gets one when it
does, and closes it to stop the process. As the system closes it when the supervisor is killed, no
process outlives its supervisor.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

from stillroom.serving.child import FAILED, SERVING, TERMINAL_SIGNALS


class Control:
    """Hold this end of the supervisor's socket, in a thread: it works while the rest hangs."""

    def __init__(self, connection: socket.socket, exit_seconds: float) -> None:
        """Watch; the process may take `exit_seconds` to end before it ends at once."""
        connection.set_inheritable(False)
        self.permission = threading.Event()
        self._stop: Callable[[], None] | None = None
        self._connection = connection
        self._exit_seconds = exit_seconds
        threading.Thread(target=self._watch, daemon=True).start()

    def say_serving(self, stop: Callable[[], None]) -> None:
        """Tell the supervisor that requests are served; `stop` ends that."""
        self._stop = stop
        self._say(SERVING)

    def say_failure(self, reason: str) -> None:
        """Tell the supervisor why no requests will be served."""
        self._say(FAILED + reason.encode(errors="replace"))

    def _say(self, words: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone: the thread sees that as well
            self._connection.sendall(words)

    def _watch(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            while self._connection.recv(1):
                self.permission.set()
        if self._stop is not None:
            self._stop()
            time.sleep(self._exit_seconds)
        os._exit(1)


def leave_the_terminal_to_the_supervisor() -> None:
    """Do nothing at a Ctrl-C, which a terminal sends to all: the supervisor decides."""
    for number in TERMINAL_SIGNALS:
        signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL_SIGNALS)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; unlike SIG_IGN this is not inherited by what the application starts."""
