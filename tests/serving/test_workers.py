"""`stillroom serve` keeps its workers running."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.processes import children, eventually
from tests.serving.conftest import ServeFactory


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_until_a_signal_to_one_process_or_all(
    serve: ServeFactory, number: signal.Signals
) -> None:
    """It names no software, logs no request, and the lifespan ends; the exit code is 0."""
    running = serve("--workers", "2")
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", "/pid")
        response = connection.getresponse()
        assert response.status == 200
        assert response.getheader("Server") is None
        assert response.read()
    pids = running.pids(2)
    assert pids == {pid for pid, title in children(running.process.pid) if "worker" in title}
    assert running.stop(number) == 0, running.output

    port = running.port()
    first, *others = running.output.splitlines()
    assert first == f"Serving run:server on http://127.0.0.1:{port}, 2 workers."
    assert sorted(others) == sorted(f"closed {pid}" for pid in pids)


def test_a_worker_that_dies_is_replaced(serve: ServeFactory) -> None:
    """The other one serves meanwhile, and two serve again."""
    running = serve("--workers", "2")
    victim, other = running.pids(2)
    os.kill(victim, signal.SIGKILL)
    running.says(rf"Worker {victim} was killed by signal 9\. A new one is started\.")
    assert eventually(lambda: not running.pids(2) <= {victim, other})
    assert other in running.pids(2)
    assert running.stop() == 0, running.output


def test_one_worker_may_be_asked_to_go(serve: ServeFactory) -> None:
    """A SIGTERM to it alone ends it in order, and another one takes its place."""
    running = serve()
    (victim,) = running.pids(1)
    os.kill(victim, signal.SIGTERM)
    running.says(rf"closed {victim}\nWorker {victim} ended with exit code 0\. A new one")
    assert running.pids(1) != {victim}
    assert running.stop() == 0, running.output


def test_a_replacement_that_does_not_start_is_tried_again(
    serve: ServeFactory, service: Path
) -> None:
    """As long as another worker serves; the reason is said."""
    running = serve("--workers", "2")
    victim, _ = running.pids(2)
    (service / "run.py").rename(service / "away.py")
    os.kill(victim, signal.SIGKILL)
    running.says(r"did not start, the others go on\. There is no module 'run' in")
    (service / "away.py").rename(service / "run.py")
    assert len(running.pids(2) - {victim}) == 2
    assert running.stop() == 0, running.output


def test_workers_do_not_outlive_their_supervisor(serve: ServeFactory) -> None:
    """A kill -9 of the one ends the others in order."""
    running = serve("--workers", "2")
    running.pids(2)
    running.process.kill()
    assert running.ends() == -signal.SIGKILL
    assert running.output.count("closed") == 2
