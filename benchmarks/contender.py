"""A users API that is served on a database of its own, and what it is asked."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, cast
from uuid import uuid4

import asyncpg
from load import FOLDER, UVICORN, Application, Load, Server, serve

from stillroom.postgres import Cluster, with_asyncpg

SERVICE = FOLDER.parent / "service"

CONNECTIONS = 32
WARM = 1
"""Seconds that do not count."""

_numbers = count(1)  # of loads: what one has left under way makes no address of a later one


@dataclass(frozen=True)
class Work:
    """What is asked for, and how many users there are."""

    name: str
    request: str
    users: int
    targets: Mapping[str, float] = field(default_factory=dict[str, float])
    """How many times as fast as a contender Stillroom has to be."""


class Contender:
    """An application that is served, on a database of its own."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url

    def prepare(self, users: int) -> list[str]:
        """Have so many users; return their ids."""
        return asyncio.run(fill(self.url, users))

    def measure(self, work: Work, *, seconds: int) -> Load:
        """Load the server after a moment that does not count."""
        ids = self.prepare(work.users)
        load = partial(self.server.load, work.request, ids, connections=CONNECTIONS)
        load(seconds=WARM, prefix=f"{next(_numbers)}-")
        return load(seconds=seconds, prefix=f"{next(_numbers)}-")


def migrate(cluster: Cluster) -> None:
    """Make the database that those of all are copies of, with the service's table."""
    asyncio.run(_execute(cluster, "CREATE DATABASE larder"))
    environ = {**os.environ, "DB_CONFIG": with_asyncpg(cluster.url("larder"))}
    words = [sys.executable, "-m", "alembic", "upgrade", "head"]
    subprocess.run(words, cwd=SERVICE, env=environ, check=True, capture_output=True)


@contextmanager
def serve_users(
    number: int, application: Application, cluster: Cluster, command: str = UVICORN
) -> Generator[Contender]:
    """Serve an application on the database of this number, a copy of what `migrate` made."""
    database = f"contender_{number}"
    asyncio.run(_execute(cluster, f"CREATE DATABASE {database} TEMPLATE larder"))
    url = cluster.url(database)
    environ = {**application.environ, "DATABASE_DSN": url, "DB_CONFIG": with_asyncpg(url)}
    with serve(replace(application, environ=environ), command) as server:
        yield Contender(server, url)


async def _execute(cluster: Cluster, statement: str) -> None:
    connection = await cast("Any", asyncpg).connect(cluster.url("postgres"))
    await connection.execute(statement)
    await connection.close()


async def fill(url: str, users: int) -> list[str]:
    """Have so many users and no others; return their ids."""
    ids = [uuid4() for _ in range(users)]
    rows = [(key, f"{number}@example.org", "Grace Hopper") for number, key in enumerate(ids)]
    connection = await cast("Any", asyncpg).connect(url)
    await connection.execute("TRUNCATE users")
    columns = ["id", "email", "full_name"]
    await connection.copy_records_to_table("users", records=rows, columns=columns)
    await connection.execute("VACUUM ANALYZE users")
    await connection.close()
    return [key.hex for key in ids]
