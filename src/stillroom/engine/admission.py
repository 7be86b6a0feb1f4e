"""Who gets the next connection, and who is told at once that none will come."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from stillroom.errors import ClientGoneError

T = TypeVar("T")


class Client(Protocol):
    """Whom a connection is for."""

    async def wait_until_gone(self) -> None:
        """Return when the client waits for no answer any more."""
        ...


client: ContextVar[Client | None] = ContextVar("stillroom.client", default=None)
"""Whose work is done, where that is known: who has left does not wait for a connection."""


class RefusedError(Exception):
    """Say that a place in a line has come to nothing."""


class Line(Generic[T]):
    """Let those wait who want one of a fixed number of things.

    Who comes first is served first, after `longest` seconds at most. There are never more in the
    line than could be served within a quarter of that, by what the last fifty uses took on
    average, or than there are things: at one more the eldest is refused. From when the eldest has
    waited for over `target` seconds, or the line is full, until all of it could be served within
    that time, the newest is served first: more is asked for than can be done, and to be fair would
    be to be late for everybody. So a burst is served as far as there is time; under overload who is
    served has hardly waited, and who is refused is so the sooner the more come. The order is that
    of an adaptive LIFO (https://queue.acm.org/detail.cfm?id=2839461).

    That a client has left is noticed from when it has waited for UNWATCHED seconds, or twice that:
    to watch one is a tenth of a small request, and most are served before.
    """

    def __init__(
        self, size: int, *, longest: float, target: float, left_over: Callable[[T], None]
    ) -> None:
        """Take how many things there are, and who gets one that its taker could not take."""
        self._size = size
        self._longest = longest
        self._target = target
        self._left_over = left_over
        self._waiting: OrderedDict[asyncio.Future[T], _Place] = OrderedDict()
        self._mean_use = 0.0
        self._uses = 0
        self._is_crowded = False
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many are waiting."""
        return len(self._waiting)

    async def wait(self) -> T:
        """Return a thing; raises RefusedError, ClientGoneError, or what `fail` was given."""
        loop = asyncio.get_running_loop()
        coming: asyncio.Future[T] = loop.create_future()
        self._waiting[coming] = place = _Place(loop.time())
        if len(self._waiting) > self._room:
            self._is_crowded = True
            self._refuse(next(iter(self._waiting)))
        self._set_timer()
        try:
            return await coming
        except asyncio.CancelledError:
            if coming.done() and not coming.cancelled() and coming.exception() is None:
                self._left_over(coming.result())
            raise
        finally:
            self._waiting.pop(coming, None)
            if place.leaving is not None:
                place.leaving.cancel()

    def give(self, thing: T) -> bool:
        """Give a thing to the next one; return False where nobody waits."""
        while self._waiting:
            self._is_crowded = (self._is_crowded or self._is_late) and not self._is_short
            coming, _ = self._waiting.popitem(last=self._is_crowded)
            if not coming.done():
                coming.set_result(thing)
                return True
        self._is_crowded = False
        return False

    def fail(self, error: BaseException) -> bool:
        """Let the one who has waited longest have an error; return False where nobody waits."""
        while self._waiting:
            coming, _ = self._waiting.popitem(last=False)
            if not coming.done():
                coming.set_exception(error)
                return True
        return False

    def note_use(self, seconds: float) -> None:
        """Learn for how long a thing was used."""
        self._uses = min(self._uses + 1, _MEMORY)
        # A long one says little of the others: an export is no reason to refuse a small read.
        self._mean_use += (min(seconds, self._longest) - self._mean_use) / self._uses

    def clear(self) -> None:
        """Forget those who waited in an event loop that is no more."""
        self._waiting.clear()
        self._timer = None

    @property
    def _room(self) -> float:
        if not self._knows_uses:
            return math.inf
        # As many as there are things may wait in any case: until those are made, for one.
        return max(self._size, self._longest / 4 * self._size / self._mean_use)

    @property
    def _is_late(self) -> bool:
        eldest = next(iter(self._waiting.values()))
        return asyncio.get_running_loop().time() - eldest.since > self._target

    @property
    def _is_short(self) -> bool:
        # A pause of the process has made all late, and clients that ask again at once keep a line
        # from ever being empty: with the newest first some of them would be refused for ever.
        in_time = self._target * self._size
        return self._knows_uses and len(self._waiting) * self._mean_use <= in_time

    @property
    def _knows_uses(self) -> bool:
        # The first uses of a process say little: caches are cold, and a table is made perhaps.
        return self._uses == _MEMORY and self._mean_use > 0

    def _set_timer(self) -> None:
        if self._timer is None and self._waiting:
            loop = asyncio.get_running_loop()
            eldest = next(iter(self._waiting.values()))
            due = min(eldest.since + self._longest, loop.time() + UNWATCHED)
            self._timer = loop.call_at(due, self._attend)

    def _attend(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for coming, place in list(self._waiting.items()):
            if place.since + self._longest <= now:
                self._refuse(coming)
            elif place.is_new and place.since + UNWATCHED <= now:
                self._watch(coming, place)
        self._set_timer()

    def _watch(self, coming: "asyncio.Future[T]", place: "_Place") -> None:
        place.is_new = False
        if (whose := place.context.get(client)) is not None:
            loop = asyncio.get_running_loop()
            place.leaving = loop.create_task(whose.wait_until_gone(), context=place.context)
            place.leaving.add_done_callback(lambda _: self._refuse(coming, ClientGoneError(_GONE)))

    def _refuse(self, coming: "asyncio.Future[T]", error: Exception | None = None) -> None:
        self._waiting.pop(coming, None)
        if not coming.done():
            coming.set_exception(error or RefusedError())


@dataclass
class _Place:
    """The place of one in a line."""

    since: float
    context: Context = field(default_factory=copy_context)
    is_new: bool = True
    leaving: "asyncio.Task[None] | None" = None


UNWATCHED = 0.02
"""How long one waits in a line, in seconds, before somebody looks whether its client has left."""

_MEMORY = 50  # uses
_GONE = "The client left while its request waited for a connection; nothing was done"
