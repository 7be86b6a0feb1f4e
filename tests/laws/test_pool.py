"""Laws 3 and 4: no connection is lost, no statement is left running, overload is an answer."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from tests.laws.conftest import Service, wait_until

KINDS: list[tuple[str, str, dict[str, Any], float]] = [
    ("POST", "/returned-model", {}, 20),
    ("POST", "/inserted", {}, 20),
    ("POST", "/exception", {}, 20),
    ("POST", "/deferred", {"name": "mix"}, 20),
    ("POST", "/bad-model", {}, 20),
    ("GET", "/write/core", {}, 20),
    ("POST", "/error-passed-over", {}, 20),
    ("GET", "/sleep", {"seconds": 0.3}, 0.05),
    ("POST", "/insert-and-sleep", {"seconds": 0.3}, 0.05),
    ("GET", "/endless", {}, 0.05),
    ("POST", "/slow-commit", {"seconds": 0.3}, 0.05),
]
"""Requests of every kind: method, path, query, and how many seconds their client waits."""


def test_the_pool_is_whole_after_any_mix_of_failures(service: Service) -> None:
    """After 300 requests of every kind, many of them given up, no connection is in use."""

    def one(number: int) -> None:
        method, path, query, patience = KINDS[number % len(KINDS)]
        params = {"name": f"mix-{number}", **query}
        try:
            with service.client.stream(method, path, params=params, timeout=patience) as response:
                next(response.iter_raw(), b"")
        except (httpx2.TimeoutException, httpx2.RemoteProtocolError):
            return

    with ThreadPoolExecutor(30) as threads:
        list(threads.map(one, range(300)))

    wait_until(lambda: service.in_use() == 0)
    wait_until(lambda: service.statements("%pg_sleep%") == 0)
    wait_until(lambda: service.open_transactions() == 0)
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

    def one(_number: int) -> httpx2.Response:
        return service.client.get("/sleep", params={"seconds": 0.6})

    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(one, range(40)))

    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503}
    assert statuses[200] >= 1  # the connections themselves may take most of the second
    assert all(
        answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 503
    )
    wait_until(lambda: service.in_use() == 0)
