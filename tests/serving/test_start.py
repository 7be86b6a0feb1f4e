"""`stillroom serve` starts, or says in a line why not."""

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import textwrap
import time
from pathlib import Path

import pytest

from tests.processes import eventually
from tests.serving.conftest import ServeFactory

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


def test_a_factory_makes_the_application(serve: ServeFactory) -> None:
    """A function without arguments is called; no option says so."""
    running = serve("run:make")
    assert running.get("/pid")
    assert running.stop() == 0, running.output


def test_what_an_application_consists_of_is_no_garbage(serve: ServeFactory) -> None:
    """The collector leaves it alone: it would look through all of it every few requests."""
    running = serve("run:server")
    frozen = running.get("/frozen")
    assert isinstance(frozen, int)
    assert frozen > 10_000
    assert running.stop() == 0, running.output


@pytest.mark.parametrize(
    ("application", "complaint"),
    [
        ("run", "'run' names no application"),
        ("jam:server", "There is no module 'jam' in"),
        ("run:jam", "run:jam: run was imported, and has no 'jam' in it"),
        ("run:number", "run:number is a int, and no application"),
        ("broken:server", "broken could not be imported: ModuleNotFoundError: No module named"),
        ("broken_too:server", "broken_too could not be imported: ZeroDivisionError: division"),
        ("factory:make", "factory:make made no application: ZeroDivisionError: division"),
    ],
)
def test_what_is_no_application_ends_the_start(
    serve: ServeFactory, service: Path, application: str, complaint: str
) -> None:
    """The last line says what is wrong; a traceback stands above it where code has failed."""
    (service / "broken.py").write_text("import nothing_like_this\n")
    (service / "broken_too.py").write_text("1 / 0\n")
    (service / "factory.py").write_text("def make():\n    1 / 0\n")
    failing = serve(application, "--workers", "2")
    assert failing.ends() == 1
    assert failing.output.splitlines()[-1].startswith(f"stillroom: {complaint}"), failing.output
    assert ("Traceback" in failing.output) == ("Error: " in complaint)
    assert "Serving" not in failing.output


@pytest.mark.parametrize(
    ("error", "has_traceback"),
    [("ValueError('no jam')", True), ("ConfigurationError('no jam')", False)],
)
def test_a_lifespan_that_fails_ends_the_start(
    serve: ServeFactory, service: Path, error: str, has_traceback: bool
) -> None:
    """Nothing is served by half; the library's own errors need no traceback."""
    (service / "run.py").write_text(textwrap.dedent(FAILING).format(error=error))
    failing = serve("--workers", "2")
    assert failing.ends() == 1
    last = failing.output.splitlines()[-1]
    name = error.partition("(")[0]
    assert last == f"stillroom: The application did not start: {name}: no jam", failing.output
    assert ("Traceback" in failing.output) == has_traceback


def test_a_worker_that_ends_before_it_serves_is_said(serve: ServeFactory, service: Path) -> None:
    """An application that exits at import is no application."""
    (service / "run.py").write_text("import os\nos._exit(7)\n")
    failing = serve()
    assert failing.ends() == 1
    assert failing.output == "stillroom: A worker ended with exit code 7 before it served.\n"


def test_a_taken_port_is_said(serve: ServeFactory) -> None:
    """Two servers never share a port by accident."""
    first = serve()
    second = serve(port=first.port())
    assert second.code() == 1
    assert second.output.startswith("stillroom: Nothing can listen on 127.0.0.1:")
    assert len(second.output.splitlines()) == 1
    assert first.get("/pid")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_other_machines_are_let_in_by_decision_alone(serve: ServeFactory, host: str) -> None:
    """Nothing asks who somebody is yet, so `--public` has to be said."""
    refused = serve("--host", host)
    assert refused.ends() == 1
    assert refused.output.startswith(f"stillroom: {host} can be reached from other machines")
    assert "there is no authentication yet" in refused.output
    assert len(refused.output.splitlines()) == 1


def test_public_listens_everywhere(serve: ServeFactory) -> None:
    """Where somebody has decided it."""
    running = serve("--host", "0.0.0.0", "--public")  # noqa: S104
    running.says(r"Serving run:server on http://0\.0\.0\.0:\d+, 1 worker\.")
    assert running.get("/pid")


def test_a_host_by_name_is_the_loopback(serve: ServeFactory) -> None:
    """`localhost` needs no decision; what is no name is said."""
    assert serve("--host", "localhost").get("/pid")
    unknown = serve("--host", "jam.invalid")
    assert unknown.code() == 1
    assert unknown.output.startswith("stillroom: --host jam.invalid is no address")


def test_a_unix_socket_is_served_and_removed(serve: ServeFactory, service: Path) -> None:
    """Whoever may enter its folder may use it; one that a dead server left makes room."""
    path = service / "jam.sock"
    left = serve("--uds", "jam.sock", "--workers", "2")
    left.says("Serving run:server on jam.sock, 2 workers")
    assert _get(path, "/pid")
    taken = serve("--uds", "jam.sock")
    assert taken.code() == 1
    assert taken.output.startswith("stillroom: Nothing can listen on jam.sock: Address already in")
    left.process.kill()
    assert left.ends() == -signal.SIGKILL
    assert path.exists()

    running = serve("--uds", "jam.sock")
    running.says("Serving run:server on jam.sock, 1 worker")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert _get(path, "/pid")
    assert running.stop() == 0, running.output
    assert not path.exists()


def _get(path: Path, url: str) -> object:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))
        client.sendall(f"GET {url} HTTP/1.1\r\nHost: jam\r\nConnection: close\r\n\r\n".encode())
        with contextlib.closing(http.client.HTTPResponse(client)) as response:
            response.begin()
            return json.load(response)


def test_a_proxy_is_believed_where_it_is_named(serve: ServeFactory) -> None:
    """Who a client is says the connection, unless that is a proxy's: anybody can send a header."""
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    plain = serve(FORWARDED_ALLOW_IPS="*")
    assert plain.get("/client", **headers) == ["127.0.0.1", "http"]
    behind = serve("--proxy", "127.0.0.1")
    assert behind.get("/client", **headers) == ["192.0.2.7", "https"]
    elsewhere = serve("--proxy", "192.0.2.1")
    assert elsewhere.get("/client", **headers) == ["127.0.0.1", "http"]


def test_requests_are_logged_where_that_is_asked_for(serve: ServeFactory) -> None:
    """A line for each."""
    running = serve("--access-log")
    assert running.get("/pid")
    running.says(r'"GET /pid HTTP/1\.1" 200')


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.5, 0.8])
def test_a_stop_during_the_start_is_quiet(serve: ServeFactory, seconds: float) -> None:
    """Ctrl-C reaches every process of the terminal, at any moment; none of them complains."""
    starting = serve("--workers", "2")
    time.sleep(seconds)  # the moments are what is tested
    os.killpg(starting.process.pid, signal.SIGINT)
    code = starting.ends()
    assert code in {0, -signal.SIGINT, 130}, starting.output
    assert eventually(lambda: "worker.py" not in starting.output)
