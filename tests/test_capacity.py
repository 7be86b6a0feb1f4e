"""The pools of all workers fit into what PostgreSQL has, or nothing starts."""

import logging
import socket
from collections.abc import Iterator

import pytest

from stillroom.engine import EngineSettings
from stillroom.errors import ConfigurationError, LifecycleError
from stillroom.manager import DatabaseSessionManager
from stillroom.postgres import Cluster, temporary_cluster

ROOM = 34
"""What is left of max_connections: 3 are reserved, and 3 kept for a migration and psql."""


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[Cluster]:
    """Start a PostgreSQL of few connections."""
    with temporary_cluster(settings={"max_connections": str(ROOM + 6)}) as cluster:
        yield cluster


@pytest.fixture(params=["asyncpg", "psycopg"])
def small_url(request: pytest.FixtureRequest, small_cluster: Cluster) -> str:
    """Give its URL, for each driver."""
    url = small_cluster.url("postgres")
    return url.replace("postgresql://", f"postgresql+{request.param}://")


@pytest.fixture
def manager() -> DatabaseSessionManager:
    """Give a manager that is not open."""
    return DatabaseSessionManager()


@pytest.mark.parametrize(("workers", "size"), [(1, 10), (2, 8), (5, 3), (17, 1)])
async def test_the_pools_of_all_workers_fit(
    manager: DatabaseSessionManager,
    small_url: str,
    caplog: pytest.LogCaptureFixture,
    workers: int,
    size: int,
) -> None:
    """Two pools a worker, as big as ever where there is room; less is noted."""
    caplog.set_level(logging.INFO)
    manager.init(small_url)
    await manager.share(workers)
    assert manager.settings.pool_size == size
    assert workers * 2 * size <= ROOM
    assert (f"of {size} instead of 10 connections" in caplog.text) == (size < 10)
    async with manager.engine.connect() as connection:
        assert f"size: {size} " in connection.engine.pool.status()
    await manager.close()


async def test_more_workers_than_connections_are_refused(
    manager: DatabaseSessionManager, small_url: str
) -> None:
    """With the numbers, and what to do."""
    manager.init(small_url)
    with pytest.raises(ConfigurationError) as refused:
        await manager.share(18)
    assert str(refused.value).startswith("18 workers x 2 pools x 1 connections are more than")
    assert str(refused.value).endswith(
        "max_connections is 40, of which 3 are reserved and 3 kept for a migration and psql. "
        "Start fewer --workers, or raise max_connections."
    )
    await manager.close()


async def test_a_size_that_was_chosen_is_kept_or_refused(
    manager: DatabaseSessionManager, small_url: str
) -> None:
    """Nobody's decision is changed behind their back; above and below ten."""
    manager.init(small_url, settings=EngineSettings(pool_size=17))
    await manager.share(1)
    assert manager.settings.pool_size == 17
    with pytest.raises(ConfigurationError, match=r"2 workers x 2 pools x 17 .* Set pool_size to 8"):
        await manager.share(2)
    await manager.close()


async def test_a_replica_has_room_of_its_own(
    manager: DatabaseSessionManager, small_url: str, database_url: str
) -> None:
    """Each server has to hold the pools that lead to it: one of each worker here."""
    manager.init(database_url, read_url=small_url)
    await manager.share(5)
    assert manager.settings.pool_size == 34 // 5
    await manager.close()


async def test_a_database_that_is_away_fits_nothing(
    manager: DatabaseSessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """The application starts all the same, with pools as big as ever, and that is logged."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        manager.init(f"postgresql://nobody:secret@127.0.0.1:{bound.getsockname()[1]}/nowhere")
        await manager.share(50)
    assert manager.settings.pool_size is None
    assert "The pools were not compared with what PostgreSQL has" in caplog.text
    assert "secret" not in caplog.text
    await manager.close()


async def test_pools_that_are_there_are_not_fitted(
    manager: DatabaseSessionManager, small_url: str
) -> None:
    """It has to come first: a pool does not shrink."""
    manager.init(small_url)
    async with manager.session():
        with pytest.raises(LifecycleError, match="before"):
            await manager.share(2)
    await manager.close()
    with pytest.raises(LifecycleError, match="was closed"):
        await manager.share(2)
