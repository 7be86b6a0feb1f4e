"""The server in a worker: uvicorn, with an end at which no client loses an answer."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

from stillroom.serving.control import Control
from stillroom.serving.listener import BACKLOG

_ARRIVAL_SECONDS = 0.2
"""How long requests may take to come on connections that are open already."""


class Server(uvicorn.Server):
    """Tell the supervisor when requests are served, and stop without failing one.

    uvicorn's own stop resets the connections that nobody has accepted yet, and closes those that
    seem idle while the next request is on its way. Here what has come is accepted, and every answer
    says `Connection: close` for a moment, so that clients go by themselves.
    """

    def __init__(self, config: uvicorn.Config, control: Control, listener: socket.socket) -> None:
        super().__init__(config)
        self._control = control
        self._listener = listener
        # All workers have one open socket: a dup() of a blocking one would make it that for all.
        listener.setblocking(False)
        self._waiting = listener.dup()  # the event loop closes the other one by itself

    def serve_until_stopped(self) -> None:
        """Serve until the supervisor says stop, or this process gets a SIGTERM."""
        self.run([self._listener])

    def stop(self) -> None:
        """Stop, from any thread or a signal's handler."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and say so."""
        await super().startup(sockets)
        # What the application consists of lives as long as the process. Looking through it again
        # and again for garbage would take a fifth of the time of small requests; so would looking
        # after each few of them, whose objects are still in use.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        self._control.say_serving(self.stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more than has come, let its requests arrive, then do as uvicorn."""
        for server in self.servers:
            server.close()
        await self._accept_who_waits()
        close = (b"connection", b"close")
        self.server_state.default_headers = [*self.server_state.default_headers, close]
        await asyncio.sleep(_ARRIVAL_SECONDS)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to the process: uvicorn would end it by the one that it got."""
        yield

    async def _accept_who_waits(self) -> None:
        accepted: list[socket.socket] = []
        with self._waiting, contextlib.suppress(BlockingIOError):
            while len(accepted) < BACKLOG:
                accepted.append(self._waiting.accept()[0])
        # Whoever comes from now on is refused, and may ask elsewhere.
        for connection in accepted:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(  # as uvicorn's own startup() makes it
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made
