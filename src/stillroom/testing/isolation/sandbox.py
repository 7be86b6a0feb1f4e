"""The isolation of the sandbox: one transaction of one database, which is rolled back."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect

from stillroom.testing.canary import Canary
from stillroom.testing.cost import Cost
from stillroom.testing.databases import Databases
from stillroom.testing.databases.server import Server
from stillroom.testing.databases.template import Template
from stillroom.testing.engines import SandboxTarget, Target
from stillroom.testing.interrupts import uninterrupted
from stillroom.testing.loop import SharedLoop
from stillroom.testing.refusal import Refusal
from stillroom.testing.sandbox import Sandbox
from stillroom.testing.wire.transport import AnyLoop


class SandboxIsolation:
    """Run all scopes in one transaction of one database, each in a savepoint of it."""

    place = None

    def __init__(
        self,
        loop: SharedLoop,
        server: Server,
        databases: Databases,
        template: Template,
        *,
        has_canary: bool = False,
    ) -> None:
        """Take what the isolation is made of; with a canary, `look` says what a test has left."""
        self.cost = Cost()
        self.canary: Canary | None = None
        self._has_canary = has_canary
        self._loop = loop
        self._server = server
        self._databases = databases
        self._template = template
        self._levels: tuple[str, ...] = ()
        self._opened: _Opened | None = None
        self._lock = threading.RLock()

    def stand_at(self, levels: Sequence[str]) -> Target:
        """Roll back what was done in the scopes that are not named."""
        self._levels = tuple(levels)
        # Asked before each fixture of a test, of which the first alone makes a difference.
        if self._opened is not None and not self._opened.sandbox.stands_at(levels):
            self._move(self._opened.sandbox, levels)
        return self

    def has_work(self, levels: Sequence[str]) -> bool:
        """Say whether there is something to roll back in scopes that are not named."""
        return self._opened is not None and self._opened.sandbox.has_work(levels)

    def direct(self, dialect: Dialect, arguments: dict[str, Any]) -> None:
        """Send an engine into the sandbox."""
        self._open().target.direct(dialect, arguments)

    def url(self) -> str:
        """Return the URL of the database that the sandbox is in, where nothing is ever committed.

        Engines with this URL are in the sandbox, as they are with any other.
        """
        return self._server.url(self._open().name)

    def keep(self) -> str:
        """Commit all, and let the database outlive the run."""
        if self._opened is None:
            return ""
        self._dismiss_canary()  # what it watches changes now
        self._loop.call(self._opened.sandbox.keep())
        self._loop.call(self._databases.leave(self._opened.name))
        return self._opened.name

    def look(self) -> str:
        """Say what the tests have left in the database, if there is a canary to find it."""
        if self.canary is None or self._opened is None or not self.canary.is_watching:
            return ""
        sandbox = self._opened.sandbox
        self._loop.call(sandbox.backend.settle())
        was_at_rest = sandbox.is_at_rest
        has_locks = sandbox.connections.may_hold_locks(0)
        found = self.canary.look(at_rest=was_at_rest, has_locks=has_locks)
        if found and was_at_rest and not sandbox.is_at_rest:  # a thread of the test's goes on
            found = self.canary.look(at_rest=False)
        return found

    def close(self) -> None:
        """Hang up."""
        self._dismiss_canary()
        if self._opened is not None:
            self._loop.call(self._opened.sandbox.close())
            self._opened = None

    def take_refusals(self) -> list[Refusal]:
        """Return what the sandbox has refused since the last call."""
        if self._opened is None:
            return []
        refusals = self._opened.sandbox.refusals
        return [refusals.pop(0) for _ in range(len(refusals))]

    def _move(self, sandbox: Sandbox, levels: Sequence[str]) -> None:
        has_work = sandbox.has_work(levels)
        if not has_work and self._loop.at_once(sandbox.stand_at_once, levels):
            return  # nothing was undone, so there was nothing to keep an interrupt from
        self.cost.tests += has_work
        with uninterrupted(), self.cost.measured():
            if not self._loop.at_once(sandbox.stand_at_once, levels):
                self._loop.call(sandbox.stand_at(levels))

    def _open(self) -> "_Opened":
        with self._lock:
            if self._opened is None:
                name = self._loop.call(self._databases.create(self._template.name))
                url = self._server.url(name)
                if self._has_canary:
                    self.canary = Canary(url)
                sandbox = self._loop.call(self._connect(url))
                wires = AnyLoop(self._loop, sandbox.accept)
                self._opened = _Opened(name, sandbox, SandboxTarget(wires))
            return self._opened

    def _dismiss_canary(self) -> None:
        if self.canary is not None:
            self.canary.close()

    async def _connect(self, url: str) -> Sandbox:
        sandbox = Sandbox({"dsn": url}, cost=self.cost)
        await sandbox.open()
        await sandbox.stand_at(self._levels)
        return sandbox


@dataclass(frozen=True)
class _Opened:
    name: str
    sandbox: Sandbox
    target: SandboxTarget
