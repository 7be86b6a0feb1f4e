"""Whether the process lives, and whether it can do its work, for those who send requests to it."""

import asyncio

from fastapi import APIRouter

from stillroom.manager import DatabaseSessionManager


def health(manager: DatabaseSessionManager) -> APIRouter:
    """Return the routes `GET /health/live` and `GET /health/ready`.

    The first answers as long as the process does. The second is 503 while PostgreSQL gives no sign
    of life. It asks on a connection of its own, past the pools and their line: a service that has
    more to do than it can is no reason to take it out of use. Many who ask at a time are one.
    """
    router = APIRouter(prefix="/health", include_in_schema=False)
    asking: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    @router.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/ready")
    async def ready() -> dict[str, str]:
        loop = asyncio.get_running_loop()
        if loop not in asking:
            asking[loop] = loop.create_task(manager.ping())
            asking[loop].add_done_callback(lambda _: asking.pop(loop))
        await asyncio.shield(asking[loop])
        return {"status": "ready"}

    return router
