"""A client that keeps its connection, as small as can be: it must offer more than is served."""

import asyncio
import time
from collections.abc import Sequence

from tests.faults.answer import Answer


class Client:
    """Ask over one connection, which is opened anew only where the server has closed it.

    Where nobody listens on a port the client goes to the next one, as a balancer does.
    """

    def __init__(self, ports: Sequence[int], secret: str = "") -> None:
        """Take the ports on the loopback, and what no error may repeat."""
        self._ports = list(ports)
        self._secret = secret.encode() or None
        self.body = b""
        """Of the last answer."""
        self._opened: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        key: str = "",
        due: float | None = None,
        patience: float = 60.0,
    ) -> Answer:
        """Return the answer; one that is not there after `patience` seconds is waited for no more.

        `due` is when the request was to be sent, if not now.
        """
        at = time.monotonic() if due is None else due
        headers = f"Idempotency-Key: {key}\r\n" if key else ""
        request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        try:
            async with asyncio.timeout(patience):
                head, body = await self._exchange(request.encode())
        except TimeoutError:
            self.close()
            return Answer(path, at, time.monotonic() - at, 0, has_left=True)
        except (OSError, EOFError):
            self.close()
            return Answer(path, at, time.monotonic() - at, 0)
        self.body = body
        status = int(head[9:12])
        return Answer(
            path,
            at,
            time.monotonic() - at,
            status,
            says_when=b"\r\nretry-after: " in head,
            is_there=b'"is_there":true' in body,
            says_unknown=status == 503 and b"outcome_unknown" in body,
            tells=status >= 400 and self._secret is not None and self._secret in head + body,
        )

    def close(self) -> None:
        """Hang up."""
        if self._opened is not None:
            self._opened[1].transport.abort()
            self._opened = None

    async def _exchange(self, request: bytes) -> tuple[bytes, bytes]:
        reader, writer = await self._connection()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(_value(head, b"content-length") or b"0"))
        if _value(head, b"connection") == b"close":
            self.close()
        return head, body

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._opened is not None and self._opened[0].at_eof():
            self.close()
        for number in range(len(self._ports)):
            if self._opened is not None:
                break
            try:
                self._opened = await asyncio.open_connection("127.0.0.1", self._ports[0])
            except OSError:
                self._ports.append(self._ports.pop(0))
                if number == len(self._ports) - 1:
                    raise
        assert self._opened is not None
        return self._opened


def _value(head: bytes, name: bytes) -> bytes | None:
    _, found, rest = head.partition(b"\r\n" + name + b": ")
    return rest.partition(b"\r\n")[0] if found else None
