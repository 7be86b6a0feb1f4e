"""Who waits for a connection, for how long, and who is told at once that none will come."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from stillroom.engine import EngineSettings, admission, create_engine
from stillroom.engine.admission import Line, RefusedError, client
from stillroom.errors import ClientGoneError
from stillroom.url import parse_url


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (nobody tells when)
            await asyncio.sleep(0)


class Laboratory:
    """A line for one thing, and what was left over of it."""

    def __init__(self, *, longest: float = 60.0, target: float = 60.0) -> None:
        self.left: list[str] = []
        self.line: Line[str] = Line(1, longest=longest, target=target, left_over=self.left.append)

    async def join(self, count: int) -> "list[asyncio.Task[str]]":
        """Let so many wait, one behind the other."""
        waiting = [asyncio.create_task(self.line.wait()) for _ in range(count)]
        await until(lambda: len(self.line) == count)
        return waiting


async def test_who_comes_first_is_served_first() -> None:
    """Without overload the line is fair."""
    laboratory = Laboratory()
    waiting = await laboratory.join(3)

    for thing in "abc":
        assert laboratory.line.give(thing)

    assert await asyncio.gather(*waiting) == ["a", "b", "c"]
    assert not laboratory.line.give("d")


async def test_who_has_waited_long_enough_is_refused() -> None:
    """The wait is bounded, whether or not anything comes back."""
    laboratory = Laboratory(longest=0.05)
    waiting = await laboratory.join(2)

    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(it) for it in outcomes] == [RefusedError, RefusedError]
    assert len(laboratory.line) == 0


async def test_a_line_is_no_longer_than_can_be_served_soon() -> None:
    """What is known of those before says how many: at one more the eldest is told at once."""
    laboratory = Laboratory(longest=8.0, target=0.05)
    for _ in range(50):
        laboratory.line.note_use(0.9)
    waiting = await laboratory.join(2)
    newest = asyncio.create_task(laboratory.line.wait())

    with pytest.raises(RefusedError):
        await waiting[0]

    assert laboratory.line.give("a")
    assert laboratory.line.give("b")
    assert (await newest, await waiting[1]) == ("a", "b")


async def test_the_first_uses_of_a_process_say_nothing_of_the_next() -> None:
    """They are slow: a burst right after the start is no reason to refuse anybody."""
    laboratory = Laboratory(longest=8.0)
    laboratory.line.note_use(7.0)
    waiting = await laboratory.join(10)

    for _ in waiting:
        assert laboratory.line.give("a")

    assert await asyncio.gather(*waiting) == ["a"] * 10


async def test_under_overload_the_newest_is_served_first_and_a_burst_is_served_too() -> None:
    """When the eldest has waited too long, to be fair would be to be late for everybody."""
    laboratory = Laboratory(target=0.05)
    waiting = await laboratory.join(3)
    await asyncio.wait(waiting, timeout=0.1)

    for thing in ("newest", "next", "eldest"):
        laboratory.line.give(thing)

    assert await asyncio.gather(*waiting) == ["eldest", "next", "newest"]
    assert not laboratory.line.give("nobody waits")  # it ends when the line is empty
    waiting = await laboratory.join(2)
    laboratory.line.give("eldest")
    assert await waiting[0] == "eldest"
    waiting[1].cancel()


async def test_a_line_that_is_soon_served_is_fair_though_all_are_late() -> None:
    """The process has paused, and its clients ask again as soon as they are answered."""
    laboratory = Laboratory(target=0.05)
    for _ in range(50):
        laboratory.line.note_use(0.01)
    waiting = await laboratory.join(3)
    await asyncio.wait(waiting, timeout=0.1)

    for thing in "abc":
        laboratory.line.give(thing)

    assert await asyncio.gather(*waiting) == ["a", "b", "c"]


async def test_what_comes_for_somebody_who_has_just_left_is_not_lost() -> None:
    """A task that is cancelled when its thing has come, and before it has it, gives it back."""
    laboratory = Laboratory()
    (waiting,) = await laboratory.join(1)
    laboratory.line.give("a")
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert laboratory.left == ["a"]


class Leaving:
    """A client that leaves when it is told to."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()
        self.is_watched = False

    async def wait_until_gone(self) -> None:
        """Return when it has left."""
        self.is_watched = True
        await self.leaves.wait()


async def test_a_client_that_has_left_waits_no_longer() -> None:
    """It costs no connection."""
    laboratory = Laboratory()
    leaving = Leaving()
    token = client.set(leaving)
    waiting = await laboratory.join(1)
    client.reset(token)
    leaving.leaves.set()

    with pytest.raises(ClientGoneError):
        await asyncio.wait_for(waiting[0], 10)

    assert not laboratory.line.give("a")


async def test_who_is_served_soon_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look whether a client has left costs a task, and nearly all are there."""
    monkeypatch.setattr(admission, "UNWATCHED", 60.0)
    laboratory = Laboratory()
    leaving = Leaving()
    client.set(leaving)
    (waiting,) = await laboratory.join(1)
    await asyncio.sleep(0)
    assert not leaving.is_watched

    assert laboratory.line.give("a")
    assert await waiting == "a"


@pytest.fixture
async def pool(driver_url: str) -> AsyncGenerator[Any]:
    """Give the pool of an engine, of two connections."""
    engine = create_engine(parse_url(driver_url), EngineSettings(pool_size=2, ping_after=60.0))
    yield _Pool(engine)
    await engine.dispose()


class _Pool:
    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.pool: Any = engine.pool

    async def pids(self) -> set[int]:
        """Return the processes of both connections."""
        async with self.engine.connect() as one, self.engine.connect() as other:
            return {
                (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
                for connection in (one, other)
            }


async def test_a_connection_is_made_though_nobody_waits_for_it_any_more(pool: _Pool) -> None:
    """Clients that leave do not keep a pool cold."""
    for _ in range(2):
        asking = asyncio.create_task(pool.engine.connect().start())
        await until(lambda: len(pool.pool._making) > 0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    await until(lambda: pool.pool.checkedin() > 0)
    assert pool.pool.checkedin() <= 2


async def test_a_pool_is_warmed_in_the_background(pool: _Pool) -> None:
    """All connections are made before anybody asks."""
    pool.pool.warm()

    await until(lambda: pool.pool.checkedin() == 2)
    assert len(await pool.pids()) == 2


async def test_a_connection_is_renewed_before_it_is_handed_out(pool: _Pool) -> None:
    """One that the pool has given up, or that is too old, is not given to a request."""
    before = await pool.pids()

    pool.pool._recycle = 0
    after = await pool.pids()

    assert before.isdisjoint(after)
    assert (pool.pool.checkedout(), pool.pool.checkedin()) == (0, 2)


async def test_a_disposed_pool_leaves_no_task_behind(pool: _Pool) -> None:
    """What was being made is given up."""
    pool.pool.warm()
    await pool.engine.dispose()

    assert (pool.pool.checkedout(), pool.pool.checkedin()) == (0, 0)
    assert not pool.pool._making
