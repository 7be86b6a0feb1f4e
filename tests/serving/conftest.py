"""An application in a folder, and `stillroom serve` that serves it."""

import contextlib
import http.client
import json
import socket
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import Command, end_all
from tests.processes import eventually

APPLICATION = """
    import asyncio, gc, json, os, time
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

    async def busy(scope):
        time.sleep(0.2)  # the server looks each 0.1 s whether to stop: as soon as it can, now
        await asyncio.sleep(0)
        Path("begun").touch()
        while not Path("enough").exists():
            time.sleep(0.01)
        return "whole"

    async def client(scope):
        return [scope["client"][0], scope["scheme"]]

    async def frozen(scope):
        return gc.get_freeze_count()

    ROUTES = {f"/{route.__name__}": route for route in (pid, slow, block, busy, client, frozen)}

    def make():
        return server

    number = 1
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

    def sockets(self) -> int:
        """Count the sockets of the supervisor."""
        number = 0
        for opened in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it is closed at this moment
                number += str(opened.readlink()).startswith("socket:")
        return number

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
