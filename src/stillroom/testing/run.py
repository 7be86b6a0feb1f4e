"""A run of tests: its server, its template, and the isolation of each test."""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from stillroom.errors import StillroomError
from stillroom.testing.databases import Databases
from stillroom.testing.databases.server import Server
from stillroom.testing.databases.template import Schema, Template
from stillroom.testing.engines import (
    NoTarget,
    Target,
    allow,
    direct_to,
    directed_to,
    install,
    take_strays,
)
from stillroom.testing.isolation import Isolation
from stillroom.testing.isolation.clone import CloneIsolation
from stillroom.testing.isolation.sandbox import SandboxIsolation
from stillroom.testing.loop import SharedLoop
from stillroom.testing.queries import QueryLog

_P = ParamSpec("_P")


@dataclass
class Account:
    """What a process of a run has to say at its end."""

    version: str = ""
    """The version of PostgreSQL; empty where no test has used it."""
    costs: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    """For each isolation how many tests have used it, and the seconds that it took."""
    new_template: str = ""
    """The template that was built, where there was none for the project as it is now."""
    left: dict[str, str] = field(default_factory=dict[str, str])
    """The databases that were left, each by the test that has failed in it."""
    looks: int = 0
    """How often a canary has found a database unchanged."""
    unread: list[str] = field(default_factory=list[str])
    """What a canary could not always read."""

    def add(self, other: "Account") -> None:
        """Add what another process says."""
        self.version = self.version or other.version
        self.new_template = self.new_template or other.new_template
        self.left |= other.left
        self.looks += other.looks
        self.unread = sorted({*self.unread, *other.unread})
        for name, (tests, seconds) in other.costs.items():
            before = self.costs.get(name, (0, 0.0))
            self.costs[name] = (before[0] + tests, before[1] + seconds)


