"""The databases of runs that share a server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import make_url

from stillroom.postgres import Cluster
from stillroom.testing.databases import Databases
from stillroom.testing.databases.server import GivenServer

NewRun = Callable[[], Databases]

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
async def new_run(cluster: Cluster) -> AsyncIterator[NewRun]:
    """Give a function that begins a run on one server; all end with the test."""
    runs: list[Databases] = []

    def begin() -> Databases:
        runs.append(Databases(GivenServer(cluster.url("postgres"), "a test")))
        return runs[-1]

    yield begin
    for run in runs:
        await run.close()


async def exists(run: Databases, name: str) -> bool:
    """Say whether the server has a database."""
    found: int = await run.value("SELECT count(*) FROM pg_database WHERE datname = $1", name)
    return found == 1


async def comes_true(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(15):
        while not await condition():  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0.01)


async def test_two_runs_never_meet(new_run: NewRun) -> None:
    """Neither the beginning nor the end of a run touches the databases of one that lives."""
    first, second = new_run(), new_run()
    name = await first.create()

    other = await second.create()
    assert other != name
    await second.close()

    assert await exists(first, name)
    assert not await exists(first, other)


async def test_the_databases_of_a_killed_run_are_dropped(new_run: NewRun) -> None:
    """The next run that begins does it, once the server has noticed the end."""
    killed, watching = new_run(), new_run()
    name = await killed.create()
    pid = await killed.value("SELECT pg_backend_pid()")
    assert await exists(watching, name)

    async def is_gone() -> bool:
        sql = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1"
        return bool(await watching.value(sql, pid))

    killed._connection.terminate()
    killed._connection = None
    await comes_true(is_gone)

    assert await exists(watching, name)
    assert not await exists(new_run(), name)


async def test_a_database_that_is_left_outlives_all_runs(new_run: NewRun) -> None:
    """Somebody wants to look at it: only who knows its name drops it."""
    first, later = new_run(), new_run()
    name = await first.create()
    await first.leave(name)
    await first.close()

    assert await exists(later, name)
    await later.drop(name)


async def test_a_template_is_built_by_one_run_alone(new_run: NewRun) -> None:
    """Another run that needs the same one waits, and then takes it as it is."""
    first, second, watching = new_run(), new_run(), new_run()
    name = "stillroom_template_of_a_test"
    assert await first.begin_template(name)
    waiting = asyncio.create_task(second.begin_template(name))

    async def has_come() -> bool:
        return waiting.done() or bool(await watching.value(WAITING))

    await comes_true(has_come)
    assert not waiting.done()
    await first.end_template(name, is_whole=True)
    assert await waiting is False

    await first.execute(f"ALTER DATABASE {name} IS_TEMPLATE false")
    await first.drop(name)


async def test_a_role_uses_no_template_of_another(new_run: NewRun, cluster: Cluster) -> None:
    """The tables in a copy would be the other's, and it may not read them."""
    first = new_run()
    await first.execute("CREATE ROLE another LOGIN CREATEDB")
    url = make_url(cluster.url("postgres")).set(username="another")
    other = Databases(GivenServer(url.render_as_string(), "a test"))

    names = [await run.template_name("digest") for run in (first, new_run(), other)]

    assert names[0] == names[1] != names[2]
    await other.close()
    await first.execute("DROP ROLE another")


async def test_a_template_that_was_not_finished_is_built_anew(new_run: NewRun) -> None:
    """What a run has begun that was killed counts as nothing."""
    first, second = new_run(), new_run()
    name = "stillroom_template_of_another_test"
    assert await first.begin_template(name)
    first._connection.terminate()
    first._connection = None

    assert await second.begin_template(name)

    await second.end_template(name, is_whole=False)
    assert not await exists(second, name)


async def test_templates_that_nobody_has_used_for_long_are_dropped(new_run: NewRun) -> None:
    """Each change of a schema makes a template; on a server that is not the run's own they stay."""
    run = new_run()
    names = [await run.template_name(digest) for digest in ("old", "used", "new")]
    for name in names[:2]:
        assert await run.begin_template(name)
        await run.end_template(name, is_whole=True)
        await run.execute(f"COMMENT ON DATABASE {name} IS 'last used by tests on 2020-01-31'")

    assert not await new_run().begin_template(names[1])
    assert await run.begin_template(names[2])
    await run.end_template(names[2], is_whole=True)

    assert [await exists(run, name) for name in names] == [False, True, True]
    for name in names[1:]:
        await run.execute(f"ALTER DATABASE {name} IS_TEMPLATE false")
        await run.drop(name)
