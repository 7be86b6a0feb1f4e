"""Measure what it costs to write a million rows."""

import asyncio
import csv
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID

import machine
from report import Report, Row, Table
from rounds import interleave, is_quick
from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils.compat import uuid7

from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from stillroom.postgres import Cluster, temporary_cluster, with_asyncpg

METHOD = """\
{rows:,} users, made as they are written (the id and two strings), into a table with a primary key
and a unique index, which is emptied before. `create_many` is Stillroom's, from a generator;
`insert().values` in lists of 1,000 is what SQLAlchemy documents for many rows, with a session;
psql has \\\\copy of a file that is there already, ids included. Each commits. {rounds} rounds, in
an order that changes; medians."""


class Base(Model, DeclarativeBase):
    """The base of the table."""


class User(Base):
    """A user."""

    __tablename__ = "bulk_users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    email: Mapped[str] = mapped_column(unique=True)
    full_name: Mapped[str]


def main() -> None:
    """Measure, and write the results."""
    rows, rounds = (100_000, 2) if is_quick(__doc__) else (1_000_000, 5)
    before = machine.load()
    with temporary_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.create_database("bulk")
        file = Path(folder) / "users.csv"
        with file.open("w", newline="") as opened:
            csv.writer(opened).writerows((uuid7(), *user.values()) for user in _users(rows))
        url = with_asyncpg(cluster.url("bulk"))
        asyncio.run(_create_table(url))
        found = interleave(
            {
                "create_many": lambda: asyncio.run(_create_many(url, rows)),
                "psql, \\copy": lambda: _copy(cluster, file, url, rows),
                "insert().values, 1,000 at a time": lambda: asyncio.run(_insert(url, rows)),
            },
            rounds,
        )
    Report(
        "bulk",
        "What does it cost to write a million rows?",
        METHOD.format(rows=rows, rounds=rounds),
        machine.describe(before),
        _tables(found),
        is_busy=machine.is_busy(),
    ).write()


def _tables(found: Mapping[str, list[float]]) -> list[Table]:
    ours, psql, _ = found.values()
    ratios = [a / b for a, b in zip(ours, psql, strict=True)]
    return [
        Table("all rows", "s", [Row(name, seconds) for name, seconds in found.items()]),
        Table("against psql", "times", [Row("create_many", ratios, target=1.5)]),
    ]


def _users(rows: int) -> Iterator[dict[str, str]]:
    for number in range(rows):
        yield {"email": f"{number}@example.org", "full_name": "Grace Hopper"}


async def _create_table(url: str) -> None:
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(url)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    await manager.close()


async def _create_many(url: str, rows: int) -> float:
    async with _Emptied(url, rows) as manager:
        began = time.perf_counter()
        async with manager.begin() as session:
            await session.execute(text("SET LOCAL statement_timeout = 0"))
            await User.create_many(session, _users(rows))
        return time.perf_counter() - began


async def _insert(url: str, rows: int) -> float:
    async with _Emptied(url, rows) as manager:
        began = time.perf_counter()
        async with manager.begin() as session:
            part: list[dict[str, str]] = []
            for user in _users(rows):
                part.append(user)
                if len(part) == 1000:
                    await session.execute(insert(User), part)
                    part = []
        return time.perf_counter() - began


def _copy(cluster: Cluster, file: Path, url: str, rows: int) -> float:
    async def copy() -> float:
        async with _Emptied(url, rows):
            began = time.perf_counter()
            command = f"\\copy bulk_users FROM '{file}' (FORMAT csv)"
            words = [*cluster.psql_command("bulk"), "--no-psqlrc", "--quiet", "--command", command]
            await asyncio.to_thread(subprocess.run, words, check=True)
            return time.perf_counter() - began

    return asyncio.run(copy())


class _Emptied:
    """Empty the table before a method, and see that it has filled it."""

    def __init__(self, url: str, rows: int) -> None:
        self._manager = DatabaseSessionManager()
        self._manager.init(url)
        self._rows = rows

    async def __aenter__(self) -> DatabaseSessionManager:
        async with self._manager.begin() as session:
            await session.execute(text("TRUNCATE bulk_users"))
        return self._manager

    async def __aexit__(self, *_: object) -> None:
        async with self._manager.session(read_only=True) as session:
            found = await session.scalar(select(func.count()).select_from(User))
        await self._manager.close()
        if found != self._rows:
            msg = f"{found} rows were written, not {self._rows}"
            raise RuntimeError(msg)


if __name__ == "__main__":
    main()
