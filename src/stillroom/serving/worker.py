"""A process that serves an application.

    python -m stillroom.serving.worker CONTROL LISTENER OPTIONS [NOTES]

CONTROL and LISTENER are open sockets, by number (see `control`), OPTIONS is JSON. With NOTES it
shows what the library notes at the start, which one worker of several does.
"""

import asyncio
import json
import logging
import signal
import socket
import sys
import traceback
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.lifespan.on import LifespanOn

from stillroom.errors import StillroomError
from stillroom.redaction import redact_process, redacted
from stillroom.serving.access import AccessLog
from stillroom.serving.application import load_application
from stillroom.serving.control import Control, leave_the_terminal_to_the_supervisor
from stillroom.serving.options import Options
from stillroom.serving.server import Server

KEEP_ALIVE_SECONDS = 65
"""How long a connection may be idle: longer than the usual proxy keeps it, which then closes it.

The other way round a proxy would now and then send a request on a connection that has just gone.
"""

EXIT_SECONDS = 2
"""How long the process may take to end after the grace of its requests."""


def main(arguments: list[str]) -> None:
    """Serve until the supervisor says stop, or is gone; the exit code is 1 for a failed start."""
    redact_process()
    leave_the_terminal_to_the_supervisor()
    options = Options(**json.loads(arguments[2]))
    control = Control(socket.socket(fileno=int(arguments[0])), options.grace + EXIT_SECONDS)
    listener = socket.socket(fileno=int(arguments[1]))
    listener.set_inheritable(False)  # a process that the application starts must not keep the port
    if arguments[3:]:
        _show_notes()
    try:
        _serve(options, control, listener)
    except StillroomError as error:
        control.say_failure(str(error))
        sys.exit(1)


def _serve(options: Options, control: Control, listener: socket.socket) -> None:
    application = load_application(options.application)
    config = uvicorn.Config(
        AccessLog(application) if options.access_log else application,
        http="httptools",
        loop="uvloop",
        interface="asgi3",
        log_level="warning",
        access_log=False,  # its own has the queries in it
        server_header=False,
        proxy_headers=options.proxy is not None,
        forwarded_allow_ips=options.proxy or "",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=options.grace,
    )
    config.load()
    config.lifespan_class = Lifespan
    server = Server(config, control, listener)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.stop()

    signal.signal(signal.SIGTERM, stop)  # to this worker alone: another one takes its place
    server.serve_until_stopped()


class Lifespan(LifespanOn):
    """Start and stop the application, and say in a sentence why it does not start."""

    _reason = ""

    async def startup(self) -> None:
        """Start it. Raises StillroomError, after its traceback was shown, where it fails."""
        self._running = asyncio.ensure_future(self.main())
        await self.receive_queue.put({"type": "lifespan.startup"})
        await self.startup_event.wait()
        if self.startup_failed:
            raise StillroomError(_sentence(self._reason))

    async def send(self, message: Any) -> None:
        """Take a message of the application."""
        # The message of Starlette is the traceback of the error that it handles at this moment.
        error = sys.exc_info()[1]
        text = message.pop("message", "")
        if error is not None:
            text = "".join(traceback.format_exception(redacted(error)))
        if message["type"] == "lifespan.startup.failed":
            self._reason = text
        elif text:
            self.logger.error(text)
        await super().send(message)


def _sentence(trace: str) -> str:
    *_, last = trace.strip().splitlines() or ["its lifespan says it, and not why"]
    if last.startswith("stillroom.errors."):  # those say in one line all there is to say
        last = last.removeprefix("stillroom.errors.")
    else:
        sys.stderr.write(trace)
    return f"The application did not start: {last}"


def _show_notes() -> None:
    """Show what the library notes, where the application has no logging of its own."""
    handler = logging.StreamHandler()
    handler.addFilter(lambda _: not logging.getLogger().handlers)
    logger = logging.getLogger("stillroom")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)


if __name__ == "__main__":
    main(sys.argv[1:])
