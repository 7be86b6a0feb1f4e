"""The application for a test: in this process, and as a real server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import init_app
from tests.integration.server import Server, serve

WriteUsers = Callable[[int], None]
"""Write this many users beside the application, in one statement."""


@pytest.fixture
def app(database: str, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """Make the application, on the test's database."""
    monkeypatch.setenv("DB_CONFIG", database)
    return init_app()


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Talk to the application, whose lifespan opens and closes the database."""
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="session")
def running_server(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the server for all tests; it must never have logged a traceback."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with serve(migrated_url, log) as server:
        server.wait_for_status(200)
        yield server
    assert "Traceback" not in (text := log.read_text()), text


@pytest.fixture
def server(running_server: Server, database: str) -> Server:
    """Give the real server process, with empty tables."""
    assert database == running_server.url
    return running_server


@pytest.fixture
def write_users(database: str, connection: psycopg.Connection[Any]) -> WriteUsers:
    """Give a function that writes users with plain SQL."""

    def write(number: int) -> None:
        connection.execute(
            "INSERT INTO users (email, full_name) "
            "SELECT 'user' || n || '@example.com', 'User ' || n FROM generate_series(1, %s) AS n",
            (number,),
        )

    return write


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Name the log of a server that the test runs itself."""
    return tmp_path / "server.log"
