"""A limit to the size of a request's body."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from stillroom.fastapi import install
from stillroom.manager import DatabaseSessionManager

LIMIT = 100


@pytest.fixture
def client() -> TestClient:
    """Talk to an application with a limit."""
    app = FastAPI()
    install(app, DatabaseSessionManager(), max_body_size=LIMIT)

    @app.post("/size")
    async def size(request: Request) -> int:
        return sum([len(part) async for part in request.stream()])

    @app.post("/json")
    async def json(value: list[int]) -> int:
        return len(value)

    return TestClient(app)


def test_a_body_of_the_limit_is_taken(client: TestClient) -> None:
    """The limit itself is allowed, in one part and in several."""
    assert client.post("/size", content=b"x" * LIMIT).json() == LIMIT
    assert client.post("/size", content=iter([b"x"] * LIMIT)).json() == LIMIT


@pytest.mark.parametrize("path", ["/size", "/json"])
@pytest.mark.parametrize("chunked", [False, True])
def test_one_byte_more_is_a_problem(client: TestClient, path: str, chunked: bool) -> None:
    """413 in the format of every error, whether Content-Length tells the size or not."""

    def parts() -> Iterator[bytes]:
        yield b" " * LIMIT
        yield b" "

    response = client.post(
        path,
        content=parts() if chunked else b" " * (LIMIT + 1),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 413
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == 413