class Run:
    """Own what a run of tests connects to; all but the server is made when it is first needed."""

    def __init__(
        self, server: Server, schema: Schema, default: str, *, has_canary: bool = False
    ) -> None:
        """Take the isolation of the tests that ask for none, "sandbox" or "clone"."""
        self.server = server
        self.queries = QueryLog()
        self.others = Account()
        self._default = default
        self._loop = SharedLoop()
        self._databases = Databases(server)
        self._template = Template(schema, self._loop, server, self._databases)
        parts = self._loop, server, self._databases, self._template
        self._sandbox = SandboxIsolation(*parts, has_canary=has_canary)
        self._clones = CloneIsolation(*parts)
        self._isolations: dict[str, Isolation] = {"sandbox": self._sandbox, "clone": self._clones}
        self._isolation = self._isolations[default]
        self._left: dict[str, str] = {}
        self._before: Target | None = None
        self._is_between = False

    def launch(self) -> None:
        """Start the server in the background, and send every engine of the process to it."""
        install()
        self._before = directed_to()
        self.queries.install()
        self._loop.start()
        self.server.launch()
        self.stand_at([])

    def close(self) -> None:
        """End all of it; a server of the run's own is kept for the next one, or left running.

        All of it ends also where a part cannot, as with a server that has died; no data of such a
        run are kept.
        """
        # Threads of the application may live on: they must not reach what their URLs name. A run
        # within another one leaves it as it was.
        direct_to(self._before or _ENDED)
        self.queries.remove()
        account = self.account()
        is_kept = self.server.is_private and bool(account.new_template) and not account.left
        is_thrown_away = self.server.is_private and not account.left

        def stop(kind: type[BaseException] | None, *_: object) -> None:
            self.server.stop(keep=is_kept and kind is None)

        with ExitStack() as last:  # its last step comes first
            last.push(stop)
            if account.left:
                last.callback(self.server.leave)
            last.callback(self._loop.stop)
            last.callback(self._call, self._databases.close, drop=not is_thrown_away)
            if is_kept:
                last.callback(self._call, self._databases.keep_only, account.new_template)
            for isolation in self._isolations.values():
                last.callback(isolation.close)

    def stand_at(self, levels: Sequence[str], isolation: str | None = None) -> None:
        """Leave the scopes that are not named: what was done in them is gone.

        The scopes are those of pytest within the session, from the widest on. `isolation` is that
        of the innermost one, where this is a test.
        """
        default, chosen = (
            self._isolations[self._default],
            self._isolations[isolation or self._default],
        )
        if chosen is default:
            target = default.stand_at(levels)
            if self._isolation is not default:
                self._unlike(default).stand_at([])
        else:
            default.stand_at(levels)  # what a thread of an earlier test does there goes with it
            target = chosen.stand_at(levels[-1:])
        self._isolation = chosen
        self._is_between = False
        direct_to(target)
        self._clones.foresee()

    def stand_between(self, levels: Sequence[str]) -> None:
        """Leave the scopes that are not named, between two tests.

        No fixture and no test is at work: what is done now, a thread does that has outlived its
        test. It goes with the moment, else a wider scope would have it for all tests to come.
        """
        self.stand_at([*levels, _BETWEEN])
        self._is_between = True

    def stand_at_fixture(self, levels: Sequence[str], isolation: str | None = None) -> None:
        """Stand at the scope of a fixture that is about to be set up.

        Where a narrower scope has done something already it stays so, for that is not to be lost:
        what a fixture then does that was asked for late goes with the narrower scope.
        """
        default = self._isolations[self._default]
        is_late = isolation is None and not self._is_between
        if is_late and (default.has_work(levels) or self._unlike(default).has_work([])):
            return
        self.stand_at(levels, isolation)

    def begin_test(self) -> None:
        """Forget what another test has sent, and what was refused since it ended."""
        if self._isolation is self._clones:
            self._clones.note([query.sql for query in self.queries.statements])
        self.queries.clear()
        self.take_refusals()

    def leave_alone(self) -> None:
        """Let engines go where their URLs say: the test has not asked for a database."""
        direct_to(None)

    def expect_clones(self, number: int) -> None:
        """Say how many tests to come have a database of their own, so that these are made ahead."""
        self._clones.expect(number)

    def take_refusals(self) -> list[StillroomError]:
        """Return what was refused since the last call: statements, and connections past it all."""
        return [*self._sandbox.take_refusals(), *take_strays()]

    def look(self) -> str:
        """Say what a test that has ended has left behind, if there is a canary to find it."""
        return self._sandbox.look()

    def url(self) -> str:
        """Return the URL of the test's database; in the sandbox nothing is ever committed there."""
        return self._isolation.url()

    def new_database(self, *, migrated: bool = False) -> str:
        """Make a database, empty or with the project's tables; return its URL.

        It is one of real commits, and goes with the run.
        """
        template = self._template.name if migrated else None
        url = self.server.url(self._loop.call(self._databases.create(template)))
        allow(url)
        return url

    def keep(self, test: str) -> None:
        """Let the database of a test that has failed outlive the run, if it has used one."""
        if name := self._isolation.keep():
            self._left[test] = self.server.url(name)

    def account(self) -> Account:
        """Return what there is to say, other processes of the run included."""
        costs = {
            name: (isolation.cost.tests, isolation.cost.seconds)
            for name, isolation in self._isolations.items()
            if isolation.cost.tests
        }
        version = self._databases.version if costs else ""
        account = Account(version, costs, self._template.built, dict(self._left))
        if (canary := self._sandbox.canary) is not None:
            account.looks, account.unread = canary.looks, sorted(canary.unread)
        account.add(self.others)
        return account

    def summary(self) -> list[str]:
        """Return what there is to say, a line each."""
        account = self.account()
        lines: list[str] = []
        if account.costs:
            costs = [
                f"{tests} {'test' if tests == 1 else 'tests'} in {_PLACES[name]}, isolation "
                f"{seconds / tests * 1000:.2f} ms each"
                for name, (tests, seconds) in account.costs.items()
            ]
            lines.append(f"PostgreSQL {account.version} ({self.server.origin}): {'; '.join(costs)}")
        if account.looks:
            looks = "once" if account.looks == 1 else f"{account.looks} times"
            unread = f", and could not always read {', '.join(account.unread)}: an open transaction"
            rest = f"{unread} of a wider scope had locked it" if account.unread else ""
            lines.append(f"The canary has looked {looks}{rest}")
        for test, url in account.left.items():
            lines.append(f"The database of {test} is left: {self.server.psql(url)}")
        if account.left:
            lines.append(f"It stays until: {self.server.ending(list(account.left.values()))}")
        return lines

    def _call(
        self, work: Callable[_P, Coroutine[Any, Any, None]], *args: _P.args, **kwargs: _P.kwargs
    ) -> None:
        self._loop.call(work(*args, **kwargs))

    def _unlike(self, isolation: Isolation) -> Isolation:
        return self._clones if isolation is self._sandbox else self._sandbox


_BETWEEN = "between two tests"
_PLACES = {"sandbox": "the sandbox", "clone": "databases of their own"}

_ENDED = NoTarget("the run of tests has ended. End threads and tasks before it does")
