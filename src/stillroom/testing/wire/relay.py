"""Connections to a database of a test's own: real ones, which belong to no event loop either.

Each is a physical connection in the loop of the run, and a wire to the application.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from stillroom.testing.sandbox.statements import Statement
from stillroom.testing.wire import messages
from stillroom.testing.wire.backend import Backend, BackendError
from stillroom.testing.wire.messages import Message, Messages
from stillroom.testing.wire.transport import Wire

Settings = dict[str, str]
"""Run-time parameters that a connection starts with."""


class Relay:
    """Open a physical connection for each wire, and pass on what comes."""

    def __init__(self, connect_arguments: dict[str, Any]) -> None:
        self.connections: dict[int, _RelayedConnection] = {}
        self.settings: Settings = {}
        """What the last connection of the application started with."""
        self._connect_arguments = connect_arguments
        self._numbers = 0
        self._ahead: tuple[Settings, Backend] | None = None

    async def open_ahead(self, settings: Settings, statements: Iterable[Statement]) -> None:
        """Open a connection that starts with these settings, for the wire that will ask for it.

        It has planned the statements already, and knows the tables that they are about.
        """
        backend = await self._connect(settings)
        for statement in statements:
            if statement.may_be_explained:
                with suppress(BackendError):  # it may be about what another test has made
                    await backend.query(f"EXPLAIN (GENERIC_PLAN) {statement.text}")
        self._ahead = settings, backend

    async def open(self, settings: Settings) -> Backend:
        """Return a physical connection that has started with these settings."""
        self.settings = settings
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            if ahead[0] == settings:
                return ahead[1]
            await ahead[1].close()
        return await self._connect(settings)

    def accept(self, wire: Wire) -> "_RelayedConnection":
        """Take a new connection of the application."""
        self._numbers += 1
        connection = _RelayedConnection(self, wire, self._numbers)
        self.connections[self._numbers] = connection
        return connection

    def lose(self) -> None:
        """Tell the application that its connections have ended; `close` tells the server."""
        for connection in self.connections.values():
            connection.lose()

    async def close(self) -> None:
        """Hang up all that are open."""
        for connection in list(self.connections.values()):
            await connection.end()
        if self._ahead is not None:
            await self._ahead[1].close()
            self._ahead = None

    async def _connect(self, settings: Settings) -> Backend:
        return await Backend.open(**self._connect_arguments, server_settings=settings)


class _RelayedConnection:
    def __init__(self, relay: Relay, wire: Wire, number: int) -> None:
        self._relay = relay
        self._wire = wire
        self._number = number
        self._incoming = Messages()
        self._kept: list[bytes] = []
        self._backend: Backend | None = None
        self._opening: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._is_flushing = False

    def receive(self, data: bytes, task: "asyncio.Task[Any] | None") -> None:
        _ = task
        if self._opening is None:
            startup = self._incoming.take_startup(data)
            if startup is not None:
                self._opening = asyncio.ensure_future(self._start(*startup))
        elif self._backend is not None:
            self._backend.write(data)
        else:
            self._kept.append(data)

    def take_at_once(self, data: bytes) -> bytes | None:
        if self._backend is None:
            return None
        self._backend.write_at_once(data)
        return b""

    def hang_up(self) -> None:
        self._ending = asyncio.ensure_future(self.end())

    def lose(self) -> None:
        self._wire.lose()

    async def end(self) -> None:
        self._relay.connections.pop(self._number, None)
        if self._opening is not None:
            await self._opening
        if self._backend is not None:
            await self._backend.close()
            self._backend = None
        self.lose()

    async def _start(self, code: int, body: bytes) -> None:
        if code == messages.CANCEL_REQUEST:
            connection = self._relay.connections.get(int.from_bytes(body[:4], "big"))
            if connection is not None and connection._backend is not None:
                await connection._backend.cancel()
            self._relay.connections.pop(self._number, None)
            self._wire.lose()
            return
        given = messages.startup_parameters(body)
        settings = {
            name: value
            for name, value in given.items()
            if name and name not in ("user", "database", "client_encoding")
        }
        try:
            self._backend = await self._open(settings)
        except Exception as error:  # noqa: BLE001  (the application gets it)
            code_of_error = str(getattr(error, "sqlstate", "08001"))
            self._wire.deliver(messages.error(code_of_error, str(error), severity="FATAL"))
            self._wire.flush()

    async def _open(self, settings: dict[str, str]) -> Backend:
        backend = await self._relay.open(settings)
        self._wire.deliver(
            messages.AUTHENTICATION_OK
            + backend.greeting
            + messages.key_data(self._number, self._number)
            + messages.ready(b"I")
        )
        self._wire.flush()
        backend.pass_on(self._pass_on)
        backend.ended.add_done_callback(self._follow)
        backend.write(b"".join(self._kept))
        return backend

    def _follow(self, _ended: "asyncio.Future[None]") -> None:
        self._relay.connections.pop(self._number, None)
        self._wire.lose()

    def _pass_on(self, message: Message) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)
        self._wire.deliver(message.encode())

    def _flush(self) -> None:
        self._is_flushing = False
        self._wire.flush()
