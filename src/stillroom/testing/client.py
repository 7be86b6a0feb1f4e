"""Clients that talk to an application in this process."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import httpx2
from starlette.testclient import TestClient

from stillroom.testing.wire.transport import in_the_name_of


def asynchronous(client: TestClient) -> httpx2.AsyncClient:
    """Return an asynchronous client of the application that a client runs.

    The requests run in the application's event loop, with what its lifespan has opened there, so
    they can be awaited in a test of any loop, many at a time.
    """
    transport = _Transport(client)
    return httpx2.AsyncClient(transport=transport, base_url=str(client.base_url))


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(self, client: TestClient) -> None:
        self._client = client
        self._application = httpx2.ASGITransport(self._call)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        portal = self._client.portal
        if portal is None:
            msg = "The application has ended: its client was left."
            raise RuntimeError(msg)
        try:
            task = asyncio.current_task()
        except RuntimeError as error:
            msg = (
                "An asynchronous client was used outside an event loop of asyncio, which "
                "SQLAlchemy and asyncpg need too: trio has none. With the plugin of anyio let the "
                'fixture anyio_backend return "asyncio"'
            )
            raise RuntimeError(msg) from error
        answer = portal.start_task_soon(self._handle, request, task)
        return await asyncio.wrap_future(answer)

    async def _handle(
        self, request: httpx2.Request, task: "asyncio.Task[Any] | None"
    ) -> httpx2.Response:
        with in_the_name_of(task):
            return await self._application.handle_async_request(request)

    async def _call(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        scope["state"] = self._client.app_state.copy()
        await self._client.app(scope, receive, send)
