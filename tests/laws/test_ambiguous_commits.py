"""Law 2 at its hardest: the COMMIT was sent, and its answer was lost."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest

from tests.conftest import DRIVERS, NewDatabase
from tests.laws.conftest import Service, answers, create_tables, serve, wait_until
from tests.proxy import Loss, Proxy, proxied

PATHS = ["/returned-model", "/inserted", "/returned-response", "/redirect", "/unflushed"]
LOSSES: list[Loss] = ["answer", "connection", "request", "answer"]


@pytest.fixture(scope="module", params=DRIVERS)
def service_behind_proxy(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path_factory: Any
) -> Iterator[tuple[Service, Proxy]]:
    """Serve the laws' application from a process that reaches PostgreSQL through a proxy."""
    bare = new_database()
    asyncio.run(create_tables(bare))
    log = tmp_path_factory.mktemp("cut") / "server.log"
    with proxied(bare.replace("postgresql://", f"postgresql+{request.param}://")) as (proxy, way):
        url = way.render_as_string(hide_password=False)
        with (
            serve(["-m", "tests.laws.app", url], log) as address,
            httpx2.Client(base_url=address, timeout=30) as client,
            psycopg.connect(bare, autocommit=True) as database,
        ):
            wait_until(lambda: answers(client))
            yield Service(client, url, log, database), proxy
    assert "Traceback" not in (text := log.read_text()), text


@pytest.mark.parametrize("cuts", [20, pytest.param(100, marks=pytest.mark.full)])
def test_every_retry_gets_the_first_answer(
    service_behind_proxy: tuple[Service, Proxy], cuts: int
) -> None:
    """Of many cut COMMITs none is called a failure and is there, and nothing is done twice."""
    service, proxy = service_behind_proxy
    proxy.cuts = 0
    for number in range(cuts):
        name, path = f"cut-{cuts}-{number}", PATHS[number % len(PATHS)]
        request: dict[str, Any] = {
            "params": {"name": name},
            "headers": {"Idempotency-Key": f'"{uuid4()}"'},
        }
        proxy.cut(b"COMMIT", LOSSES[number % len(LOSSES)])

        first = service.client.post(path, **request)

        was_done = first.status_code < 400
        assert service.rows(name) == int(was_done), first.text
        if not was_done:
            assert (first.status_code, first.json()["code"]) == (503, "database_unavailable")
            assert "retry-after" in first.headers
            first = service.client.post(path, **request)
        again = service.client.post(path, **request)
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert service.rows(name) == 1
    assert proxy.cuts == cuts
    wait_until(lambda: service.in_use() == 0)
    wait_until(lambda: service.open_transactions() == 0)


def test_without_a_key_the_server_settles_its_own_doubt(
    service_behind_proxy: tuple[Service, Proxy],
) -> None:
    """What was committed is a success, and what is not says so."""
    service, proxy = service_behind_proxy
    for number, loss in enumerate(LOSSES * 3):
        proxy.cut(b"COMMIT", loss)
        name = f"keyless-{number}"
        answer = service.client.post("/returned-model", params={"name": name})
        assert answer.status_code == (503 if loss == "request" else 200)
        assert service.rows(name) == int(answer.status_code == 200)


def test_an_outcome_that_nobody_can_tell_is_called_unknown(
    service_behind_proxy: tuple[Service, Proxy],
) -> None:
    """A lone INSERT with a key that PostgreSQL makes cannot be asked for: 503, without a retry."""
    service, proxy = service_behind_proxy
    proxy.cut(b"untold")
    answer = service.client.post("/inserted", params={"name": "untold"})

    assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
    assert "retry-after" not in answer.headers
