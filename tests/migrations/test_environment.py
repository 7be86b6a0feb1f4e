"""Alembic in code: by the command, and from a running event loop."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from stillroom.errors import ConfigurationError
from stillroom.migrations import upgrade
from stillroom.postgres import Cluster

MODELS = """
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from stillroom.model import Model

class Base(Model, DeclarativeBase):
    pass

class Jar(Base):
    __tablename__ = "jars"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)
"""

ENVIRONMENT = """
import os
from models import Base
from stillroom.migrations import run_environment

run_environment(Base.metadata, lambda: os.environ["DB_CONFIG"])
"""

TEMPLATE = """
from alembic import op
import sqlalchemy as sa
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
def upgrade():
    ${upgrades if upgrades else "pass"}
def downgrade():
    ${downgrades if downgrades else "pass"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a project with one model and no revision."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    files = {
        "pyproject.toml": """
            [tool.alembic]
            script_location = "%(here)s/migrations"
            prepend_sys_path = ["."]
        """,
        "models.py": MODELS,
        "migrations/env.py": ENVIRONMENT,
        "migrations/script.py.mako": TEMPLATE,
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(content))
    (tmp_path / "migrations" / "versions").mkdir()
    yield tmp_path
    sys.modules.pop("models", None)  # the next project has a module of the same name


def alembic(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `alembic` command in the project's folder."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=folder,
        env={**os.environ, "DB_CONFIG": url},
        capture_output=True,
        text=True,
        check=False,
    )


def tables(url: str) -> set[str]:
    """Read the names of the tables."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    return {name for (name,) in rows}


def test_the_command_does_what_it_does_everywhere(folder: Path, database_url: str) -> None:
    """Revision --autogenerate, upgrade, check, downgrade and --sql work in the folder."""
    made = alembic(folder, database_url, "revision", "--autogenerate", "-m", "Add jars")
    assert made.returncode == 0, made.stderr
    (revision,) = (folder / "migrations" / "versions").glob("*_add_jars.py")
    assert "op.f('uq_jars_name')" in revision.read_text()

    assert alembic(folder, database_url, "check").returncode != 0
    upgraded = alembic(folder, database_url, "upgrade", "head")
    assert "Running upgrade  -> " in upgraded.stderr
    assert alembic(folder, database_url, "check").returncode == 0
    assert tables(database_url) == {"jars", "alembic_version"}
    assert alembic(folder, database_url, "downgrade", "base").returncode == 0
    assert tables(database_url) == {"alembic_version"}


def test_tables_of_another_schema_do_not_drift(folder: Path, database_url: str) -> None:
    """What a revision made in a schema is found there again, and other schemas are let be."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA pantry")
        connection.execute("CREATE SCHEMA foreign_to_us")
        connection.execute("CREATE TABLE foreign_to_us.jars (id int)")
    models = folder / "models.py"
    models.write_text(models.read_text() + '\n    __table_args__ = {"schema": "pantry"}\n')

    for arguments in (["revision", "--autogenerate", "-m", "x"], ["upgrade", "head"], ["check"]):
        answer = alembic(folder, database_url, *arguments)
        assert answer.returncode == 0, answer.stdout + answer.stderr


def test_offline_sql_needs_no_database_and_sets_the_lock_timeout(folder: Path) -> None:
    """`--sql` prints a script that somebody else may run; no URL is asked for."""
    (folder / "migrations" / "versions" / "one.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        "revision = '1'\ndown_revision = None\n"
        "def upgrade(): "
        "op.create_table('offline', sa.Column('rate', sa.Text, server_default='100%'))\n"
    )

    answer = alembic(folder, "no url at all", "upgrade", "head", "--sql")

    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("SET lock_timeout = '5s';")
    assert "DEFAULT '100%'" in answer.stdout


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://user:secret@127.0.0.1:1/nowhere", "FAILED: No connection to PostgreSQL"),
        ("mysql://user:secret@host/name", "FAILED: The database URL starts with mysql://"),
    ],
)
def test_a_database_that_cannot_be_used_is_a_sentence(folder: Path, url: str, message: str) -> None:
    """The command says what is wrong, without a stack and without the password."""
    answer = alembic(folder, url, "upgrade", "head")

    assert answer.returncode != 0
    assert message in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    assert "secret" not in answer.stdout + answer.stderr


