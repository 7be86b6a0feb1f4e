"""Every error as an answer."""

import asyncio
import logging
from collections.abc import MutableMapping
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from stillroom.engine import POOL_SIZE
from stillroom.fastapi import (
    UnitOfWorkRoute,
    install,
)
from stillroom.redaction import redact_logs
from tests.fastapi.conftest import Jar, get_db, manager, names


async def test_a_middleware_sees_the_answer_and_not_the_exception(
    app: FastAPI,
) -> None:
    """A 409 passes through the application's middleware, which may add CORS headers to it."""
    inner = Middleware(CORSMiddleware, allow_origins=["http://page"])
    app = FastAPI(middleware=[inner])
    install(app, manager)
    app.router.route_class = UnitOfWorkRoute

    @app.post("/twice")
    async def twice(db: AsyncSession = Depends(get_db)) -> None:
        await db.execute(text("INSERT INTO jars (id, name) VALUES (1, 'a'), (1, 'b')"))

    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post("/twice", headers={"origin": "http://page"})

    assert response.status_code == 409
    assert response.headers["access-control-allow-origin"] == "http://page"


@pytest.mark.parametrize(("write", "status"), [(True, 500), (False, 303)])
async def test_a_handler_that_makes_a_success_of_an_exception_loses_no_writes(
    app: FastAPI, client: httpx2.AsyncClient, write: bool, status: int
) -> None:
    """The exception has rolled back: a redirect would say that all is well, if something was."""

    class NotLoggedInError(Exception):
        pass

    @app.exception_handler(NotLoggedInError)
    async def to_login(_request: Request, _error: Exception) -> RedirectResponse:
        return RedirectResponse("/login", 303)

    @app.post("/private")
    async def private(db: AsyncSession = Depends(get_db)) -> None:
        if write:
            await Jar.create(db, name="private")
        raise NotLoggedInError

    assert (await client.post("/private")).status_code == status
    assert await names() == []


async def test_an_error_in_a_task_group_has_the_meaning_of_its_cause(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """A TaskGroup wraps what its one task raised; the answer is that of the cause."""

    @app.post("/grouped")
    async def grouped(db: AsyncSession = Depends(get_db)) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(db.execute(text("INSERT INTO jars (id, name) VALUES (1, NULL)")))

    response = await client.post("/grouped")

    assert (response.status_code, response.json()["code"]) == (422, "missing_value")


@pytest.mark.parametrize(
    ("status", "detail"), [(499, "gone"), (400, {"x": float("nan")}), (418, {"x": object()})]
)
async def test_any_http_exception_is_a_problem(
    app: FastAPI, client: httpx2.AsyncClient, status: int, detail: object
) -> None:
    """A status without a name, and a detail that is no JSON, are answered all the same."""

    @app.get("/odd")
    async def odd() -> None:
        raise HTTPException(status, detail)

    response = await client.get("/odd")

    assert (response.status_code, response.json()["status"]) == (status, status)


async def test_a_table_that_the_models_do_not_know_is_not_named(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """Neither a column of an inner table, nor one of a table of the same name elsewhere."""
    async with manager.connect() as connection:
        await connection.execute(text("CREATE SCHEMA inner_matter"))
        await connection.execute(text("CREATE TABLE inner_matter.jars (id int, name int NOT NULL)"))

    @app.post("/inner")
    async def inner(db: AsyncSession = Depends(get_db)) -> None:
        await db.execute(text("INSERT INTO inner_matter.jars (id) VALUES (1)"))

    response = await client.post("/inner")

    assert response.status_code == 422
    assert "errors" not in response.json()


async def test_a_http_exception_may_carry_any_detail_and_headers(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """What the application says of an error is kept."""

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, {"handle": "short"}, {"X-Spout": "1"})

    response = await client.get("/teapot")

    assert response.headers["x-spout"] == "1"
    assert response.json()["context"] == {"handle": "short"}


async def test_the_document_follows_a_route_that_comes_later(app: FastAPI) -> None:
    """A route that is added after the document was made stands in the next one, described."""
    assert "/late" not in app.openapi()["paths"]

    @app.put("/late")
    async def late() -> None:
        return None

    assert "409" in app.openapi()["paths"]["/late"]["put"]["responses"]
    assert app.openapi() is app.openapi()


async def test_a_500_is_logged_without_values_in_any_case(
    app: FastAPI, client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the logs of the process are left as they are: `install(..., redact=False)`."""

    @app.post("/secret")
    async def tell(db: AsyncSession = Depends(get_db)) -> None:
        await db.execute(text("SELECT CAST(CAST(:it AS text) AS no_type)"), {"it": "zaun"})

    logging.setLogRecordFactory(logging.LogRecord)
    response = await client.post("/secret")
    redact_logs()

    assert response.status_code == 500
    assert "SQLSTATE 42704" in caplog.text
    assert "no_type does not exist" not in caplog.text
    assert 'type "no_type"' not in caplog.text


async def test_a_client_that_has_left_is_no_overload(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Its request gives up its place in the line, which nobody has to be warned of."""
    caplog.set_level(logging.INFO, "stillroom")
    told: list[dict[str, Any]] = [
        {"type": "http.request", "body": b""},
        {"type": "http.disconnect"},
    ]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return told.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/jars"}
    scope |= {"query_string": b"", "headers": []}
    async with AsyncExitStack() as others:
        for _ in range(POOL_SIZE):
            other = await others.enter_async_context(manager.session(read_only=True))
            await other.execute(text("SELECT 1"))
        await app(scope, receive, send)

    assert sent[0]["status"] == 503
    record = next(it for it in caplog.records if it.name == "stillroom")
    assert record.levelname == "INFO"
    assert "GET /jars: 503 client_gone" in record.getMessage()
