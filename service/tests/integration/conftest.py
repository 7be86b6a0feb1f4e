"""A real server process, on a database of its own; and many users at once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert

from app.database import sessionmanager
from app.models import User
from tests.integration.server import Server, serve

WriteUsers = Callable[[int], None]
"""Write this many users beside the application."""


@pytest.fixture(scope="session")
def running_server(
    stillroom_new_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Run the server for all tests; it must never have logged a traceback."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with serve(stillroom_new_database(migrated=True), log) as server:
        server.wait_for_status(200)
        yield server
    assert "Traceback" not in (text := log.read_text()), text


@pytest.fixture(scope="session")
def session_connection(running_server: Server) -> Iterator[psycopg.Connection[Any]]:
    """Look into the server's database beside it; every statement is a transaction."""
    with psycopg.connect(running_server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def connection(session_connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Give the connection beside the server, whose tables are empty now: it commits for real."""
    session_connection.execute("TRUNCATE users, idempotency_keys")
    return session_connection


@pytest.fixture
def server(running_server: Server, connection: psycopg.Connection[Any]) -> Server:
    """Give the real server process, with empty tables."""
    assert connection.info.dbname in running_server.url
    return running_server


@pytest.fixture
def write_users(connection: psycopg.Connection[Any]) -> WriteUsers:
    """Give a function that writes users to the server's database, with plain SQL."""

    def write(number: int) -> None:
        connection.execute(
            "INSERT INTO users (email, full_name) "
            "SELECT 'user' || n || '@example.com', 'User ' || n FROM generate_series(1, %s) AS n",
            (number,),
        )

    return write


@pytest.fixture
def arrange_users(client: TestClient) -> WriteUsers:
    """Give a function that writes users to the database of the application in this process."""

    async def write(number: int) -> None:
        async with sessionmanager.begin() as session:
            users = [
                {"email": f"user{n}@example.com", "full_name": f"User {n}"} for n in range(number)
            ]
            await session.execute(insert(User), users)

    def arrange(number: int) -> None:
        assert client.portal is not None
        client.portal.call(write, number)

    return arrange


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Name the log of a server that the test runs itself."""
    return tmp_path / "server.log"
