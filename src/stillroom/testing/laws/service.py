"""An application that is asked, and the faults below it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from stillroom.testing.laws.exchange import Exchange, Request, lifespan
from stillroom.testing.laws.faults import Fault, Faults, Point
from stillroom.testing.laws.findings import fail, require_write, statements


class Service:
    """The application, and the faults below it."""

    def __init__(self, app: Any, state: dict[str, Any], faults: Faults) -> None:
        self.faults = faults
        self._app = app
        self._state = state

    def start(self, request: Request, *, is_slow: bool = False) -> Exchange:
        """Ask, and do not wait for the answer."""
        return Exchange(self._app, request, self._state, is_slow=is_slow)

    async def ask(self, request: Request) -> int:
        """Ask, and return the status when all that is done for the request is done."""
        exchange = self.start(request)
        status = await exchange.answer()
        await exchange.end()
        return status

    async def count_writes(self, request: Request) -> int:
        """Return how many statements of a request write."""
        async with self.faults.at(Point.WRITE, Fault.COUNT):
            status = await self.ask(request)
            writes = await self.faults.count()
        require_write(status, has_written=writes > 0)
        return writes

    async def give_up(
        self, request: Request, point: Point, place: int = 0, *, cancels: bool
    ) -> None:
        """Leave, or be cancelled, while PostgreSQL holds the request at a point."""
        async with self.faults.at(point, Fault.HOLD, place):
            exchange = self.start(request)
            await self.faults.wait_until_held(or_else=exchange.started)
            exchange.leave(cancels=cancels)
            await exchange.may_end()
        await exchange.end()
        await self.faults.wait_until_quiet()

    async def require_quiet(self, finding: str) -> None:
        """Fail where a transaction of the application stays open."""
        if open_transactions := await self.faults.wait_until_quiet():
            fail(finding + statements(open_transactions))


@asynccontextmanager
async def serving(app: Any, url: str) -> AsyncGenerator[Service]:
    """Run an application, and have faults below it."""
    async with Faults.below(url) as faults, lifespan(app) as state:
        yield Service(app, state, faults)
