"""Databases of a test's own: copied ahead of time, and dropped behind."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import Dialect

from stillroom.errors import StillroomError
from stillroom.testing.cost import Cost
from stillroom.testing.databases import Databases
from stillroom.testing.databases.server import Server
from stillroom.testing.databases.template import Template
from stillroom.testing.engines import DatabaseTarget, Target
from stillroom.testing.engines.places import Place
from stillroom.testing.loop import SharedLoop
from stillroom.testing.sandbox.statements import Statement, read_statements
from stillroom.testing.wire.relay import Relay, Settings
from stillroom.testing.wire.transport import AnyLoop

_AHEAD = 3
"""How many clones wait for tests to come."""

_FORESEEN = 10
"""How many statements a connection plans before a test has it."""

_BEHIND = 20
"""How many databases of tests that have ended may be there, while clones are waited for."""


class CloneIsolation:
    """Give each scope that connects a database of its own, a copy of that of the scope around it.

    So what a fixture of a module commits is in the databases of all tests of the module. What
    holds a connection over such a copy loses it: PostgreSQL copies no database that is in use.
    """

    def __init__(
        self, loop: SharedLoop, server: Server, databases: Databases, template: Template
    ) -> None:
        self.cost = Cost()
        self._clones = _Clones(loop, server, databases, template)
        self._levels = [_Level("run", None, self._clones, self.cost)]

    def expect(self, number: int) -> None:
        """Make clones in the background: so many tests with one are to come."""
        self._clones.expected = number

    def note(self, sent: Sequence[str]) -> None:
        """Take the statements of a test that has ended: the next one's may be alike."""
        self._clones.sent = sent

    def stand_at(self, levels: Sequence[str]) -> Target:
        """Drop the databases of the scopes that are not named."""
        self._clones.foresee()
        kept = self._count_kept(levels)
        for level in reversed(self._levels[kept:]):
            level.end()
        del self._levels[kept:]
        for key in levels[kept - 1 :]:
            self._levels.append(_Level(key, self._levels[-1], self._clones, self.cost))
        return self._levels[-1]

    def has_work(self, levels: Sequence[str]) -> bool:
        """Say whether scopes that are not named have a database."""
        return any(level.has_database for level in self._levels[self._count_kept(levels) :])

    def url(self) -> str:
        """Return the URL of the database of the innermost scope."""
        return self._levels[-1].url()

    def keep(self) -> str:
        """Let the database of the innermost scope outlive the run."""
        return self._levels[-1].keep()

    def close(self) -> None:
        """Drop all."""
        for level in reversed(self._levels):
            level.end()
        self._clones.close()

    def _count_kept(self, levels: Sequence[str]) -> int:
        kept = 1  # the run itself
        for level, key in zip(self._levels[1:], levels, strict=False):
            if level.key != key:
                break
            kept += 1
        return kept


class _Level:
    """A scope, and its database if something in it has connected."""

    def __init__(self, key: str, around: "_Level | None", clones: "_Clones", cost: Cost) -> None:
        self.key = key
        self._around = around
        self._clones = clones
        self._cost = cost
        self._name: str | None = None
        self._target: DatabaseTarget | None = None
        self._relay: Relay | None = None
        self._lock = threading.RLock()

    @property
    def place(self) -> Place | None:
        return None if self._target is None else self._target.place

    def direct(self, dialect: Dialect, arguments: dict[str, Any]) -> None:
        self._open().direct(dialect, arguments)

    def url(self) -> str:
        return self._open().url.render_as_string(hide_password=False)

    @property
    def has_database(self) -> bool:
        return self._name is not None

    def keep(self) -> str:
        name, self._name = self._name or "", None
        if name:
            self._clones.leave(name)
        return name

    def end(self) -> None:
        if self._target is not None:
            with self._cost.measured():
                self.disconnect()
                if self._name is not None:
                    self._clones.drop(self._name)
            self._name = None

    def disconnect(self) -> None:
        if self._relay is not None:
            self._clones.settings = self._relay.settings
            self._clones.loop.call(self._relay.close())

    def _open(self) -> DatabaseTarget:
        with self._lock:
            if self._target is None:
                with self._cost.measured():
                    source = self._source()
                    clone = self._clones.take() if source is None else self._clones.copy(source)
                self._cost.tests += 1
                self._name, self._relay = clone.name, clone.relay
                wires = AnyLoop(self._clones.loop, clone.relay.accept)
                self._target = DatabaseTarget(clone.url, wires)
            return self._target

    def _source(self) -> str | None:
        """Return the database of the nearest scope around that has one, with nobody in it."""
        around = self._around
        while around is not None and around._name is None:
            around = around._around
        if around is None:
            return None
        around.disconnect()
        return around._name


@dataclass(frozen=True)
class _Clone:
    name: str
    url: str
    relay: Relay


class _Clones:
    """Make copies of the template in the background, and drop what is not needed any more.

    One of both at a time; what a test waits for goes first.
    """

    def __init__(
        self, loop: SharedLoop, server: Server, databases: Databases, template: Template
    ) -> None:
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
        self._ready: deque[_Clone] = deque()
        self._waiting: deque[asyncio.Future[_Clone]] = deque()
        self._behind: deque[str] = deque()
        self._worker: asyncio.Task[None] | None = None

    def foresee(self) -> None:
        """Begin to make the clones that are expected, if the template is there."""
        if self.expected > 0 and self._worker is None and self._template.is_there:
            self._source = self._template.name
            self.loop.call_soon(self._work)

    def take(self) -> _Clone:
        """Return a clone."""
        self._source = self._template.name
        return self.loop.call(self._take())

    def copy(self, source: str) -> _Clone:
        """Return a copy of a database that is not the template."""
        return self.loop.call(self._copy(source))

    def drop(self, name: str) -> None:
        """Drop a database, later."""
        self.loop.call(self._drop(name))

    def leave(self, name: str) -> None:
        """Let a database outlive the run."""
        self.loop.call(self._databases.leave(name))

    def close(self) -> None:
        """Stop working; who made the databases drops what is left of them."""
        self.loop.call(self._close())

    async def _take(self) -> _Clone:
        self.expected -= 1
        if self._ready:
            self._work()
            return self._ready.popleft()
        waiting: asyncio.Future[_Clone] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._work()
        return await waiting

    async def _copy(self, source: str) -> _Clone:
        await self._databases.disconnect(source)
        return await self._create(source)

    async def _create(self, source: str) -> _Clone:
        name = await self._databases.create(source)
        url = self.server.url(name)
        return _Clone(name, url, Relay({"dsn": url}))

    async def _drop(self, name: str) -> None:
        self._behind.append(name)
        self._work()

    async def _close(self) -> None:
        self.expected = 0
        self._behind.clear()
        if self._worker is not None:
            await self._worker
        for clone in self._ready:
            await clone.relay.close()

    def _work(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            if len(self._behind) > _BEHIND:
                await self._drop_one()
            elif self._waiting or len(self._ready) < min(_AHEAD, self.expected):
                await self._make()
            elif self._behind:
                await self._drop_one()
            else:
                return

    def _foreseen(self) -> list[Statement]:
        """Return what the test to come may send: it is like the last one."""
        found = [read_statements(sql) for sql in dict.fromkeys(self.sent)]
        return [statements[0] for statements in found if len(statements) == 1][:_FORESEEN]

    async def _drop_one(self) -> None:
        # Where that fails tests go on, and clones are made for them. What was not dropped is still
        # among what the run has made: its end tries again, and says then what is wrong.
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, StillroomError):
            await self._databases.drop(self._behind.popleft())

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
