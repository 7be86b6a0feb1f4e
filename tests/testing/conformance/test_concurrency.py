"""Many connections at once."""

import asyncio
from collections.abc import Awaitable

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from tests.testing.conformance.authors import (
    NAMES,
    add,
    gather_all,
    names,
    run,
    sqlstate,
    value,
)  # fmt: skip
from tests.testing.conftest import NewEngine


async def test_fifty_readers_and_fifty_writers(new_engine: NewEngine) -> None:
    """All of them end, each with what it asked for."""
    engine = new_engine(pool_size=20, max_overflow=30, pool_timeout=30)

    async def write(number: int) -> int:
        async with AsyncSession(engine) as session:
            await add(session, f"{number:02}")
            if number % 5:
                await session.commit()
            return number

    async def read(number: int) -> int:
        async with AsyncSession(engine) as session:
            before = await value(session, "SELECT count(*) FROM author")
            await asyncio.sleep(0)
            after = await value(session, "SELECT count(*) FROM author")
            assert 0 <= before <= after <= 40
            return number

    written, read_ = await asyncio.gather(gather_all(50, write), gather_all(50, read))

    assert written == read_ == list(range(50))
    assert sorted(await names(engine)) == [f"{n:02}" for n in range(50) if n % 5]


async def test_two_drivers_sessions_in_one_gather(engine: AsyncEngine) -> None:
    """Two connections answer two tasks, each in its own transaction."""

    async def work(connection: AsyncConnection, name: str) -> str:
        await run(connection, "SELECT set_config('app.name', :name, true)", name=name)
        await asyncio.sleep(0)
        await add(connection, name)
        await connection.commit()
        return str(await value(connection, "SELECT current_setting('app.name', true)"))

    async with engine.connect() as one, engine.connect() as two:
        assert set(await asyncio.gather(work(one, "a"), work(two, "b"))) == {""}

    assert sorted(await names(engine)) == ["a", "b"]


async def test_a_background_task_outlives_its_request(engine: AsyncEngine) -> None:
    """A task that the request has started writes after the request has committed."""
    committed = asyncio.Event()

    async def later() -> None:
        await committed.wait()
        async with AsyncSession(engine) as session:
            assert await value(session, "SELECT count(*) FROM author") == 1
            await add(session, "later")
            await session.commit()

    async def request() -> "asyncio.Task[None]":
        async with AsyncSession(engine) as session:
            task = asyncio.create_task(later())
            await add(session, "request")
            await session.commit()
            committed.set()
            return task

    await (await request())

    assert await names(engine) == ["request", "later"]


async def test_a_writer_waits_for_a_row_until_it_is_free(engine: AsyncEngine) -> None:
    """Counting up by two tasks loses nothing: the second UPDATE sees the first one's row."""
    async with engine.begin() as connection:
        await add(connection, "0")

    async def count_up(_: int) -> None:
        async with engine.begin() as connection:
            await run(connection, "SELECT 1", "UPDATE author SET name = (name::int + 1)::text")

    await gather_all(10, count_up)

    assert await names(engine) == ["10"]


async def test_a_unique_value_is_given_once(engine: AsyncEngine) -> None:
    """Of many tasks that insert the same value one wins; the others get the error."""

    async def insert(_: int) -> str:
        async with engine.connect() as connection:
            try:
                await add(connection, "only")
                await asyncio.sleep(0)
                await connection.commit()
            except IntegrityError as error:
                return sqlstate(error)
            return "won"

    assert sorted(await gather_all(8, insert)) == ["23505"] * 7 + ["won"]


async def test_a_lock_of_rows_keeps_the_order(engine: AsyncEngine) -> None:
    """SELECT FOR UPDATE in a queue of tasks: reading and writing by turns."""
    async with engine.begin() as connection:
        await add(connection, "0")

    async def work(_: int) -> None:
        async with engine.begin() as connection:
            name = await value(connection, "SELECT name FROM author FOR UPDATE")
            await asyncio.sleep(0)
            await run(connection, "UPDATE author SET name = :name", name=str(int(name) + 1))

    await gather_all(6, work)

    assert await names(engine) == ["6"]


async def test_reads_beside_a_read_only_transaction(engine: AsyncEngine) -> None:
    """A long transaction that reads sees what others commit meanwhile."""
    counts: list[int] = []

    async def write(number: int) -> None:
        async with engine.begin() as connection:
            await add(connection, str(number))

    async with engine.connect() as reader:
        await reader.execution_options(postgresql_readonly=True)
        works: list[Awaitable[None]] = [write(number) for number in range(3)]
        for work in works:
            counts.append(await value(reader, "SELECT count(*) FROM author"))
            await work

    assert counts == [0, 1, 2]


async def test_writers_wait_for_each_other(engine: AsyncEngine) -> None:
    """Any number of tasks write at once, and all of it is there."""

    async def write(number: int) -> None:
        async with AsyncSession(engine) as session:
            await add(session, f"{number:02}")
            await asyncio.sleep(0)
            await session.commit()

    await asyncio.gather(*(write(number) for number in range(20)))

    assert sorted(await names(engine)) == [f"{number:02}" for number in range(20)]


async def test_readers_go_on_while_nobody_writes(engine: AsyncEngine) -> None:
    """Open transactions that only read hold nobody up."""
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(NAMES)
        await two.execute(NAMES)
        await add(two, "a")
        await two.commit()
        assert list((await one.execute(NAMES)).scalars()) == ["a"]
