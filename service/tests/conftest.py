"""A private PostgreSQL for the run, migrated as in production, with empty tables for each test."""

import asyncio
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from stillroom.migrations import upgrade
from stillroom.postgres import Cluster, temporary_cluster

SERVICE = Path(__file__).parents[1]

NewDatabase = Callable[[], str]
"""Create an empty database, without any table, and return its URL."""


@pytest.fixture(scope="session", autouse=True)
def no_database_of_the_environment() -> Iterator[None]:
    """Forget what the environment says of a database: a test never touches that one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DB_", "PG"))]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Start a PostgreSQL that goes with the run."""
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


@pytest.fixture(scope="session")
def migrated_url(new_database: NewDatabase) -> str:
    """Give the URL of a database that the service's revisions have brought to head."""
    url = new_database()
    asyncio.run(upgrade(SERVICE, url=url))
    return url


@pytest.fixture(scope="session")
def connection(migrated_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Look into the database beside the application; every statement is a transaction."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def database(migrated_url: str, connection: psycopg.Connection[Any]) -> str:
    """Give the URL of the migrated database, with empty tables."""
    connection.execute("TRUNCATE users")
    return migrated_url
