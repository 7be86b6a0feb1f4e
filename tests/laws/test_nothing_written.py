"""Law 2: an error, a returned 4xx or 5xx and a cancellation leave nothing written."""

import re
import time

import httpx2
import pytest

from tests.laws.app import STATEMENT_TIMEOUT
from tests.laws.conftest import Service, wait_until


@pytest.mark.parametrize("prefix", ["", "/nested/deep"])
@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/returned-response", {"status": 400}, 400),
        ("/returned-response", {"status": 404}, 404),
        ("/returned-response", {"status": 500}, 500),
        ("/status-code", {}, 422),
        ("/raised", {"status": 402}, 402),
        ("/raised", {"status": 503}, 503),
        ("/exception", {}, 500),
        ("/bad-model", {}, 500),
        ("/insert-and-sleep", {"seconds": 30}, 504),
    ],
)
def test_an_answer_of_400_or_more_leaves_nothing_written(
    service: Service, prefix: str, path: str, query: dict[str, int], status: int
) -> None:
    """An error that was returned, raised, or not expected rolls back."""
    name = f"{path[:12]}{status}{prefix}"

    response = service.client.post(prefix + path, params={"name": name, **query})

    assert (response.status_code, service.rows(name)) == (status, 0)
    assert service.open_transactions() == 0


def test_a_background_task_cannot_write_through_the_session_of_the_request(
    service: Service,
) -> None:
    """The session has ended with the commit: later work through it raises and is not lost."""
    service.client.post("/background", params={"name": "task"})

    wait_until(lambda: service.client.get("/seen", params={"name": "task"}).json()["error"])
    assert service.client.get("/seen", params={"name": "task"}).json() == {
        "error": "InvalidRequestError"
    }
    assert (service.rows("task"), service.rows("task-late")) == (1, 0)


@pytest.mark.parametrize("path", ["/stream", "/generator"])
def test_a_stream_that_uses_the_ended_session_is_cut(service: Service, path: str) -> None:
    """A stream that fails ends without its last chunk, so nobody takes it for whole."""
    with pytest.raises(httpx2.RemoteProtocolError):
        service.client.post(path, params={"name": f"cut{path}"})

    assert service.rows(f"cut{path}-late") == 0


def test_a_commit_that_is_not_answered_in_time_has_an_unknown_outcome(service: Service) -> None:
    """The COMMIT outlives the deadline: 503 that says so, and the slot of the pool is free."""
    began = time.monotonic()

    response = service.client.post(
        "/slow-commit", params={"name": "unknown", "seconds": STATEMENT_TIMEOUT + 2}
    )

    took = time.monotonic() - began
    assert (response.status_code, response.json()["code"]) == (503, "outcome_unknown")
    assert STATEMENT_TIMEOUT <= took < STATEMENT_TIMEOUT + 1
    assert "retry-after" not in response.headers
    assert (service.in_use(), service.rows("unknown", "slow_commits")) == (0, 0)
    wait_until(lambda: service.rows("unknown", "slow_commits") == 1)


def test_a_client_that_leaves_during_the_commit_gets_the_whole(service: Service) -> None:
    """From COMMIT on the work runs to its end, whoever has hung up."""
    with pytest.raises(httpx2.ReadTimeout):
        service.client.post(
            "/slow-commit", params={"name": "left-at-commit", "seconds": 1}, timeout=0.5
        )

    wait_until(lambda: service.rows("left-at-commit", "slow_commits") == 1)
    wait_until(lambda: service.in_use() == 0)


def test_an_unknown_exception_has_an_id_that_the_log_has_too(service: Service) -> None:
    """A 500 names its occurrence and nothing else; the log has the exception under that name."""
    response = service.client.post("/exception", params={"name": "named"})

    problem = response.json()
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", problem["instance"])
    assert "mistake in the program" not in response.text
    log = service.log.read_text()
    assert f"POST /exception: 500 {problem['instance']}" in log
    assert "RuntimeError: a mistake in the program" in log


def test_the_same_connection_answers_after_a_500(service: Service) -> None:
    """After a 500 the server keeps the connection: the next request on it is answered."""
    addresses: list[object] = []
    with httpx2.Client(
        base_url=service.client.base_url, limits=httpx2.Limits(max_connections=1)
    ) as client:
        for _ in range(50):
            response = client.post("/exception", params={"name": "x"})
            assert response.status_code == 500
            assert response.headers.get("connection") != "close"
            addresses.append(response.extensions["network_stream"].get_extra_info("client_addr"))
            assert client.get("/pool").status_code == 200

    assert len(set(addresses)) == 1
