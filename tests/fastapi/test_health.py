"""Whether a service can do its work is not asked of its pool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import pytest
from fastapi import FastAPI

from stillroom.engine import EngineSettings
from stillroom.fastapi import health
from stillroom.fastapi.application import install
from stillroom.manager import DatabaseSessionManager
from tests.fastapi.conftest import manager, open_client


@pytest.fixture
async def healthy(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client of the application with the routes of its health."""
    app.include_router(health(manager))
    async with open_client(app) as client:
        yield client


async def test_a_service_with_a_database_is_ready(healthy: httpx2.AsyncClient) -> None:
    """Both routes answer, as often as they are asked."""
    answers = [await healthy.get(f"/health/{path}") for path in ("live", "ready", "ready")]

    assert [answer.status_code for answer in answers] == [200, 200, 200]


async def test_a_pool_in_use_is_no_reason_to_be_taken_out_of_use(
    healthy: httpx2.AsyncClient, database_url: str
) -> None:
    """Health stands in no line: many may ask while every connection is taken."""
    await manager.close()
    manager.init(database_url, settings=EngineSettings(pool_size=2, pool_timeout=30))
    async with AsyncExitStack() as stack:
        for engine in (manager.engine, manager.read_engine):
            for _ in range(2):
                await stack.enter_async_context(engine.connect())

        answers = await asyncio.gather(*(healthy.get("/health/ready") for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}


async def test_a_service_without_its_database_lives_and_is_not_ready() -> None:
    """It is not restarted for what is not its fault, and gets no requests meanwhile."""
    away = DatabaseSessionManager()
    away.init("postgresql://nobody@127.0.0.1:1/nowhere")
    app = FastAPI()
    install(app, away)
    app.include_router(health(away))

    async with open_client(app) as client:
        live, ready = await client.get("/health/live"), await client.get("/health/ready")

    assert (live.status_code, ready.status_code) == (200, 503)
    assert (ready.json()["code"], ready.headers["retry-after"]) == ("database_unavailable", "1")
    await away.close()
