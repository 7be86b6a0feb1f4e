"""A PostgreSQL for the run, and databases on it."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from stillroom.cluster import Cluster, temporary_cluster

DRIVERS = ["asyncpg", "psycopg"]

NewDatabase = Callable[[], str]
"""Create an empty database and return its URL."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Start a private PostgreSQL that goes with the run."""
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def new_database(cluster: Cluster) -> NewDatabase:
    """Give a function that creates an empty database and returns its URL."""
    numbers = count(1)

    def create() -> str:
        name = f"test_{next(numbers)}"
        cluster.create_database(name)
        return cluster.url(name)

    return create


@pytest.fixture
def database_url(new_database: NewDatabase) -> str:
    """Give the URL of an empty database of the test's own."""
    return new_database()


@pytest.fixture(params=DRIVERS)
def driver_url(request: pytest.FixtureRequest, database_url: str) -> str:
    """Give the URL of an empty database, for each driver in turn."""
    return database_url.replace("postgresql://", f"postgresql+{request.param}://")
