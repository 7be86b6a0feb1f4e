"""The laws of a service, for the tests of any application on PostgreSQL.

A class of a test module is enough, with the pytest plugin::

    from stillroom.testing.laws import Request, ServiceLaws

    class TestLaws(ServiceLaws):
        def write(self, number: int) -> Request:
            return Request("POST", "/users", json={"email": f"user{number}@example.com"})

        def read(self) -> Request:
            return Request("GET", "/users")

The application is that of the fixture `app`, and knows nothing of it: the faults come from below,
by triggers in a database of the test's own.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar
from unittest import SkipTest

from stillroom.testing.laws.exchange import Request
from stillroom.testing.laws.faults import Fault, Point
from stillroom.testing.laws.findings import (
    ANSWERED_BEFORE_COMMIT,
    COMMIT_FAILED_SILENTLY,
    COMMITTED_IN_PARTS,
    FAILED_AFTER_COMMIT,
    GET_MAY_WRITE,
    HALF,
    HANGS,
    HELD,
    LEFT_OPEN,
    POOL_IS_BROKEN,
    REFUSED_AND_WRITTEN,
    fail,
    require_read,
    require_refusal,
    require_rows,
    require_write,
)
from stillroom.testing.laws.service import Service, serving

__all__ = ["Request", "ServiceLaws"]


class ServiceLaws:
    """Hold an application to what a client may rely on, whatever fails below it.

    `write` is to be defined; without `read` and `refused` what is about them is skipped. Data that
    the requests need a fixture arranges, as for any test: `autouse` in the class, by `session`.
    """

    stillroom_isolation: ClassVar[str] = "clone"

    def write(self, number: int) -> Request:
        """Return a request that writes and is answered below 400, another one for each number."""
        raise NotImplementedError("Say what writes: def write(self, number: int) -> Request")

    def read(self) -> Request | None:
        """Return a GET that reads what `write` has written."""
        return None

    def refused(self, number: int) -> Request | None:
        """Return a request that writes, and is then answered 400 or more by the application."""
        _ = number
        return None

    def test_an_answer_below_400_means_committed(self, app: Any, stillroom_url: str) -> None:
        """The COMMIT is over before the answer starts: who reads next finds what was written."""

        async def law(service: Service) -> None:
            before = await service.faults.state()
            async with service.faults.at(Point.COMMIT, Fault.HOLD):
                exchange = service.start(self.write(1))
                await service.faults.wait_until_held(or_else=exchange.started)
                came_early = exchange.started.is_set()
            status = await exchange.answer()
            await exchange.end()
            has_written = await service.faults.state() != before
            require_write(status, has_written=has_written)
            if came_early:
                fail(ANSWERED_BEFORE_COMMIT.format(status=status))

        _run(app, stillroom_url, law)

    def test_a_commit_that_fails_is_an_error(self, app: Any, stillroom_url: str) -> None:
        """When PostgreSQL refuses the COMMIT the answer is 400 or more, and nothing is there."""

        async def law(service: Service) -> None:
            before = await service.faults.state()
            async with service.faults.at(Point.COMMIT, Fault.FAIL):
                status = await service.ask(self.write(1))
            if status < 400:
                fail(COMMIT_FAILED_SILENTLY.format(status=status))
            if await service.faults.state() != before:
                fail(COMMITTED_IN_PARTS.format(status=status, what="its COMMIT"))

        _run(app, stillroom_url, law)

    def test_an_error_leaves_nothing_written(self, app: Any, stillroom_url: str) -> None:
        """Whichever statement fails, of what the others wrote nothing is left."""

        async def law(service: Service) -> None:
            writes = await service.count_writes(self.write(1))
            for number in range(1, writes + 1):
                before = await service.faults.state()
                async with service.faults.at(Point.WRITE, Fault.FAIL, number):
                    status = await service.ask(self.write(number + 1))
                if status >= 400 and await service.faults.state() != before:
                    what = f"write {number} of {writes}"
                    fail(COMMITTED_IN_PARTS.format(status=status, what=what))

        _run(app, stillroom_url, law)

    def test_an_answer_that_refuses_leaves_nothing_written(
        self, app: Any, stillroom_url: str
    ) -> None:
        """What the application refuses after it has written is as if it had not been asked."""
        if (request := self.refused(1)) is None:
            raise SkipTest("`refused` says no request that writes and is then refused")

        async def law(service: Service) -> None:
            before = await service.faults.state()
            async with service.faults.at(Point.WRITE, Fault.COUNT):
                status = await service.ask(request)
                writes = await service.faults.count()
            require_refusal(status, writes)
            if await service.faults.state() != before:
                fail(REFUSED_AND_WRITTEN.format(status=status))

        _run(app, stillroom_url, law)

    def test_an_error_after_the_commit_is_no_error(self, app: Any, stillroom_url: str) -> None:
        """What a client is told has failed is not there: nothing that can fail follows COMMIT."""

        async def law(service: Service) -> None:
            before = await service.faults.state()
            async with service.faults.at(Point.COMMIT, Fault.HOLD):
                exchange = service.start(self.write(1))
                await service.faults.wait_until_held(or_else=exchange.started)
                locked = asyncio.ensure_future(service.faults.lock_all_tables())
                await service.faults.wait_until_queued(locked)
            await service.faults.refuse_who_waits(locked, until=exchange.started)
            status = await exchange.answer()
            await exchange.end()
            if status >= 400 and await service.faults.state() != before:
                fail(FAILED_AFTER_COMMIT.format(status=status))

        _run(app, stillroom_url, law)

    def test_who_leaves_gets_the_whole_or_nothing(self, app: Any, stillroom_url: str) -> None:
        """A client that leaves, or a request that is cancelled, while it writes or commits."""

        async def law(service: Service) -> None:
            start = await service.faults.state()
            writes = await service.count_writes(self.write(1))
            whole = (await service.faults.state()).since(start)
            places = [*((Point.WRITE, place) for place in range(1, writes + 1)), _AT_COMMIT]
            ways = itertools.product(places, (False, True))
            for number, ((point, place), cancels) in enumerate(ways, start=2):
                before = await service.faults.state()
                await service.give_up(self.write(number), point, place, cancels=cancels)
                done = (await service.faults.state()).since(before)
                if done not in ({}, whole):
                    fail(HALF.format(point=point.value, done=done))

        _run(app, stillroom_url, law)

    def test_no_connection_is_lost(self, app: Any, stillroom_url: str) -> None:
        """After any mix of failures the pool is whole, and no transaction is left open."""

        async def law(service: Service) -> None:
            for number in range(0, _ROUNDS * 4, 4):
                await service.give_up(self.write(number), Point.WRITE, cancels=True)
                await service.give_up(self.write(number + 1), Point.COMMIT, cancels=True)
                async with service.faults.at(Point.COMMIT, Fault.FAIL):
                    await service.ask(self.write(number + 2))
                async with service.faults.at(Point.WRITE, Fault.FAIL, 1):
                    await service.ask(self.write(number + 3))
            await service.require_quiet(LEFT_OPEN)
            requests = [self.write(_ROUNDS * 4 + number) for number in range(_ROUNDS)]
            answers = await asyncio.gather(*map(service.ask, requests))
            if refused := [status for status in answers if status >= 400]:
                fail(POOL_IS_BROKEN.format(refused=refused))

        _run(app, stillroom_url, law)

    def test_a_slow_client_holds_no_connection(self, app: Any, stillroom_url: str) -> None:
        """When the answer is sent the transaction is over, however long the client takes for it."""

        async def law(service: Service) -> None:
            require_write(await service.ask(self.write(1)), has_written=True)
            for request in filter(None, (self.write(2), self.read())):
                exchange = service.start(request, is_slow=True)
                await exchange.started.wait()
                try:
                    await service.require_quiet(HELD.format(request=request))
                finally:
                    exchange.take_all()
                    await exchange.end()

        _run(app, stillroom_url, law)

    def test_a_get_cannot_write(self, app: Any, stillroom_url: str) -> None:
        """PostgreSQL itself would refuse: the transaction of a GET is READ ONLY."""
        if (request := self.read()) is None:
            raise SkipTest("`read` says no GET")

        async def law(service: Service) -> None:
            require_write(await service.ask(self.write(1)), has_written=True)
            await service.faults.note_who_may_write()
            require_read(await service.ask(request))
            has_read, may_write = await service.faults.who_may_write()
            require_rows(request, has_read=has_read)
            if may_write:
                fail(GET_MAY_WRITE)

        _run(app, stillroom_url, law)


def _run(app: Any, url: str, law: Callable[[Service], Coroutine[Any, Any, None]]) -> None:
    __tracebackhide__ = True

    async def run() -> None:
        async with serving(app, url) as service:
            try:
                await asyncio.wait_for(law(service), _SECONDS)
            except TimeoutError:
                fail(HANGS.format(seconds=_SECONDS))

    asyncio.run(run())


_AT_COMMIT = (Point.COMMIT, 0)
_ROUNDS = 10
_SECONDS = 60
