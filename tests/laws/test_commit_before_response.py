"""Law 1: an answer below 400 means committed, and a commit that fails is an error response."""

import pytest

from tests.laws.conftest import Service

PREFIXES = ["", "/nested/deep"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/returned-model", 200),
        ("/inserted", 200),
        ("/returned-response", 200),
        ("/returned-response?status=201", 201),
        ("/returned-response?status=399", 399),
        ("/redirect", 303),
        ("/unflushed", 200),
        ("/background", 200),
        ("/error-in-savepoint", 200),
    ],
)
def test_a_row_is_committed_when_its_answer_arrives(
    service: Service, prefix: str, path: str, status: int
) -> None:
    """An answer below 400 arrives after the COMMIT, from a route of any shape."""
    name = f"{prefix}{path}"[:40]

    response = service.client.post(
        prefix + path.partition("?")[0], params={"name": name, **_query(path)}
    )

    assert (response.status_code, service.rows(name)) == (status, 1)


@pytest.mark.parametrize("path", ["/on-app", "/function-scope"])
def test_routes_on_the_application_commit_too(service: Service, path: str) -> None:
    """A route on the application itself is a unit of work, and so is one with a function scope."""
    response = service.client.post(path, params={"name": path})

    assert (response.status_code, service.rows(path)) == (200, 1)


def test_what_a_streaming_view_wrote_is_committed_before_the_stream_starts(
    service: Service,
) -> None:
    """A stream comes after the commit: what the view wrote is there when the first byte comes."""
    with service.client.stream("POST", "/stream", params={"name": "streamed"}) as response:
        first = next(response.iter_raw())

        assert (response.status_code, first[:5], service.rows("streamed")) == (200, b"first", 1)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", ["/deferred", "/deferred-inserted"])
def test_a_commit_that_fails_is_an_error_response(service: Service, prefix: str, path: str) -> None:
    """A constraint that is checked at COMMIT refuses the second row: 409, and one row."""
    name = f"{path}{prefix}"
    params = {"name": name}

    answers = [service.client.post(f"{prefix}{path}", params=params) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].json()["errors"] == [
        {"field": "name", "detail": "The value is taken already."}
    ]
    assert service.rows(name, "slots") == 1


def test_an_error_that_the_view_passed_over_is_no_success(service: Service) -> None:
    """PostgreSQL answers the COMMIT of an aborted transaction with ROLLBACK: that is a 500."""
    response = service.client.post("/error-passed-over", params={"name": "passed-over"})

    assert (response.status_code, service.rows("passed-over")) == (500, 0)


def test_a_view_that_commits_by_itself_works(service: Service) -> None:
    """What the view has committed stays, whatever it answers; the rest is the route's."""
    service.client.post("/own-commit", params={"name": "own-good", "status": 200})
    refused = service.client.post("/own-commit", params={"name": "own-bad", "status": 422})

    assert refused.status_code == 422
    assert (service.rows("own-good"), service.rows("own-good-later")) == (1, 1)
    assert (service.rows("own-bad"), service.rows("own-bad-later")) == (1, 0)


def test_a_client_reads_its_own_write(service: Service) -> None:
    """A read sent after the answer of a write finds it, on any connection of the pool."""
    for number in range(50):
        name = f"own-write-{number}"
        assert service.client.post("/returned-model", params={"name": name}).status_code == 200
        assert len(service.client.get("/items", params={"name": name}).json()) >= 1


def _query(path: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in path.partition("?")[2].split("&") if pair)
