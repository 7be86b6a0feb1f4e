"""Databases of a test's own: copied ahead of time, and dropped behind."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

from stillroom.errors import StillroomError
from stillroom.testing.databases import Databases
from stillroom.testing.databases.server import Server
from stillroom.testing.databases.template import Template
from stillroom.testing.loop import SharedLoop
from stillroom.testing.sandbox.statements import Statement, read_statements
from stillroom.testing.wire.relay import Relay, Settings

_AHEAD = 3
"""How many clones wait for tests to come."""

_FORESEEN = 10
"""How many statements a connection plans before a test has it."""

_BEHIND = 20
"""How many databases of tests that have ended may be there, while clones are waited for."""

_LINGERING = 5
"""With how many connections a test that has ended may be connected for a moment longer."""

_REST, _RESTS = 0.006, 2
"""How long, in seconds, a test that begins is left alone by what is made and dropped meanwhile."""

_GENERIC_PLAN = 16
"""The first version of PostgreSQL that plans without values: EXPLAIN (GENERIC_PLAN)."""

_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, StillroomError)


@dataclass(frozen=True)
class Clone:
    """A copy of a database, and the connections to it."""

    name: str
    url: str
    relay: Relay


class Clones:
    """Make copies of the template in the background, and drop what is not needed any more.

    One of both at a time; what a test waits for goes first.
    """

    def __init__(
        self, loop: SharedLoop, server: Server, databases: Databases, template: Template
    ) -> None:
        """Take what they are made of; nothing is made before `foresee` or `take`."""
        self.loop = loop
        self.server = server
        self.expected = 0
        self.settings: Settings = {}
        """What connections of the application start with, as far as is known from the last test."""
        self.sent: Sequence[str] = ()
        """What the last test has sent."""
        self._databases = databases
        self._template = template
        self._source = ""
        self._ready: deque[Clone] = deque()
        self._waiting: deque[asyncio.Future[Clone]] = deque()
        self._behind: deque[tuple[str | None, Relay]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._may_rest = False

    def foresee(self) -> None:
        """Begin to make the clones that are expected, if the template is there."""
        if self.expected > 0 and self._worker is None and self._template.is_there:
            self._source = self._template.name
            self.loop.call_soon(self._work)

    def take(self) -> Clone:
        """Return a clone."""
        self._source = self._template.name
        return self.loop.call(self._take())

    def copy(self, source: str) -> Clone:
        """Return a copy of a database that is not the template."""
        return self.loop.call(self._copy(source))

    def drop(self, name: str | None, relay: Relay) -> None:
        """Hang up; the server learns of it later, and drops the database, if it has to go."""
        self.loop.call(self._drop(name, relay))

    def leave(self, name: str) -> None:
        """Let a database outlive the run."""
        self.loop.call(self._databases.leave(name))

    def close(self) -> None:
        """Stop working; who made the databases drops what is left of them."""
        self.loop.call(self._close())

    async def _take(self) -> Clone:
        self.expected -= 1
        self._may_rest = bool(self._ready)
        if self._ready:
            self._work()
            return self._ready.popleft()
        waiting: asyncio.Future[Clone] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._work()
        return await waiting

    async def _copy(self, source: str) -> Clone:
        self._may_rest = False  # the next test may ask for one too, and waits for it
        await self._databases.disconnect(source)
        return await self._create(source)

    async def _create(self, source: str) -> Clone:
        name = await self._databases.create(source)
        url = self.server.url(name)
        return Clone(name, url, Relay({"dsn": url}))

    async def _drop(self, name: str | None, relay: Relay) -> None:
        relay.lose()
        self._behind.append((name, relay))
        if len(relay.connections) > _LINGERING:
            await relay.close()
        self._work()

    async def _close(self) -> None:
        self.expected = 0
        await self._hang_up()
        self._behind.clear()
        if self._worker is not None:
            await self._worker
        for clone in self._ready:
            await clone.relay.close()

    def _work(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        await self._rest()
        while True:
            await self._hang_up()
            if len(self._behind) > _BEHIND:
                await self._drop_one()
            elif self._waiting or len(self._ready) < min(_AHEAD, self.expected):
                await self._make()
            elif self._behind:
                await self._drop_one()
            else:
                return

    async def _rest(self) -> None:
        """Leave the machine to a test that begins: most soon wait for something."""
        for _ in range(_RESTS):
            is_short = len(self._ready) < min(_AHEAD, self.expected) - 1
            if self._waiting or is_short or not self._may_rest:
                return
            with suppress(*_ERRORS):  # who makes a clone is told
                # By the server's clock: this loop has nobody who would wake it at a time.
                await self._databases.execute("SELECT pg_sleep($1)", _REST)

    def _foreseen(self) -> list[Statement]:
        """Return what the test to come may send: it is like the last one."""
        if int(self._databases.version.partition(".")[0]) < _GENERIC_PLAN:
            return []
        found = [read_statements(sql) for sql in dict.fromkeys(self.sent)]
        return [statements[0] for statements in found if len(statements) == 1][:_FORESEEN]

    async def _hang_up(self) -> None:
        """End the connections of tests that have ended: an end costs the server some time."""
        for _, relay in list(self._behind):
            with suppress(*_ERRORS):  # the server has ended it
                await relay.close()

    async def _drop_one(self) -> None:
        # Where that fails tests go on, and clones are made for them. What was not dropped is still
        # among what the run has made: its end tries again, and says then what is wrong.
        name, relay = self._behind.popleft()
        with suppress(*_ERRORS):
            await relay.close()
            if name is not None:
                await self._databases.drop(name)

    async def _make(self) -> None:
        try:
            clone = await self._create(self._source)
            await clone.relay.open_ahead(self.settings, self._foreseen())
        except Exception as error:  # noqa: BLE001  (it belongs to a test that waits)
            self.expected = 0  # where none waits: the next one that does gets its own error
            if self._waiting:
                self._waiting.popleft().set_exception(error)
            return
        if self._waiting:
            self._waiting.popleft().set_result(clone)
        else:
            self._ready.append(clone)
