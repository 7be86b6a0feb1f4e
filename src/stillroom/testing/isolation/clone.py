"""The isolation of databases: each scope has one of its own, with real commits."""

import threading
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Dialect

from stillroom.testing.clones import Clones
from stillroom.testing.cost import Cost
from stillroom.testing.databases import Databases
from stillroom.testing.databases.server import Server
from stillroom.testing.databases.template import Template
from stillroom.testing.engines import DatabaseTarget, Target
from stillroom.testing.engines.places import Place
from stillroom.testing.loop import SharedLoop
from stillroom.testing.wire.relay import Relay
from stillroom.testing.wire.transport import AnyLoop


class CloneIsolation:
    """Give each scope that connects a database of its own, a copy of that of the scope around it.

    So what a fixture of a module commits is in the databases of all tests of the module. What
    holds a connection over such a copy loses it: PostgreSQL copies no database that is in use.
    """

    def __init__(
        self, loop: SharedLoop, server: Server, databases: Databases, template: Template
    ) -> None:
        self.cost = Cost()
        self._clones = Clones(loop, server, databases, template)
        self._levels = [_Level("run", None, self._clones, self.cost)]

    def expect(self, number: int) -> None:
        """Make clones in the background: so many tests with one are to come."""
        self._clones.expected = number

    def foresee(self) -> None:
        """Begin to make them, if the template is there already."""
        self._clones.foresee()

    def note(self, sent: Sequence[str]) -> None:
        """Take the statements of a test that has ended: the next one's may be alike."""
        self._clones.sent = sent

    def stand_at(self, levels: Sequence[str]) -> Target:
        """Drop the databases of the scopes that are not named."""
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

    def __init__(self, key: str, around: "_Level | None", clones: Clones, cost: Cost) -> None:
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
        if self._relay is not None:
            with self._cost.measured():
                self._clones.settings = self._relay.settings
                self._clones.drop(self._name, self._relay)
            self._name = None

    def disconnect(self) -> None:
        if self._relay is not None:
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
