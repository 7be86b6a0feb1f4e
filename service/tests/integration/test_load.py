"""Many clients at once on two pools: each gets its answer, and no connection is lost."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx2
import psycopg

from tests.integration.conftest import WriteUsers
from tests.integration.server import Server, wait_until

CLIENTS = 500
POOL = 10
"""How many connections write; as many read."""
STREAMS = 5
"""How many of those that read may be held by lists."""

Request = Callable[[httpx2.AsyncClient, int], Awaitable[httpx2.Response]]


def test_five_hundred_clients_at_once_are_served(
    server: Server, write_users: WriteUsers, connection: psycopg.Connection[Any]
) -> None:
    """Creates and reads: 200 and 503 only, a 200 means written, and the pool is whole after."""
    write_users(100)
    answers = asyncio.run(together(server, mixed))
    check(answers, connection)
    assert Counter(answer.status_code for answer in answers)[200] > 0
    check_pool(server, connection)


def test_five_hundred_clients_of_a_locked_table_are_told_to_come_back(
    server: Server, connection: psycopg.Connection[Any]
) -> None:
    """Those who wait for a connection in vain get 503 with Retry-After; the others get theirs."""

    async def locked() -> list[httpx2.Response]:
        with psycopg.connect(server.url) as other:
            other.execute("LOCK TABLE users")
            answers = asyncio.create_task(together(server, mixed))
            await asyncio.to_thread(wait_until, lambda: waiting(connection) == POOL + STREAMS)
            # Who comes after all of them is refused last.
            await asyncio.to_thread(server.wait_for_status, 503)
        return await answers

    answers = asyncio.run(locked())
    check(answers, connection)
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[503] > 0
    assert statuses[200] >= POOL + STREAMS
    check_pool(server, connection)


async def together(server: Server, request: Request) -> list[httpx2.Response]:
    """Send 500 requests at once, each on a connection of its own."""
    limits = httpx2.Limits(max_connections=CLIENTS)
    async with httpx2.AsyncClient(base_url=server.address, limits=limits, timeout=60) as client:
        return list(await asyncio.gather(*(request(client, number) for number in range(CLIENTS))))


async def create(client: httpx2.AsyncClient, number: int) -> httpx2.Response:
    """Create a user."""
    user = {"email": f"load{number}@example.com", "full_name": f"Load {number}"}
    return await client.post("/api/user/create-user", json=user)


async def mixed(client: httpx2.AsyncClient, number: int) -> httpx2.Response:
    """Create a user and read it back, or read the list."""
    if number % 2:
        return await client.get("/api/user/get-users")
    response = await create(client, number)
    if response.status_code == 200:
        found = await client.get("/api/user/get-user", params={"id": response.json()["id"]})
        assert found.status_code == 503 or found.json() == response.json()
    return response


def check(answers: list[httpx2.Response], connection: psycopg.Connection[Any]) -> None:
    """Compare what was answered with what is in the database."""
    assert {answer.status_code for answer in answers} <= {200, 503}
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["Retry-After"] == "1" for answer in refused)
    created = {
        answer.json()["email"]
        for answer in answers
        if answer.request.method == "POST" and answer.status_code == 200
    }
    rows = connection.execute("SELECT email FROM users WHERE email LIKE 'load%'").fetchall()
    assert {row[0] for row in rows} == created


def check_pool(server: Server, connection: psycopg.Connection[Any]) -> None:
    """See that every connection of the pools can be had at once, and no other is open."""

    async def use_all() -> list[int]:
        async with httpx2.AsyncClient(base_url=server.address, timeout=60) as client:
            with psycopg.connect(server.url) as other:
                other.execute("LOCK TABLE users")
                reads = [client.get(f"/api/user/get-user?id={UUID(int=0)}") for _ in range(POOL)]
                writes = [create(client, CLIENTS + number) for number in range(POOL)]
                requests = [asyncio.create_task(request) for request in (*reads, *writes)]
                await asyncio.to_thread(wait_until, lambda: waiting(connection) == 2 * POOL)
            return [(await request).status_code for request in requests]

    assert asyncio.run(use_all()) == [404] * POOL + [200] * POOL
    wait_until(lambda: connections(connection) == (2 * POOL, 0))


def connections(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Count the connections of the server, and those of them that are in a transaction."""
    row = connection.execute(
        "SELECT count(*), count(xact_start) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'stillroom'"
    ).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def waiting(connection: psycopg.Connection[Any]) -> int:
    """Count the statements that wait for a lock."""
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    return int(row[0]) if row else 0
