"""Databases of a test's own: copied ahead of time, and dropped behind."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Dialect

from stillroom.testing.cost import Cost
from stillroom.testing.databases import Databases
from stillroom.testing.engines import DatabaseTarget, Target
from stillroom.testing.places import Place
from stillroom.testing.relay import Relay
from stillroom.testing.server import Server
from stillroom.testing.template import Template
from stillroom.testing.thread import LoopThread
from stillroom.testing.transport import AnyLoop

_AHEAD = 3
"""How many clones wait for tests to come."""

_BEHIND = 20
"""How many databases of tests that have ended may be there, while clones are waited for."""


class CloneIsolation:
    """Give each scope that connects a database of its own, a copy of that of the scope around it.

    So what a fixture of a module commits is in the databases of all tests of the module. What
    holds a connection over such a copy loses it: PostgreSQL copies no database that is in use.
    """

    def __init__(
        self, thread: LoopThread, server: Server, databases: Databases, template: Template
    ) -> None:
        self.cost = Cost()
        self._clones = _Clones(thread, server, databases, template)
        self._levels = [_Level("run", None, self._clones, self.cost)]

    def expect(self, number: int) -> None:
        """Make clones in the background: so many tests with one are to come."""
        self._clones.expected = number

    def stand_at(self, levels: Sequence[str]) -> Target:
        """Drop the databases of the scopes that are not named."""
        wanted = ("run", *levels)
        kept = 1
        while kept < min(len(wanted), len(self._levels)) and self._levels[kept].key == wanted[kept]:
            kept += 1
        for level in reversed(self._levels[kept:]):
            level.end()
        del self._levels[kept:]
        for key in wanted[kept:]:
            self._levels.append(_Level(key, self._levels[-1], self._clones, self.cost))
        return self._levels[-1]

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

    def keep(self) -> str:
        self._open()
        name, self._name = str(self._name), None
        self._clones.leave(name)
        return name

    def end(self) -> None:
        if self._name is not None:
            with self._cost.measured():
                self.disconnect()
                self._clones.drop(self._name)
            self._name = None

    def disconnect(self) -> None:
        if self._relay is not None:
            self._clones.thread.call(self._relay.close())

    def _open(self) -> DatabaseTarget:
        with self._lock:
            if self._target is None:
                self._cost.tests += 1
                with self._cost.measured():
                    self._target = self._make()
            return self._target

    def _make(self) -> DatabaseTarget:
        clones = self._clones
        self._name = clones.take() if (source := self._source()) is None else clones.copy(source)
        url = clones.server.url(self._name)
        self._relay = Relay({"dsn": url})
        return DatabaseTarget(url, AnyLoop(clones.thread.loop, self._relay.accept))

    def _source(self) -> str | None:
        """Return the database of the nearest scope around that has one, with nobody in it."""
        around = self._around
        while around is not None and around._name is None:
            around = around._around
        if around is None:
            return None
        around.disconnect()
        return around._name


class _Clones:
    """Make copies of the template in the background, and drop what is not needed any more.

    One of both at a time; what a test waits for goes first.
    """

    def __init__(
        self, thread: LoopThread, server: Server, databases: Databases, template: Template
    ) -> None:
        self.thread = thread
        self.server = server
        self.expected = 0
        self._databases = databases
        self._template = template
        self._source = ""
        self._ready: deque[str] = deque()
        self._waiting: deque[asyncio.Future[str]] = deque()
        self._behind: deque[str] = deque()
        self._worker: asyncio.Task[None] | None = None

    def take(self) -> str:
        """Return the name of a clone."""
        self._source = self._template.name
        return self.thread.call(self._take())

    def copy(self, source: str) -> str:
        """Copy a database that is not the template; return the name of the copy."""
        return self.thread.call(self._copy(source))

    def drop(self, name: str) -> None:
        """Drop a database, later."""
        self.thread.call(self._drop(name))

    def leave(self, name: str) -> None:
        """Let a database outlive the run."""
        self._databases.made.discard(name)

    def close(self) -> None:
        """Stop working; who made the databases drops what is left of them."""
        self.thread.call(self._close())

    async def _take(self) -> str:
        self.expected -= 1
        if self._ready:
            self._work()
            return self._ready.popleft()
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._work()
        return await waiting

    async def _copy(self, source: str) -> str:
        await self._databases.disconnect(source)
        return await self._databases.create(source)

    async def _drop(self, name: str) -> None:
        self._behind.append(name)
        self._work()

    async def _close(self) -> None:
        self.expected = 0
        self._behind.clear()
        if self._worker is not None:
            await self._worker

    def _work(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            if len(self._behind) > _BEHIND:
                await self._databases.drop(self._behind.popleft())
            elif self._waiting or len(self._ready) < min(_AHEAD, self.expected):
                await self._make()
            elif self._behind:
                await self._databases.drop(self._behind.popleft())
            else:
                return

    async def _make(self) -> None:
        try:
            name = await self._databases.create(self._source)
        except Exception as error:  # noqa: BLE001  (it belongs to a test that waits)
            self.expected = 0  # where none waits: the next one that does gets its own error
            if self._waiting:
                self._waiting.popleft().set_exception(error)
            return
        if self._waiting:
            self._waiting.popleft().set_result(name)
        else:
            self._ready.append(name)
