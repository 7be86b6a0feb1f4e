"""What a request has needed goes when it ends, and waits for no garbage collector."""

import asyncio
import gc
from typing import Any

import pytest
from fastapi import FastAPI

from stillroom.fastapi.deadline import Deadline
from stillroom.fastapi.unit import UnitOfWork
from stillroom.session import ServiceSession


@pytest.mark.parametrize(("method", "path"), [("GET", "/jars"), ("POST", "/jars")])
async def test_a_request_leaves_no_cycle_behind(app: FastAPI, method: str, path: str) -> None:
    """A cycle from its task to its session would be memory, and pauses, of a busy service."""

    async def request() -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"name=x",
            "headers": [],
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        assert sent[0]["status"] == 200

    await asyncio.create_task(request())
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(3):
            await asyncio.create_task(request())
        gc.collect()
        kinds: set[type[Any]] = {type(found) for found in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()

    assert kinds.isdisjoint({Deadline, UnitOfWork, ServiceSession})
