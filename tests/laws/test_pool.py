"""Laws 3 and 4: no connection is lost, no statement is left running, overload is an answer."""

import asyncio
from collections import Counter

import httpx2

from tests.laws.conftest import Service, wait_until


def test_the_pool_is_whole_after_any_mix_of_failures(service: Service) -> None:
    """After 300 requests of every kind, many of them given up, no connection is in use."""
    asyncio.run(_mix(str(service.client.base_url)))

    wait_until(lambda: service.in_use() == 0)
    wait_until(lambda: service.statements("%pg_sleep%") == 0)
    assert service.open_transactions() == 0
    assert service.client.post("/returned-model", params={"name": "after"}).status_code == 200


def test_a_stream_that_its_client_leaves_stops_in_postgresql(service: Service) -> None:
    """The query of an endless stream ends when its client has left."""
    with service.client.stream("GET", "/endless") as response:
        parts = response.iter_raw()
        first = next(parts)
        assert (response.status_code, first[:8]) == (200, b'[{"id":1')
        assert service.in_use() == 1

    wait_until(lambda: service.in_use() == 0)
    assert service.statements("%generate_series%") == 0


def test_more_requests_than_connections_wait_or_are_told_to_come_back(service: Service) -> None:
    """Forty slow requests on five connections: 200 or 503 with Retry-After, and no hang."""
    answers = asyncio.run(_together(str(service.client.base_url), 40))

    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503}
    assert statuses[200] >= 5
    assert all(
        answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 503
    )
    wait_until(lambda: service.in_use() == 0)


async def _together(address: str, number: int) -> list[httpx2.Response]:
    limits = httpx2.Limits(max_connections=number)
    async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=20) as client:
        requests = (client.get("/sleep", params={"seconds": 0.6}) for _ in range(number))
        return list(await asyncio.gather(*requests))


async def _mix(address: str) -> None:
    async with httpx2.AsyncClient(
        base_url=address, limits=httpx2.Limits(max_connections=30), timeout=20
    ) as client:

        async def one(number: int) -> None:
            name = f"mix-{number}"
            kinds = [
                client.post("/returned-model", params={"name": name}),
                client.post("/exception", params={"name": name}),
                client.post("/deferred", params={"name": "mix"}),
                client.post("/bad-model", params={"name": name}),
                client.get("/write/core", params={"name": name}),
                client.post("/error-passed-over", params={"name": name}),
            ]
            given_up = [
                client.get("/sleep", params={"seconds": 1}, timeout=0.05),
                client.post("/insert-and-sleep", params={"name": name, "seconds": 1}, timeout=0.05),
                client.get("/endless", timeout=0.05),
                client.post("/slow-commit", params={"name": name, "seconds": 0.3}, timeout=0.05),
            ]
            requests = kinds + given_up
            chosen = requests.pop(number % len(requests))
            for request in requests:
                request.close()
            try:
                await chosen
            except (httpx2.TimeoutException, httpx2.RemoteProtocolError):
                return

        await asyncio.gather(*(one(number) for number in range(300)))
