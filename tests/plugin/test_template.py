"""The database that those of the tests are copies of, and what the next run has of it."""

import shutil
from pathlib import Path

import pytest

from stillroom.postgres import Cluster
from tests.projects import MODELS, Project

WHEN_BUILT = """
from pathlib import Path

import pytest
from application import app
from models import engine
from sqlalchemy import text


@pytest.mark.asyncio
async def test_when_it_was_built():
    async with engine.connect() as connection:
        built = (await connection.execute(text("SELECT at FROM built"))).scalar()
        version = (await connection.execute(text("SHOW server_version"))).scalar()
    Path("built").write_text(f"{built} {version}")


def test_another(client):
    assert client.get("/users").json() == []
"""

NOTING = """
from sqlalchemy import DDL, event

BUILT = "CREATE TABLE IF NOT EXISTS built AS SELECT clock_timestamp() AS at"
event.listen(Base.metadata, "after_create", DDL(BUILT))
"""

COLUMN = "    name: Mapped[str | None] = mapped_column()\n"

ALEMBIC = """
[tool.alembic]
script_location = "%(here)s/migrations"
"""

ENVIRONMENT = """
from models import Base
from stillroom.migrations import run_environment

run_environment(Base.metadata, lambda: "postgresql://production@database.invalid/production")
"""

FIRST = """
from alembic import op
from names import EMAIL

revision = "1"
down_revision = None


def upgrade():
    op.execute(f"CREATE TABLE users (id serial PRIMARY KEY, {EMAIL} text UNIQUE)")
    op.execute("CREATE TABLE built AS SELECT clock_timestamp() AS at")
"""

SECOND = """
from alembic import op

revision = "2"
down_revision = "1"


def upgrade():
    op.execute("ALTER TABLE users ADD name text")
"""

BROKEN = SECOND.replace("ALTER TABLE users ADD", "ALTER TABLE missing ADD")


@pytest.fixture
def fresh(project: Project) -> Project:
    """Give a project with a cache of its own, whose tests say when the tables were built."""
    project.write(test_built=WHEN_BUILT)
    return Project(project.folder, project.folder / "cache")


def test_revisions_run_once(fresh: Project) -> None:
    """The second run has what the first has built; what a revision imports is a part of it.

    One that fails is told to each test, is not kept, and leaves what was.
    """
    fresh.set()
    ini = fresh.folder / "pytest.ini"
    ini.write_text(ini.read_text().replace("stillroom_metadata = models:Base.metadata\n", ""))
    (fresh.folder / "pyproject.toml").write_text(ALEMBIC)
    fresh.write(
        migrations__env=ENVIRONMENT, migrations__versions__1=FIRST, names="EMAIL = 'email'\n"
    )
    first = _built(fresh)
    assert _built(fresh) == first

    fresh.write(migrations__versions__2=BROKEN)
    outcome = fresh.run()
    assert outcome.counts == "2 failed", outcome.output
    assert outcome.output.count("The tables for the tests could not be made") >= 2
    assert 'relation "missing" does not exist' in outcome.output

    fresh.write(migrations__versions__2=SECOND)
    second = _built(fresh)
    assert second != first

    fresh.write(names="EMAIL = 'email'  # and more\n")
    assert _built(fresh) != second


def test_tables_of_a_metadata_are_made_once(fresh: Project) -> None:
    """They are built anew when a model changes, and when the cache is gone."""
    fresh.write(models=MODELS + NOTING)
    first = _built(fresh)
    assert _built(fresh) == first

    model, _, rest = MODELS.partition("\n\n# It leads")
    fresh.write(models=f"{model}{COLUMN}\n\n# It leads{rest}{NOTING}")
    second = _built(fresh)
    assert second != first

    shutil.rmtree(fresh.cache)
    assert _built(fresh) != second


def test_nothing_need_be_kept(fresh: Project) -> None:
    """Where the folder of the cache cannot be made each run builds what it needs."""
    fresh.write(models=MODELS + NOTING)
    fresh.cache.write_text("a file")

    assert _built(fresh) != _built(fresh)


@pytest.mark.full
def test_each_postgresql_has_its_own(fresh: Project, older_cluster: Cluster) -> None:
    """A run on an older version neither uses nor takes away what the other one has."""
    older = {"STILLROOM_POSTGRES_BIN": str(Path(older_cluster.psql_command("")[0]).parent)}
    fresh.write(models=MODELS + NOTING)
    newer_one = _built(fresh)
    older_one = _built(fresh, **older)

    assert newer_one.split()[-1] != older_one.split()[-1]
    assert _built(fresh) == newer_one


def _built(project: Project, **variables: str) -> str:
    """Run the tests, and return when their tables were built, and on which PostgreSQL."""
    outcome = project.run(**variables)
    assert outcome.counts == "2 passed", outcome.output
    return (project.folder / "built").read_text()
