"""A database that is not there is an answer, and its return needs nobody's help."""

import json
import socket
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import make_url
from stillroom.postgres import Cluster

from tests.integration.command import alembic
from tests.integration.server import Server, serve

USERS, USER = "/api/user/get-users", "/api/user/get-user?id=00000000-0000-7000-8000-000000000000"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder whose name is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="away-") as folder:
        yield Path(folder)


def test_a_server_on_a_closed_port_answers_503(log: Path) -> None:
    """It starts all the same; every request that needs the database is told to come back."""
    with socket.socket() as bound:  # and not listening, so nobody else takes the port either
        bound.bind(("127.0.0.1", 0))
        url = f"postgresql://nobody:secret@127.0.0.1:{bound.getsockname()[1]}/nowhere"
        with serve(url, log) as server:
            server.wait_for_status(200, "/openapi.json")
            for path in (USERS, USER):
                assert_unavailable(server, path)
            server.wait_for_status(404, "/api/user/get-user?id=no-id")  # needs no database
    assert "secret" not in log.read_text()


def test_a_server_recovers_when_its_database_comes(folder: Path, log: Path) -> None:
    """503 until PostgreSQL runs at the address, 200 then, and the same after it was away again."""
    address = folder / "socket"
    url = f"postgresql://postgres@/postgres?host={quote(str(address), safe='')}"
    with serve(url, log) as server:
        server.wait_for_status(200, "/openapi.json")
        assert_unavailable(server, USERS)
        with database_at(address, folder / "data") as cluster:
            alembic("upgrade", "head", DB_CONFIG=cluster.url("postgres"))
            server.wait_for_status(200)
            server.wait_for_status(404, USER)
        assert_unavailable(server, USERS)
        with database_at(address, folder / "data"):
            server.wait_for_status(200)
    assert "Traceback" not in log.read_text()


@contextmanager
def database_at(address: Path, data: Path) -> Generator[Cluster]:
    """Run PostgreSQL on a data folder, with its socket's folder at the address."""
    with Cluster(data, settings={"fsync": "off"}) as cluster:
        address.symlink_to(str(make_url(cluster.url("postgres")).query["host"]))
        yield cluster
    address.unlink()


def assert_unavailable(server: Server, path: str) -> None:
    """Ask twice on one connection: both times 503, and when to come back."""
    with closing(server.connect()) as connection:
        for _ in range(2):
            connection.request("GET", path)
            response = connection.getresponse()
            problem = json.load(response)
            assert (response.status, problem["code"]) == (503, "database_unavailable")
            assert response.headers["Retry-After"] == "1"
