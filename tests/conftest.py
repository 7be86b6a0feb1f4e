"""A PostgreSQL for the run, and databases on it."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Never

import pytest

from stillroom.postgres import Cluster, temporary_cluster
from tests.projects import APPLICATION, MODELS, Project

DRIVERS = ["asyncpg", "psycopg"]

NewDatabase = Callable[[], str]
"""Create an empty database and return its URL."""


@pytest.fixture(scope="session", autouse=True)
def no_database_of_the_environment() -> Iterator[None]:
    """Forget what the environment says of a database: a test never touches that one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DB_", "PG"))]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Start a private PostgreSQL that goes with the run."""
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def older_cluster() -> Iterator[Cluster]:
    """Start the oldest PostgreSQL of the machine, if it has one beside the wheel's."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda it: int(it.parent.name))
    if not folders:
        require_debian("an older PostgreSQL", "postgresql")
    with temporary_cluster(bin_folder=folders[0]) as cluster:
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


def require_debian(what: str, package: str) -> Never:
    """Skip, with the line that installs what is missing; fail where all of it has to be there."""
    require(what, f"apt-get install {package}")


def require(what: str, command: str) -> Never:
    """Do so with any command that gets what is missing."""
    message = f"needs {what}: {command}"
    if os.environ.get("STILLROOM_REQUIRE_DEBIAN"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def database_url(new_database: NewDatabase) -> str:
    """Give the URL of an empty database of the test's own."""
    return new_database()


@pytest.fixture(params=DRIVERS)
def driver_url(request: pytest.FixtureRequest, database_url: str) -> str:
    """Give the URL of an empty database, for each driver in turn."""
    return database_url.replace("postgresql://", f"postgresql+{request.param}://")


@pytest.fixture
def project(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Give a project with a model and an application; all share what the plugin keeps."""
    project = Project(tmp_path, tmp_path_factory.getbasetemp() / "cache")
    project.set()
    project.write(models=MODELS, application=APPLICATION)
    return project
