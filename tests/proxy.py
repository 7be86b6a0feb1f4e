"""A proxy before PostgreSQL: it loses the answer to a COMMIT, or the COMMIT; it goes silent."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

from sqlalchemy import URL, make_url

Loss = Literal["answer", "request", "connection"]
"""What is lost: the answer to what was sent, what was sent, or only the client's side of it."""


class Proxy:
    """Pass everything on, until it is told to cut.

    `cut` holds from then on, for every message with this text in it; 'answer' waits until
    PostgreSQL has answered, and drops that, 'request' drops what was sent and lets PostgreSQL wait
    for it, and 'connection' passes it on and hangs up on the client at once.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._pattern: bytes | None = None
        self._loss: Loss = "answer"
        self._left = 0
        self._then_away = False
        self._is_away = False
        self._kept: list[asyncio.StreamWriter] = []
        self._muted: set[asyncio.StreamWriter] = set()
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self.cuts = 0
        self.port = 0

    def cut(
        self, pattern: bytes, loss: Loss = "answer", times: int = 1, *, then_away: bool = False
    ) -> None:
        """Cut the next so many connections over which a client sends this.

        With `then_away` nobody gets through to PostgreSQL from then on.
        """
        self._pattern, self._loss, self._left = pattern, loss, times
        self._then_away = then_away

    def silence(self) -> None:
        """Pass nothing on from now on, either way; every connection stays open, and is taken."""
        self._loop.call_soon_threadsafe(self._goes_on.clear)

    def heal(self) -> None:
        """Pass on what has come meanwhile, and all that comes."""
        self._loop.call_soon_threadsafe(self._goes_on.set)

    async def start(self) -> Self:
        """Listen on a port of the loopback."""
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        """Listen no more, and hang up."""
        self._server.close()
        for writer in self._kept:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_away:
            writer.transport.abort()
            return
        await self._goes_on.wait()
        with suppress(OSError):
            upstream_reader, upstream = await asyncio.open_unix_connection(self._target)
            self._kept += [writer, upstream]
            back = asyncio.ensure_future(self._pass_back(upstream_reader, writer))
            await self._pass_on(reader, writer, upstream, back)
            self._kept = [kept for kept in self._kept if not kept.transport.is_closing()]

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: asyncio.StreamWriter,
        back: "asyncio.Task[None]",
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._goes_on.wait()
                if self._pattern is None or self._left == 0 or self._pattern not in data:
                    upstream.write(data)
                    continue
                self._left -= 1
                self.cuts += 1
                self._is_away = self._then_away
                if self._loss == "request":
                    writer.transport.abort()
                    return  # PostgreSQL goes on waiting
                self._muted.add(writer)
                upstream.write(data)
                if self._loss == "connection":
                    writer.transport.abort()
                    await upstream.drain()
                    return
                await back
                break
        upstream.close()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._goes_on.wait()
                if writer in self._muted:
                    self._muted.discard(writer)
                    break
                writer.write(data)
        writer.transport.abort()


@contextmanager
def proxied(url: str) -> Generator[tuple[Proxy, URL]]:
    """Run a proxy in a thread of its own; give it, and the URL that leads through it."""
    target = make_url(url)
    socket = Path(str(target.query["host"]), f".s.PGSQL.{target.query['port']}")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = Proxy(socket)
    asyncio.run_coroutine_threadsafe(proxy.start(), loop).result(5)
    try:
        yield proxy, target.set(host="127.0.0.1", port=proxy.port, query={})
    finally:
        loop.call_soon_threadsafe(proxy.stop)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)
        for task in asyncio.all_tasks(loop):
            loop.call_soon_threadsafe(task.cancel)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
