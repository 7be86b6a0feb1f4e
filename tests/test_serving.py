"""`stillroom serve` serves an application in production, and ends without failing a request."""

import contextlib
import http.client
import json
import os
import signal
import socket
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.commands import Command, end_all
from tests.processes import children, eventually

APPLICATION = """
    import asyncio, json, os, time
    from pathlib import Path

    async def server(scope, receive, send):
        if scope["type"] == "lifespan":
            await live(receive, send)
            return
        body = json.dumps(await ROUTES[scope["path"]](scope)).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def live(receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print(f"closed {os.getpid()}", flush=True)
        await send({"type": "lifespan.shutdown.complete"})

    async def pid(scope):
        return os.getpid()

    async def slow(scope):
        Path("begun").touch()
        while not Path("enough").exists():
            await asyncio.sleep(0.01)
        return "whole"

    async def block(scope):
        Path("begun").touch()
        time.sleep(60)

    async def client(scope):
        return [scope["client"][0], scope["scheme"]]

    ROUTES = {f"/{route.__name__}": route for route in (pid, slow, block, client)}

    def make():
        return server

    number = 1
"""

FAILING = """
    from contextlib import asynccontextmanager
    from starlette.applications import Starlette
    from stillroom.errors import ConfigurationError

    @asynccontextmanager
    async def open_jars(app):
        raise {error}
        yield

    server = Starlette(lifespan=open_jars)
"""


class Serve(Command):
    """A running `stillroom serve`."""

    def __init__(self, service: Path, *arguments: str, **environ: str) -> None:
        super().__init__(service, "serve", *arguments, **environ)

    def port(self) -> int:
        """Wait until all workers serve, and return the port."""
        return int(self.says(r"Serving .* on http://\S+:(\d+), ")[1])

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection that is never opened anew."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=20)
        connection.connect()
        connection.auto_open = 0
        return connection

    def get(self, path: str, **headers: str) -> object:
        """Return what is answered on a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", path, headers=headers)
            return json.load(connection.getresponse())

    def pids(self, number: int) -> set[int]:
        """Ask until so many workers have answered, and return their pids."""
        seen: set[int] = set()

        def ask() -> bool:
            seen.add(int(str(self.get("/pid"))))
            return len(seen) >= number

        assert eventually(ask), (seen, self.output)
        return seen

    def refuses(self) -> bool:
        """Say whether nobody listens any more."""
        try:
            socket.create_connection(("127.0.0.1", self.port())).close()
        except ConnectionRefusedError:
            return True
        return False


ServeFactory = Callable[..., Serve]


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Give a folder with an application."""
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "run.py").write_text(textwrap.dedent(APPLICATION))
    return folder


@pytest.fixture
def serve(service: Path) -> Iterator[ServeFactory]:
    """Give a function that starts the server on a free port."""
    started: list[Serve] = []

    def start(*arguments: str, port: int = 0, **environ: str) -> Serve:
        started.append(Serve(service, "--port", str(port), *arguments, **environ))
        return started[-1]

    yield start
    end_all(started)


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
