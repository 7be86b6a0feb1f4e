"""The processes that `stillroom dev` starts: the application's server, and its migrations.

    python -m stillroom.development.worker CONTROL serve APPLICATION LISTENER
    python -m stillroom.development.worker CONTROL migrate

CONTROL and LISTENER are open sockets, by number. The other end of CONTROL is the supervisor's
alone: it sends a byte when the server may serve, gets one when it does, and closes it to stop the
process. As the system closes it when the supervisor is killed, no process outlives its supervisor.
"""

import asyncio
import contextlib
import os
import runpy
import signal
import socket
import sys
import threading
import time
from types import FrameType

import uvicorn

GRACE_SECONDS = 2
"""How long requests may take to end before they are cancelled."""

EXIT_SECONDS = GRACE_SECONDS + 2
"""How long the process may take to end before it ends at once, whatever hangs."""

_ARRIVAL_SECONDS = 0.05  # from a connection to the request on it; both are on this machine


def main(arguments: list[str]) -> None:
    """Run the server or the migrations until they end, or the supervisor does."""
    for number in (
        signal.SIGINT,
        signal.SIGHUP,
    ):  # a terminal sends them to all: the supervisor decides
        signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGHUP))
    control = Control(socket.socket(fileno=int(arguments[0])))
    if arguments[1] == "serve":
        serve(control, arguments[2], socket.socket(fileno=int(arguments[3])))
    else:
        sys.argv = ["alembic", "upgrade", "head"]
        runpy.run_module("alembic", run_name="__main__", alter_sys=True)


def serve(control: "Control", application: str, listener: socket.socket) -> None:
    """Import the application, wait for permission, serve until the supervisor says stop."""
    listener.set_inheritable(False)  # a process that the application starts must not keep the port
    config = uvicorn.Config(application, timeout_graceful_shutdown=GRACE_SECONDS)
    config.load()
    control.server = server = Server(config, control)
    control.permission.wait()
    server.run([listener])


class Server(uvicorn.Server):
    """Tell the supervisor when requests are served."""

    def __init__(self, config: uvicorn.Config, control: "Control") -> None:
        super().__init__(config)
        self._control = control

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and say so."""
        await super().startup(sockets)
        self._control.say_serving()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, let the requests on what was just accepted arrive, then do as uvicorn."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(_ARRIVAL_SECONDS)
        await super().shutdown(sockets)


class Control:
    """Hold this end of the supervisor's socket, in a thread: it works while the rest hangs."""

    def __init__(self, connection: socket.socket) -> None:
        connection.set_inheritable(False)
        self.permission = threading.Event()
        self.server: uvicorn.Server | None = None
        self._connection = connection
        threading.Thread(target=self._watch, daemon=True).start()

    def say_serving(self) -> None:
        """Tell the supervisor that requests are served."""
        with contextlib.suppress(BrokenPipeError):  # it is gone: the thread sees that as well
            self._connection.send(b"s")

    def _watch(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            while self._connection.recv(1):
                self.permission.set()
        if self.server and self.server.started:
            self.server.should_exit = True
            time.sleep(EXIT_SECONDS)
        os._exit(1)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; unlike SIG_IGN this is not inherited by what the application starts."""


if __name__ == "__main__":
    main(sys.argv[1:])
