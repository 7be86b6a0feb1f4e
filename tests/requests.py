"""Many requests of several clients of the users service, each answer looked at."""

import asyncio
import json
import time
from dataclasses import dataclass, field


@dataclass
class Load:
    """What came of it: the rate in requests a second, and the answers that were wrong."""

    rate: float = 0.0
    wrong: list[str] = field(default_factory=list[str])


async def load(port: int, *, requests: int, clients: int) -> Load:
    """Create users, get each of them back and list the first ones, in that mix."""
    result = Load()
    start = time.monotonic()
    shares = [requests // clients + (number < requests % clients) for number in range(clients)]
    async with asyncio.TaskGroup() as group:
        for number, share in enumerate(shares):
            group.create_task(_client(port, number, share, result))
    result.rate = requests / (time.monotonic() - start)
    return result


async def _client(port: int, number: int, requests: int, result: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    mark = f"{time.monotonic_ns()}-{number}"
    user = {"id": "", "email": "", "full_name": ""}
    for turn in range(requests):
        if turn % 10 == 0:
            user = {"email": f"{mark}-{turn}@example.com", "full_name": f"{mark}-{turn}"}
            status, body = await _ask(reader, writer, "POST", "create-user", json.dumps(user))
            is_right = status == 200 and {**user, "id": body.get("id")} == body
            user["id"] = str(body.get("id"))
        else:
            status, body = await _ask(reader, writer, "GET", f"get-user?id={user['id']}")
            is_right = (status, body) == (200, user)
        if not is_right:
            result.wrong.append(f"{status} {body}")
    writer.close()
    await writer.wait_closed()


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    body: str = "",
) -> tuple[int, dict[str, str]]:
    head = f"{method} /api/user/{path} HTTP/1.1\r\nhost: localhost\r\n"
    head += "content-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(answer.split("content-length: ")[1].split("\r\n")[0])
    return int(answer.split()[1]), json.loads(await reader.readexactly(length))
