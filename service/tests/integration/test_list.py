"""A list of any length, from a real server."""

import http.client
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import WriteUsers
from tests.integration.server import Server, serve, wait_until

MANY = 300_000
GROWTH = 40_000_000
"""How many bytes a stream may need; the rows alone would need ten times that."""


def test_three_hundred_thousand_users_are_listed_in_flat_memory(
    server: Server, write_users: WriteUsers, connection: psycopg.Connection[Any]
) -> None:
    """The server waits for a slow reader, and keeps no more than a part of the list."""
    write_users(5000)
    assert len(list_users(server)) == 5000  # what any stream needs is there from now on
    connection.execute("TRUNCATE users")
    write_users(MANY)
    server.forget_peak_memory()
    before = server.peak_memory()

    with closing(server.connect()) as client:
        client.request("GET", "/api/user/get-users")
        wait_until(lambda: waits_for_its_reader(connection))
        response = client.getresponse()
        size, users = 0, 0
        while part := response.read(1 << 16):
            size += len(part)
            users += part.count(b'"full_name"')  # may be cut in two
        assert (response.status, users >= MANY * 0.99) == (200, True)

    assert size > 30_000_000
    assert server.peak_memory() - before < GROWTH


def test_a_client_that_leaves_a_list_ends_its_query(
    server: Server, write_users: WriteUsers, connection: psycopg.Connection[Any]
) -> None:
    """The connection goes back to the pool, nothing is left open, and the next list is whole."""
    write_users(100_000)
    for _ in range(12):  # more often than the pool has connections
        with closing(server.connect()) as client:
            client.request("GET", "/api/user/get-users")
            assert client.getresponse().read(10)
    wait_until(lambda: transactions(connection) == 0)
    assert len(list_users(server)) == 100_000


def test_a_list_that_breaks_off_is_not_taken_for_whole(
    running_server: Server,
    log: Path,
    write_users: WriteUsers,
    connection: psycopg.Connection[Any],
) -> None:
    """A stream whose database session is ended is cut without its last chunk."""
    write_users(100_000)
    with serve(running_server.url, log) as server:
        server.wait_for_status(404, "/api/user/get-user?id=")
        with closing(server.connect()) as client:
            client.request("GET", "/api/user/get-users")
            wait_until(lambda: waits_for_its_reader(connection))
            connection.execute(f"SELECT pg_terminate_backend(pid) {OF_THE_SERVER}")
            response = client.getresponse()
            assert response.status == 200
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                response.read()
        assert len(list_users(server)) == 100_000


OF_THE_SERVER = """FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"""


def list_users(server: Server) -> list[dict[str, str]]:
    """Read the whole list."""
    with closing(server.connect()) as client:
        client.request("GET", "/api/user/get-users")
        users: list[dict[str, str]] = json.load(client.getresponse())
        return users


def transactions(connection: psycopg.Connection[Any]) -> int:
    """Count the open transactions of the server."""
    row = connection.execute(f"SELECT count(*) {OF_THE_SERVER}").fetchone()
    return int(row[0]) if row else 0


def waits_for_its_reader(connection: psycopg.Connection[Any]) -> bool:
    """Say whether a COPY of the server can send nothing, a while after it has begun."""
    row = connection.execute(
        f"SELECT count(*) {OF_THE_SERVER} AND wait_event = 'ClientWrite' "
        "AND query_start < clock_timestamp() - interval '0.5 s'"
    ).fetchone()
    return row is not None and row[0] == 1
