"""Measure what ordinary ORM code costs in a session of Stillroom's, and in a plain one."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import machine
import uvloop
from report import Report, Row, Table
from rounds import is_quick, shuffled
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.engine import EngineSettings
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from stillroom.postgres import temporary_cluster, with_asyncpg

METHOD = """\
The same code, each time in a session of its own, in {tasks} tasks at a time on a pool of {pool}: in
a read session of a DatabaseSessionManager, and in an AsyncSession of an async_sessionmaker on an
engine with a fixed pool (`max_overflow=0`) and nothing else set, closed as `async with` does. A
figure is the median of {rounds} rounds of {times} times, in an order that changes, with uvloop;
PostgreSQL has its core beside. A ratio is of two figures of one round."""

TASKS, POOL = 32, 10


class Base(Model, DeclarativeBase):
    """The base of the table."""


class User(Base):
    """A user."""

    __tablename__ = "orm_users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    full_name: Mapped[str]


async def _get(session: AsyncSession) -> object:
    return await session.get(User, 5)


async def _scalars(session: AsyncSession) -> object:
    return (await session.scalars(select(User).where(User.id <= 20).order_by(User.id))).all()


async def _execute(session: AsyncSession) -> object:
    return (await session.execute(select(func.count()).select_from(User))).scalar_one()


WORKS: dict[str, Callable[[AsyncSession], Awaitable[object]]] = {
    "session.get": _get,
    "session.scalars of 20": _scalars,
    "session.execute of a count": _execute,
}

NewSession = Callable[[], AbstractAsyncContextManager[AsyncSession]]


def main() -> None:
    """Measure, and write the results."""
    rounds, times = (5, 640) if is_quick(__doc__) else (15, 3200)
    before = machine.load()
    with temporary_cluster() as cluster:
        cluster.create_database("orm")
        found = uvloop.run(_measure(with_asyncpg(cluster.url("orm")), rounds, times))
    ratios = [
        Row(
            work,
            [b / a for a, b in zip(found[work]["Stillroom"], found[work]["plain"], strict=True)],
            at_least=1.5,
        )
        for work in WORKS
    ]
    tables = [
        Table(work, "us", [Row(name, figures) for name, figures in found[work].items()])
        for work in WORKS
    ]
    Report(
        "orm",
        "What does ordinary ORM code cost?",
        METHOD.format(tasks=TASKS, pool=POOL, rounds=rounds, times=times),
        machine.describe(before),
        [Table("a plain session against Stillroom's", "times the time", ratios), *tables],
        is_busy=machine.is_busy(),
    ).write()


async def fill(url: str) -> None:
    """Make the table, and a thousand users."""
    manager = _manager(url)
    async with manager.connect() as connection:
        await manager.create_all(connection)
        rows = [{"email": f"{n}@example.org", "full_name": "Grace Hopper"} for n in range(1000)]
        await connection.execute(insert(User), rows)
    await manager.close()


async def repeat(url: str, work: str) -> None:
    """Do one of the works in Stillroom's sessions until the process is ended."""
    manager = _manager(url)
    print("begun", flush=True)
    while True:
        await _time(lambda: manager.session(read_only=True), WORKS[work], TASKS)


def _manager(url: str) -> DatabaseSessionManager:
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(url, settings=EngineSettings(pool_size=POOL))
    return manager


async def _measure(url: str, rounds: int, times: int) -> dict[str, dict[str, list[float]]]:
    await fill(url)
    manager = _manager(url)
    engine = create_async_engine(url, pool_size=POOL, max_overflow=0)
    plain = async_sessionmaker(engine)

    @asynccontextmanager
    async def in_plain_session() -> AsyncGenerator[AsyncSession]:
        async with plain() as session:
            yield session

    sessions: dict[str, NewSession] = {
        "Stillroom": lambda: manager.session(read_only=True),
        "plain": in_plain_session,
    }
    found: dict[str, dict[str, list[float]]] = {
        work: {name: [] for name in sessions} for work in WORKS
    }
    for number in range(rounds + 1):
        for work, run in WORKS.items():
            for name in shuffled(sessions):
                seconds = await _time(sessions[name], run, times)
                if number:  # the first does not count
                    found[work][name].append(1e6 * seconds)
    await engine.dispose()
    await manager.close()
    return found


async def _time(
    new_session: NewSession, run: Callable[[AsyncSession], Awaitable[object]], times: int
) -> float:
    """Return the seconds that one time takes."""

    async def work() -> None:
        for _ in range(times // TASKS):
            async with new_session() as session:
                await run(session)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    return (time.perf_counter() - began) / times


if __name__ == "__main__":
    main()
