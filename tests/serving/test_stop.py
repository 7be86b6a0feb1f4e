"""`stillroom serve` ends without failing a request."""

import contextlib
import http.client
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.processes import eventually
from tests.serving.conftest import Serve, ServeFactory


def test_a_request_under_way_ends_before_the_server(serve: ServeFactory, service: Path) -> None:
    """After SIGTERM nobody is let in, and who is in gets the whole answer."""
    running = serve()
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", "/slow")
        assert eventually((service / "begun").exists)
        running.process.terminate()
        assert eventually(running.refuses)
        assert running.process.poll() is None
        (service / "enough").touch()
        assert json.load(connection.getresponse()) == "whole"
    assert running.ends() == 0, running.output
    assert "closed" in running.output


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept connection", "new connection"])
def test_who_waits_while_a_stop_begins_is_answered(
    serve: ServeFactory, service: Path, is_kept: bool
) -> None:
    """A connection that nobody has accepted, and a request that nobody has read, have come."""
    running = serve()
    with contextlib.ExitStack() as stack:

        def connect() -> http.client.HTTPConnection:
            return stack.enter_context(contextlib.closing(running.connect()))

        waiting, busy = connect(), connect()
        waiting.request("GET", "/pid")
        assert waiting.getresponse().read()
        busy.request("GET", "/busy")
        assert eventually((service / "begun").exists)
        waiting = waiting if is_kept else connect()
        waiting.request("GET", "/pid")
        before = running.sockets()
        running.process.terminate()
        assert eventually(lambda: running.sockets() == before - 2)  # the worker is told then
        (service / "enough").touch()
        for connection in (busy, waiting):
            response = connection.getresponse()
            assert response.status == 200
            assert response.read()
    assert running.ends() == 0, running.output


def test_a_request_may_take_its_grace_and_no_more(serve: ServeFactory, service: Path) -> None:
    """It is cancelled then, and the lifespan ends all the same."""
    running = serve("--grace", "1")
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", "/slow")
        assert eventually((service / "begun").exists)
        running.process.terminate()
        assert connection.getresponse().status == 500
    assert running.ends() == 0, running.output
    assert "closed" in running.output


def test_a_worker_that_hangs_is_cut_off_and_named(serve: ServeFactory, service: Path) -> None:
    """That is no orderly end: the exit code is 1."""
    running = serve("--grace", "0")
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", "/block")
        assert eventually((service / "begun").exists)
        running.process.terminate()
        assert running.ends() == 1
    running.says(r"stillroom: A worker \(pid \d+\) did not end within 0 s and was cut off")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept connections", "new connections"])
def test_a_stop_under_load_fails_no_request(
    serve: ServeFactory, workers: int, is_kept: bool
) -> None:
    """Whoever is let in gets an answer; whoever is not is refused, and can ask elsewhere."""
    running = serve("--workers", str(workers))
    running.pids(workers)
    answers: list[Counter[str]] = [Counter() for _ in range(8)]
    with ThreadPoolExecutor(len(answers)) as pool:
        asking = [pool.submit(_ask_until_refused, running, it, is_kept=is_kept) for it in answers]
        assert eventually(lambda: all(answer["whole"] > 20 for answer in answers)), answers
        running.process.terminate()
        for one in asking:
            one.result(20)
    assert running.ends() == 0, running.output
    assert {word for answer in answers for word in answer} == {"whole", "refused"}


def _ask_until_refused(running: Serve, answers: Counter[str], *, is_kept: bool) -> None:
    while True:
        try:
            connection = running.connect()
        except ConnectionRefusedError:
            answers["refused"] += 1
            return
        with contextlib.closing(connection):
            try:
                while True:
                    connection.request("GET", "/pid")
                    response = connection.getresponse()
                    response.read()
                    answers["whole"] += 1
                    if not is_kept or response.will_close:
                        break
            except (OSError, http.client.HTTPException) as error:
                answers[f"failed: {error!r}"] += 1
