"""A request to an application and its answer, with a client that may be slow, or leave."""

import asyncio
import json as json_format
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

Message = MutableMapping[str, Any]


@dataclass(frozen=True)
class Request:
    """Say what to ask: ``Request("POST", "/users?invite=no", json={"name": "Ann"})``."""

    method: str
    path: str
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    """What is sent where there is no `json`."""

    def __str__(self) -> str:
        """Read as in a log."""
        return f"{self.method} {self.path}"

    @property
    def content(self) -> bytes:
        """Return the body."""
        return self.body if self.json is None else json_format.dumps(self.json).encode()

    def scope(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return what a server tells an application of it.

        https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope
        """
        url = urlsplit(self.path)
        headers = {"host": "laws", **{name.lower(): it for name, it in self.headers.items()}}
        if self.json is not None:
            headers.setdefault("content-type", "application/json")
        headers["content-length"] = str(len(self.content))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": unquote(url.path),
            "raw_path": quote(url.path, safe="/%").encode(),
            "query_string": url.query.encode(),
            "root_path": "",
            "headers": [(name.encode(), it.encode()) for name, it in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("laws", 80),
            "state": state.copy(),
        }


class Exchange:
    """Ask an application, and see its answer from the side of the server.

    So the moment is seen at which it answers, which over a network lies somewhere before the bytes.
    """

    def __init__(
        self, app: Any, request: Request, state: dict[str, Any], *, is_slow: bool = False
    ) -> None:
        self.started = asyncio.Event()
        """Set when the answer begins, or its lack is certain."""
        self._request = request
        self._status = 500
        self._answered = asyncio.Event()
        self._left = asyncio.Event()
        self._takes = asyncio.Event()
        if not is_slow:
            self._takes.set()
        self._asked = False
        running = app(request.scope(state), self._receive, self._send)
        self._task: asyncio.Task[Any] = asyncio.ensure_future(running)
        self._task.add_done_callback(self._note_end)

    async def answer(self) -> int:
        """Return the status when the answer is there, whole."""
        await self._answered.wait()
        return self._status

    async def end(self) -> None:
        """Wait until the application has done all that it does for the request, or has raised."""
        await asyncio.wait({self._task})

    async def may_end(self) -> None:
        """Let it come to its end, if nothing holds it up."""
        await asyncio.wait({self._task}, timeout=_A_MOMENT)

    def leave(self, *, cancels: bool) -> None:
        """Let the client go; `cancels` is what some servers and timeouts do then."""
        self._left.set()
        self._takes.set()
        if cancels:
            self._task.cancel()

    def take_all(self) -> None:
        """Let a slow client take the answer."""
        self._takes.set()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request.content, "more_body": False}
        _, waiting = await asyncio.wait(
            {asyncio.ensure_future(it.wait()) for it in (self._left, self._answered)},
            return_when=asyncio.FIRST_COMPLETED,
        )
        for it in waiting:
            it.cancel()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self.started.set()
        elif message["type"] == "http.response.body":
            await self._takes.wait()
            if not message.get("more_body"):
                self._answered.set()

    def _note_end(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled():
            task.exception()  # the server logs it, and answers 500 or cuts the answer
        self.started.set()
        self._answered.set()


@asynccontextmanager
async def lifespan(app: Any) -> AsyncGenerator[dict[str, Any]]:
    """Run the lifespan of an application around a block; give the state that it has left.

    https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """
    received: asyncio.Queue[Message] = asyncio.Queue()
    sent: asyncio.Queue[Message] = asyncio.Queue()
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    task: asyncio.Task[Any] = asyncio.ensure_future(app(scope, received.get, sent.put))
    await _step(task, received, sent, "startup")
    try:
        yield state
    finally:
        await _step(task, received, sent, "shutdown")
        await asyncio.wait({task})


async def _step(
    task: "asyncio.Task[Any]", received: Any, sent: "asyncio.Queue[Message]", name: str
) -> None:
    await received.put({"type": f"lifespan.{name}"})
    answer = asyncio.ensure_future(sent.get())
    await asyncio.wait({task, answer}, return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        answer.cancel()  # it has no lifespan
    elif answer.result()["type"] == f"lifespan.{name}.failed":
        msg = f"The lifespan of the application fails at its {name}: {answer.result()['message']}"
        raise AssertionError(msg)


_A_MOMENT = 0.1
