"""What nobody sends who means well, to the service as it ships."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

from tests.faults.answer import Answer
from tests.faults.figure import Figure, Measure, none
from tests.faults.stage import SERVICE, Stage

CREATE, GET = "/api/user/create-user", "/api/user/get-user"
HUGE = 200_000_000
SLOW = 50
"""How many connections send a header and then next to nothing."""

Hostile = tuple[str, str, bytes | Iterator[bytes]]


def corpus(secret: str) -> Iterator[Hostile]:
    """Yield method, path and body of each request."""
    good = {"email": f"{secret}@example.com", "full_name": secret}
    values: list[object] = [
        "\0",
        "\ud800",
        "x" * 8192,
        "\u200b",
        "a\r\nb",
        "\x1b[31m",
        "",
        None,
        5,
        [],
        {},
    ]
    for value in values:
        for name in good:
            mixed = f"{secret}{value}" if isinstance(value, str) and value else value
            yield "POST", CREATE, json.dumps({**good, name: mixed}).encode()
    for raw in ("NaN", "1e999", "9" * 5000, "-0", '"\\u0000"', "true", "null", '"\\udc00"'):
        yield "POST", CREATE, f'{{"email": "{secret}@example.com", "full_name": {raw}}}'.encode()
    for bad in (b"", b"{", b"\xff\xfe", b"null", b"[]", b"[" * 60_000, b'{"a":' * 10_000):
        yield "POST", CREATE, bad
    for bad in (b"[" * 10_000_000, b'{"email": "' + b"x" * 10_000_000 + b'"}'):
        yield "POST", CREATE, bad
    for query in ("%00", "%ff", "%ed%a0%80", "'", "x" * 8000, "0" * 36, "%2500", "&id=1&id=2"):
        yield "GET", f"{GET}?id={secret}{query}", b""
    yield "POST", CREATE, (b"x" * 1_000_000 for _ in range(HUGE // 1_000_000))  # chunked


def hostile_input(stage: Stage) -> Figure:
    """Send it all, while as many connections as that hold on to a request that never ends."""
    with stage.database() as database:
        url = database.create()
        migrate(url)
        with stage.server(url, application="run:server") as server:
            stage.note([send(server.port, "GET", f"{GET}?id={n}", b"", "") for n in range(50)])
            before = memory(server.worker, "VmRSS")
            Path(f"/proc/{server.worker}/clear_refs").write_text("5")  # the peak; see proc(5)
            slow = [begin(server.port) for _ in range(SLOW)]
            hostile = corpus(stage.secret)
            answers = stage.note([send(server.port, *one, stage.secret) for one in hostile])
            grown = (memory(server.worker, "VmHWM") - before) / 1e6
            for one in slow:
                one.close()
    return Figure(
        14,
        "No hostile request is a 5xx, and none costs memory",
        [
            Measure("requests", len(answers)),
            none("5xx, and no answer", sum(a.status >= 500 or a.status == 0 for a in answers)),
            Measure("peak of memory grown by", grown, "MB", at_most=32),
        ],
    )


def send(port: int, method: str, path: str, body: bytes | Iterator[bytes], secret: str) -> Answer:
    """Send one request; who is refused before the body is sent sees the answer all the same."""
    at = time.monotonic()
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    content = b""
    status = 0
    with suppress(OSError):
        with suppress(BrokenPipeError, ConnectionResetError):
            headers = {"Content-Type": "application/json"} if method == "POST" else {}
            connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        content, status = response.read(), response.status
    connection.close()
    tells = bool(secret) and status >= 400 and secret.encode() in content
    return Answer(path, at, time.monotonic() - at, status, tells=tells)


def begin(port: int) -> socket.socket:
    """Begin a request that is never sent to its end."""
    slow = socket.create_connection(("127.0.0.1", port))
    slow.sendall(f"POST {CREATE} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
    return slow


def migrate(url: str) -> None:
    """Give the service its tables."""
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    config = url.replace("postgresql:", "postgresql+asyncpg:")
    environ = {**os.environ, "DB_CONFIG": config}
    subprocess.run(command, cwd=SERVICE, env=environ, capture_output=True, check=True)


def memory(pid: int, name: str) -> int:
    """Return the memory of a process, now (VmRSS) or at its peak (VmHWM), in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
