"""One line a request: who asked which route, and what was answered."""

import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.logging import AccessFormatter

from stillroom.routes import route_of

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class AccessLog:
    """Log each request of an application, by its route: a path or a query may name a person."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._logger = logging.getLogger("stillroom.access")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        if not self._logger.handlers:
            handler = logging.StreamHandler(sys.stdout)
            handler.setFormatter(AccessFormatter(_FORMAT, use_colors=False))
            self._logger.addHandler(handler)

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Pass the request on, and log it when its answer starts."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def note(message: _Message) -> None:
            if message["type"] == "http.response.start":
                self._log(scope, message["status"])
            await send(message)

        await self._application(scope, receive, note)

    def _log(self, scope: _Message, status: int) -> None:
        client = scope.get("client")
        address = f"{client[0]}:{client[1]}" if client else ""
        # Starlette notes what it has found; of another framework the path is all there is.
        unknown = "(no route)" if "router" in scope else scope["path"]
        route = route_of(scope) or unknown
        version = scope.get("http_version", "1.1")
        self._logger.info(_LINE, address, scope["method"], route, version, status)


_FORMAT = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'
_LINE = '%s - "%s %s HTTP/%s" %d'
