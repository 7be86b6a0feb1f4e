"""Databases that are made while a test runs, empty or as copies."""

from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import make_url

from stillroom.postgres import Cluster
from tests.conftest import NewDatabase


@pytest.fixture(scope="session")
def new_database_or_copy(cluster: Cluster, new_database: NewDatabase) -> Callable[..., str]:
    """Give a function that creates an empty database, or a copy of one whose URL it is given."""

    def create(template: str | None = None) -> str:
        url = new_database()
        if template is not None:
            name, copied = make_url(url).database, make_url(template).database
            with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
                connection.execute(f'DROP DATABASE "{name}"'.encode())
                connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{copied}"'.encode())
        return url

    return create
