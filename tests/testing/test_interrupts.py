"""Signals that come while the sandbox is at work."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from stillroom.testing import interrupts
from stillroom.testing.loop import SharedLoop
from stillroom.testing.wire.messages import ready
from stillroom.testing.wire.transport import Wire


class Work:
    """Something that an alarm comes in the middle of."""

    def __init__(self) -> None:
        self.is_done = False
        self.heard: list[bool] = []
        """For each alarm that was heard, whether that was after the work."""

    def do(self, *_: object) -> None:
        """Get the alarm, and go on."""
        signal.raise_signal(signal.SIGALRM)
        self.is_done = True

    def hear(self, *_: object) -> None:
        """Handle the alarm."""
        self.heard.append(self.is_done)

    async def alarm_is_heard(self) -> None:
        """Return when the alarm was heard."""
        async with asyncio.timeout(10):
            while not self.heard:  # noqa: ASYNC110  (a handler of signals wakes no loop)
                await asyncio.sleep(0.001)


@pytest.fixture
def work() -> Iterator[Work]:
    """Give such work; its handler of alarms goes with the test."""
    work = Work()
    before = signal.signal(signal.SIGALRM, work.hear)
    yield work
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Echo:
    """The other end of a wire, which answers with what it gets."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def receive(self, data: bytes, task: object) -> None:
        """Answer."""
        _ = task
        self._wire.deliver(data)
        self._wire.flush()

    def take_at_once(self, data: bytes) -> bytes | None:
        """Leave it to `receive`."""
        _ = data
        return None

    def hang_up(self) -> None:
        """Do nothing."""


class Receiver:
    """What asyncpg is to a wire."""

    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self.data_received = receive

    def connection_lost(self, error: Any) -> None:
        """Do nothing."""


async def test_an_alarm_waits_for_the_loop_of_the_run(shared: SharedLoop, work: Work) -> None:
    """What its handler raises is never raised where the sandbox would be left halfway."""
    shared.call_soon(work.do)
    await work.alarm_is_heard()

    assert work.heard == [True]


async def test_an_alarm_waits_for_what_is_sent_at_once(shared: SharedLoop, work: Work) -> None:
    """Some connections hear nothing else: what they send goes out beside the loop."""

    class Peer(Echo):
        def take_at_once(self, data: bytes) -> bytes | None:
            _ = data
            work.do()
            return b""

    received = asyncio.Event()
    wire = Wire(Receiver(lambda _: received.set()), shared, Peer)
    shared.call_soon(wire._receive, ready(b"I"))
    await received.wait()
    signal.signal(signal.SIGALRM, work.hear)  # as of a limit that begins with the test alone
    wire.write(b"a statement")
    await work.alarm_is_heard()
    wire.abort()

    assert work.heard == [True]


@pytest.mark.parametrize("when", [1, 2, 3, 4])
def test_an_interrupt_is_heard_after_one_that_came_while_it_was_held_back(
    monkeypatch: pytest.MonkeyPatch, work: Work, when: int
) -> None:
    """An error by an alarm, at any moment, leaves no handler that hears nothing."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)]
    calls = count(1)

    def set_handler(number: int, handler: Any) -> Any:
        found = signal.signal(number, handler)
        if next(calls) == when:
            raise TimeoutError
        return found

    quick = SimpleNamespace(getsignal=signal.getsignal, signal=set_handler)
    monkeypatch.setattr(interrupts, "_signal", quick)
    with pytest.raises(TimeoutError), interrupts.uninterrupted():
        work.is_done = True

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)] == before


async def test_an_alarm_waits_for_the_driver(shared: SharedLoop, work: Work) -> None:
    """Asyncpg may crash by an exception that is raised while it reads an answer."""
    wire = Wire(Receiver(work.do), shared, Echo)
    wire.write(b"an answer")
    await work.alarm_is_heard()
    wire.abort()

    assert work.heard == [True]


async def test_who_has_set_an_alarm_may_end_it_while_it_waits(
    shared: SharedLoop, work: Work
) -> None:
    """A limit of time that is over is not heard in the test after it."""

    def do_and_end() -> None:
        work.do()
        signal.setitimer(signal.ITIMER_REAL, 0)

    shared.call_soon(do_and_end)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work.alarm_is_heard(), 0.05)
