"""Measure what a page of rows costs, wherever in the table it is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from statistics import median
from typing import Any

import machine
from pydantic import BaseModel
from report import Report, Row, Table
from rounds import is_quick, shuffled
from sqlalchemy import DateTime, Index, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.json.pages import JSONPages
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from stillroom.pages import Pages
from stillroom.postgres import temporary_cluster, with_asyncpg

METHOD = """\
A table of {users:,} users with an index on its order, pages of {limit}, the newest first. A page is
read by its cursor, as entities (Pages) and as JSON (JSONPages), and by OFFSET, as most do. Each
figure is the median of {reads} reads of a round, in one process beside the server, each in a read
session of its own, a figure of page 1 beside one of page {far:,}; {rounds} rounds."""

LIMIT = 50


class Base(Model, DeclarativeBase):
    """The base of the table."""


class User(Base):
    """A user, whose order is that of creation."""

    __tablename__ = "paged_users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    full_name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (Index(None, "created_at", "id"),)


class UserSchema(BaseModel):
    """Show a user."""

    id: int
    email: str
    full_name: str


ORDER: list[Any] = [User.created_at.desc(), User.id.desc()]
PAGES = Pages(select(User), order_by=ORDER)
JSON_PAGES = JSONPages(select(User), UserSchema, order_by=ORDER)
OFFSET = select(User).order_by(*ORDER).limit(LIMIT)

Read = Callable[[AsyncSession], Awaitable[object]]


def main() -> None:
    """Measure, and write the results."""
    users, rounds, reads = (500_000, 3, 20) if is_quick(__doc__) else (5_000_000, 9, 50)
    far = users // LIMIT // 2
    before = machine.load()
    with temporary_cluster() as cluster:
        cluster.create_database("pages")
        found = asyncio.run(_measure(with_asyncpg(cluster.url("pages")), users, far, rounds, reads))
    near_and_far = list(found.items())
    ratios = {
        name: [later / first for first, later in zip(found[name, 1], figures, strict=True)]
        for (name, page), figures in near_and_far
        if page == far
    }
    Report(
        "pages",
        "What does a page cost, wherever it is?",
        METHOD.format(users=users, limit=LIMIT, reads=reads, far=far, rounds=rounds),
        machine.describe(before),
        [
            Table(
                f"page {far:,} against page 1",
                "times",
                [
                    Row(name, figures, target=None if name == "OFFSET" else 1.2)
                    for name, figures in ratios.items()
                ],
            ),
            Table(
                "a page",
                "ms",
                [Row(f"{name}, page {page:,}", figures) for (name, page), figures in near_and_far],
            ),
        ],
        is_busy=machine.is_busy(),
    ).write()


async def _measure(
    url: str, users: int, far: int, rounds: int, reads: int
) -> dict[tuple[str, int], list[float]]:
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(url)
    cursor = await _fill(manager, users, far)
    works: dict[tuple[str, int], Read] = {
        ("Pages", 1): lambda session: PAGES.rows(session, LIMIT),
        ("Pages", far): lambda session: PAGES.rows(session, LIMIT, cursor),
        ("JSONPages", 1): lambda session: JSON_PAGES.read(session, LIMIT),
        ("JSONPages", far): lambda session: JSON_PAGES.read(session, LIMIT, cursor),
        ("OFFSET", 1): lambda session: session.scalars(OFFSET),
        ("OFFSET", far): lambda session: session.scalars(OFFSET.offset((far - 1) * LIMIT)),
    }
    found: dict[tuple[str, int], list[float]] = {work: [] for work in works}
    for _ in range(rounds + 1):  # the first does not count
        for name in shuffled({name for name, _ in works}):
            figures: dict[int, list[float]] = {1: [], far: []}
            for _ in range(reads):
                for page, times in figures.items():
                    times.append(await _time(manager, works[name, page]))
            for page, times in figures.items():
                found[name, page].append(1000 * median(times))
    await manager.close()
    return {work: figures[1:] for work, figures in found.items()}


async def _time(manager: DatabaseSessionManager, read: Read) -> float:
    began = time.perf_counter()
    async with manager.session(read_only=True) as session:
        await read(session)
    return time.perf_counter() - began


async def _fill(manager: DatabaseSessionManager, users: int, far: int) -> str:
    """Have so many users; return the cursor of a page in their midst."""
    async with manager.connect() as connection:
        await manager.create_all(connection)
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        await connection.execute(
            text(
                "INSERT INTO paged_users (id, email, full_name, created_at) "
                "SELECT n, n || '@example.org', 'Grace Hopper', "
                "'2026-01-01'::timestamptz + n * interval '1 s' "
                "FROM generate_series(1, :users) AS n"
            ),
            {"users": users},
        )
    autocommit = manager.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(text("SET statement_timeout = 0"))
        await connection.execute(text("VACUUM ANALYZE paged_users"))
        await connection.execute(text("RESET statement_timeout"))
    # Cursors of one order are those of each select that has it.
    nearly = Pages(select(User).where(User.id <= users - (far - 2) * LIMIT), order_by=ORDER)
    async with manager.session(read_only=True) as session:
        page = await nearly.rows(session, LIMIT)
    if page.next is None:
        msg = f"{users} users have no page {far}"
        raise RuntimeError(msg)
    return page.next


if __name__ == "__main__":
    main()
