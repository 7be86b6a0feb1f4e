"""The loop that belongs to no thread: who runs it, and when."""

import asyncio
import os
import signal
import threading
from typing import Any

import pytest

from stillroom.testing import loop
from stillroom.testing.loop import SharedLoop


class CheckedLock:
    """A lock that fails where its holder would wait for itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = 0

    def __enter__(self) -> None:
        assert self._holder != threading.get_ident(), "it would wait for itself"
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._holder = 0
        self._lock.release()

    def locked(self) -> bool:
        """Say whether anybody holds it."""
        return self._lock.locked()


async def thread() -> int:
    """Return the thread in which the loop runs, after it has been left once."""
    await asyncio.sleep(0)
    return threading.get_ident()


def test_a_call_runs_in_its_own_thread(shared: SharedLoop) -> None:
    """Who waits for work does it, so no other thread has to be woken."""
    assert shared.call(thread()) == threading.get_ident()


async def test_a_loop_of_the_application_runs_it() -> None:
    """What a task asks for is done in its thread, and so is what comes of it later."""
    shared = SharedLoop()  # not started: nobody else could
    running = asyncio.get_running_loop()
    ready, written = os.pipe()
    seen: list[int] = []
    done = asyncio.Event()

    def note() -> None:
        seen.append(threading.get_ident())
        shared.answer(running, done.set)

    def begin() -> None:
        asyncio.get_running_loop().add_reader(ready, end)
        note()

    def end() -> None:
        asyncio.get_running_loop().remove_reader(ready)
        note()

    shared.call_soon(begin)
    await done.wait()
    done.clear()
    os.write(written, b".")
    await done.wait()
    os.close(ready)
    os.close(written)
    shared.start()
    shared.stop()
    assert seen == [threading.get_ident()] * 2


def test_the_loop_goes_on_where_time_stands_still(
    shared: SharedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test may have frozen the clock of this process, as freezegun does."""
    shared.call(asyncio.sleep(0))
    monkeypatch.setattr(loop, "monotonic", lambda: shared._driven)
    done = threading.Event()
    shared.call_soon(done.set)
    assert done.wait(10)


async def test_a_loop_that_only_asks_at_once_runs_it_too() -> None:
    """What a task has sent at once is answered later: that is read in its loop, by nobody else."""
    shared = SharedLoop()  # not started: nobody else could
    ready, written = os.pipe()
    done = asyncio.Event()
    running = asyncio.get_running_loop()
    shared.at_once(shared._loop.add_reader, ready, lambda: shared.answer(running, done.set))
    os.write(written, b".")
    await asyncio.wait_for(done.wait(), 10)
    shared.at_once(shared._loop.remove_reader, ready)
    os.close(ready)
    os.close(written)
    shared.start()
    shared.stop()


async def test_a_call_from_a_task_runs_elsewhere(shared: SharedLoop) -> None:
    """A task is being run already: Python 3.14 allows no other one within it."""
    assert shared.call(thread()) not in (0, threading.get_ident())


def test_the_loop_goes_on_where_nobody_waits(shared: SharedLoop) -> None:
    """A timer fires although no loop of the application runs and nobody calls."""
    fired = threading.Event()

    async def set_timer() -> None:
        asyncio.get_running_loop().call_later(0.01, fired.set)

    shared.call(set_timer())
    assert fired.wait(5)


async def test_a_call_comes_behind_what_was_sent(shared: SharedLoop) -> None:
    """The end of a test does not overtake the last statement of it."""
    order: list[str] = []

    async def come(what: str) -> None:
        order.append(what)

    sent: list[asyncio.Future[None]] = []

    def send() -> None:
        sent.append(asyncio.ensure_future(come("sent")))

    shared.call_soon(send)
    shared.call(come("called"))
    assert order == ["sent", "called"]


def test_two_threads_run_it_one_at_a_time(shared: SharedLoop) -> None:
    """Whichever threads ask for work, no two of its callbacks run at the same time."""
    inside: list[int] = []
    met: list[int] = []
    ready, written = os.pipe()

    async def work() -> None:
        for _ in range(2):
            inside.append(threading.get_ident())
            os.write(written, b".")
            os.read(ready, 1)  # both let other threads run
            met.extend(set(inside) - {threading.get_ident()})
            inside.clear()
            await asyncio.sleep(0)

    def ask() -> None:
        start.wait()
        for _ in range(200):
            shared.call(work())

    start = threading.Barrier(3)
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    os.close(ready)
    os.close(written)
    assert not met


def test_what_comes_from_within_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer may run at any line of the loop's work, and write: that would wait for itself."""
    called: list[bytes] = []
    shared = SharedLoop()
    monkeypatch.setattr(shared, "_lock", CheckedLock())
    shared.start()

    def answer(data: bytes) -> bytes:
        called.append(data)
        return b"an answer"

    async def work() -> bytes | None:
        return shared.at_once(answer, b"within")

    assert (shared.call(work()), shared.at_once(answer, b"beside")) == (None, b"an answer")
    shared.stop()
    assert called == [b"beside"]


def test_nothing_is_done_before_what_was_asked_for_first(shared: SharedLoop) -> None:
    """A statement that is on its way comes before the end of its test."""
    called: list[str] = []
    shared.call(asyncio.sleep(0))
    shared._post(called.append, "first")
    assert shared.at_once(called.append, "second") is None
    shared.call(asyncio.sleep(0))
    assert called == ["first"]


def test_a_loop_is_joined_once(shared: SharedLoop) -> None:
    """A finalizer that runs while a loop of the application is being joined may ask for work."""
    joined: list[int] = []

    class Loop(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
            joined.append(fd)
            shared.call_soon(int)
            super().add_reader(fd, callback, *args)

    async def ask() -> None:
        shared.call_soon(int)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(ask())
    assert len(joined) == 1


def test_an_interrupt_stops_no_work_in_the_middle(shared: SharedLoop) -> None:
    """A Ctrl-C between tests is raised when what the loop was doing is done."""
    done: list[str] = []

    async def work() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("the rest of the work")

    with pytest.raises(KeyboardInterrupt):
        shared.call(work())
    assert done
    assert shared.call(thread()) == threading.get_ident()


def test_what_has_ended_answers_nobody(shared: SharedLoop) -> None:
    """A connection that is used after the run is an error, and no wait for ever."""
    other = SharedLoop()
    other.start()
    other.stop()
    with pytest.raises(ConnectionResetError, match="The run of tests has ended"):
        other.call_soon(lambda: None)
    assert shared.call(thread())


def test_a_forked_process_does_not_run_it(shared: SharedLoop) -> None:
    """It would read what PostgreSQL has sent to its parent."""
    child = os.fork()
    if not child:
        try:
            shared.call_soon(lambda: None)
        except ConnectionResetError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_finalizer_cannot_run_a_loop_while_it_is_halted(shared: SharedLoop) -> None:
    """It would wait for the loop, which goes on when the finalizer has ended."""

    def finalize() -> str:
        work = asyncio.sleep(0)
        try:
            asyncio.run(work)
        except RuntimeError as error:
            return str(error)
        finally:
            work.close()
        return "it ran"

    assert "running event loop" in str(shared.at_once(finalize))


def test_a_forked_process_does_nothing_at_once(
    shared: SharedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end the work of its parent, whose connection it shares."""
    with monkeypatch.context() as patch:
        patch.setattr(shared, "_process", -1)
        with pytest.raises(ConnectionResetError, match="was forked"):
            shared.at_once(int)
