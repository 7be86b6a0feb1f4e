"""The processes that `stillroom dev` starts: the application's server, and its migrations.

    python -m stillroom.development.worker CONTROL serve APPLICATION LISTENER
    python -m stillroom.development.worker CONTROL migrate

CONTROL and LISTENER are open sockets, by number (`stillroom.serving.control`).
"""

import runpy
import socket
import sys
from typing import Any

import uvicorn

from stillroom.redaction import redact_process
from stillroom.serving.access import AccessLog
from stillroom.serving.control import Control, leave_the_terminal_to_the_supervisor
from stillroom.serving.server import Server

GRACE_SECONDS = 2
"""How long requests may take to end before they are cancelled."""

EXIT_SECONDS = GRACE_SECONDS + 2
"""How long the process may take to end before it ends at once, whatever hangs."""


def main(arguments: list[str]) -> None:
    """Run the server or the migrations until they end, or the supervisor does."""
    leave_the_terminal_to_the_supervisor()
    control = Control(socket.socket(fileno=int(arguments[0])), EXIT_SECONDS)
    if arguments[1] == "serve":
        serve(control, arguments[2], socket.socket(fileno=int(arguments[3])))
    else:
        sys.argv = ["alembic", "upgrade", "head"]
        runpy.run_module("alembic", run_name="__main__", alter_sys=True)


def serve(control: Control, application: str, listener: socket.socket) -> None:
    """Import the application, wait for permission, serve until the supervisor says stop."""
    redact_process()
    listener.set_inheritable(False)  # a process that the application starts must not keep the port
    config = uvicorn.Config(application, timeout_graceful_shutdown=GRACE_SECONDS, access_log=False)
    config.load()
    loaded: Any = config
    loaded.loaded_app = AccessLog(loaded.loaded_app)
    server = Server(config, control, listener)
    control.permission.wait()
    server.serve_until_stopped()


if __name__ == "__main__":
    main(sys.argv[1:])