async def test_upgrade_from_a_running_loop(
    folder: Path, driver_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes on meanwhile; the given URL stands in for the environment's."""
    monkeypatch.setenv("DB_CONFIG", "postgresql://user@127.0.0.1:1/nowhere")
    write_revision(folder, "CREATE TABLE jars (id int); SELECT pg_sleep(0.3)")
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counting = asyncio.create_task(count_turns())
    await upgrade(folder, url=driver_url)
    counting.cancel()

    assert tables(database_url) == {"jars", "alembic_version"}
    assert turns > 10


async def test_alembics_own_commands_work_in_a_running_loop(
    folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is called in a running loop blocks it, and works."""
    monkeypatch.setenv("DB_CONFIG", database_url)
    write_revision(folder, "CREATE TABLE jars (id int)")

    command.upgrade(Config(toml_file=folder / "pyproject.toml"), "head")

    assert "jars" in await asyncio.to_thread(tables, database_url)


async def test_a_revision_that_fails_leaves_nothing(folder: Path, database_url: str) -> None:
    """Each revision is a transaction: all of it or nothing."""
    write_revision(folder, "CREATE TABLE half (id int); SELECT 1 / 0")

    with pytest.raises(Exception, match="division by zero"):
        await upgrade(folder, url=database_url)

    assert "half" not in await asyncio.to_thread(tables, database_url)


async def test_a_migration_waits_for_a_lock_only_so_long(
    folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a long lock it fails, instead of making every query of the table wait behind it."""
    monkeypatch.setattr("stillroom.migrations.environment.LOCK_TIMEOUT", 0.2)
    write_revision(folder, "ALTER TABLE busy ADD COLUMN size int")
    with psycopg.connect(database_url) as other:
        other.execute("CREATE TABLE busy (id int)")
        other.commit()
        other.execute("LOCK TABLE busy")

        with pytest.raises(Exception, match="lock timeout"):
            await upgrade(folder, url=database_url)


async def test_a_percent_sign_in_a_password_is_no_trouble(
    folder: Path, cluster: Cluster, database_url: str
) -> None:
    """The URL goes through no ini file, where a "%" would have to be doubled."""
    write_revision(folder, "CREATE TABLE jars (id int)")

    await upgrade(folder, url=database_url.replace("@/", ":p%25ss%40word@/"))

    assert "jars" in await asyncio.to_thread(tables, database_url)


async def test_an_alembic_ini_will_do(folder: Path, database_url: str) -> None:
    """Paths in it count from its folder, wherever the process stands."""
    (folder / "pyproject.toml").unlink()
    (folder / "alembic.ini").write_text(
        "[alembic]\nscript_location = migrations\nprepend_sys_path = .\n"
    )
    write_revision(folder, "CREATE TABLE jars (id int)")

    await upgrade(folder, url=database_url)

    assert "jars" in await asyncio.to_thread(tables, database_url)


async def test_a_folder_without_migrations_is_refused(tmp_path: Path) -> None:
    """The message names the file and what is missing in it."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")

    with pytest.raises(ConfigurationError, match="no script_location"):
        await upgrade(tmp_path)


def write_revision(folder: Path, statements: str) -> None:
    """Write a revision of a few statements."""
    calls = "\n".join(f"    op.execute({part!r})" for part in statements.split("; "))
    (folder / "migrations" / "versions" / "one.py").write_text(
        f"from alembic import op\nrevision = '1'\ndown_revision = None\ndef upgrade():\n{calls}\n"
    )
