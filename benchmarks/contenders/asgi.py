"""A bare ASGI function on asyncpg and orjson: the limit, with nothing checked."""

import os
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

import asyncpg
import orjson

GET = "SELECT id, email, full_name FROM users WHERE id = $1"
LIST = "SELECT id, email, full_name FROM users ORDER BY id"
CREATE = (
    "INSERT INTO users (id, email, full_name) VALUES ($1, $2, $3) RETURNING id, email, full_name"
)

pool: Any = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    match scope["path"]:
        case "/api/user/get-user":
            asked = dict(parse_qsl(scope["query_string"].decode()))
            row = await pool.fetchrow(GET, UUID(asked["id"]))
            await _answer(send, dict(row))
        case "/api/user/get-users":
            await _answer(send, [dict(row) for row in await pool.fetch(LIST)])
        case _:
            given = orjson.loads(await _body(receive))
            row = await pool.fetchrow(CREATE, uuid4(), given["email"], given["full_name"])
            await _answer(send, dict(row))


async def _live(receive: Any, send: Any) -> None:
    global pool  # noqa: PLW0603  (a bare function has nowhere else)
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            pool = await asyncpg.create_pool(os.environ["DATABASE_DSN"], min_size=10, max_size=10)
            await send({"type": "lifespan.startup.complete"})
        else:
            await pool.close()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            return body


async def _answer(send: Any, content: Any) -> None:
    body = orjson.dumps(content, default=str)  # asyncpg has UUIDs of its own
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
