"""The laws of migrations find what is wrong in a project, and say what to do."""

import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillroom.testing.migrations import TestMigrations as Laws
from tests.conftest import NewDatabase

OURS = """
import models
from stillroom.migrations import run_environment

run_environment(models.metadata, lambda: "postgresql://nobody:secret@database.invalid/production")
"""

ASYNCHRONOUS = """
import asyncio
from logging.config import fileConfig

import models
from alembic import context
from sqlalchemy.ext.asyncio import async_engine_from_config
from sqlalchemy.pool import NullPool

if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name)


def migrate(connection):
    context.configure(connection=connection, target_metadata=models.metadata)
    with context.begin_transaction():
        context.run_migrations()


async def main():
    section = context.config.get_section(context.config.config_ini_section)
    engine = async_engine_from_config(section, prefix="sqlalchemy.", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(main())
"""

SYNCHRONOUS = """
import models
from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

engine = create_engine("postgresql+psycopg://x@database.invalid/production", poolclass=NullPool)
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=[models.metadata],
        version_table="steps",
        include_object=lambda it, name, kind, reflected, other: name != "audit",
    )
    with context.begin_transaction():
        context.run_migrations()
"""

INI = """
[alembic]
script_location = migrations
prepend_sys_path = .
sqlalchemy.url = postgresql+asyncpg://nobody:secret@database.invalid/production

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
formatter = plain
[formatter_plain]
format = %(message)s
"""

MODELS = """
from sqlalchemy import Column, Enum, Integer, MetaData, Table

metadata = MetaData()
Table(
    "jars",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("mood", Enum("sad", "ok", name="mood")),
)
"""

ONE = """
from alembic import op
import sqlalchemy as sa

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("jars", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")


def downgrade():
    op.drop_table("jars")
    op.execute("DROP FUNCTION f()")
"""

TWO = """
from alembic import op
import sqlalchemy as sa

revision = "0002"
down_revision = "0001"
mood = sa.Enum("sad", "ok", name="mood")


def upgrade():
    mood.create(op.get_bind())
    op.add_column("jars", sa.Column("mood", mood))


def downgrade():
    op.drop_column("jars", "mood")
    mood.drop(op.get_bind())
"""


class Project:
    """A project that is written for a test."""

    def __init__(self, folder: Path, new_database: NewDatabase) -> None:
        """Write a project that keeps the laws."""
        self.folder = folder
        self._new_database = new_database
        self.laws = Laws()
        (folder / "migrations" / "versions").mkdir(parents=True)
        self.write("pyproject.toml", "[tool.alembic]\nscript_location = '%(here)s/migrations'\n")
        self.write("models.py", MODELS)
        self.write("migrations/env.py", OURS)
        self.write("migrations/script.py.mako", "")
        self.write("migrations/versions/0001_jars.py", ONE)
        self.write("migrations/versions/0002_mood.py", TWO)

    def write(self, name: str, content: str) -> None:
        """Write a file."""
        (self.folder / name).write_text(textwrap.dedent(content))

    def change(self, name: str, old: str, new: str) -> None:
        """Replace something in a file, which is there."""
        content = (self.folder / name).read_text()
        assert old in content
        self.write(name, content.replace(old, new))

    def one_head(self) -> None:
        """Test the law."""
        self.laws.test_the_revisions_have_one_head(self.folder)

    def up(self) -> None:
        """Test the law."""
        self.laws.test_the_revisions_lead_from_nothing_to_the_head(self.folder, self._new_database)

    def again(self) -> None:
        """Test the law."""
        self.laws.test_each_revision_can_be_taken_back_and_made_again(
            self.folder, self._new_database
        )

    def models(self) -> None:
        """Test the law."""
        self.laws.test_the_models_are_what_the_revisions_make(self.folder, self._new_database)

    def broken(self, law: Callable[[], None]) -> str:
        """Return what a law says that is broken."""
        with pytest.raises(AssertionError) as failure:
            law()
        return str(failure.value)


@pytest.fixture
def project(
    tmp_path: Path,
    new_database: NewDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Project]:
    """Write a project that keeps the laws, in a folder of the path."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield Project(tmp_path, new_database)
    sys.modules.pop("models", None)  # the next project has a module of the same name


@pytest.mark.parametrize("environment", [OURS, ASYNCHRONOUS, SYNCHRONOUS])
def test_any_environment_will_do(project: Project, environment: str) -> None:
    """Ours, an asynchronous and a synchronous one of Alembic's kind, never on the URL they name."""
    project.write("migrations/env.py", environment)
    if environment != OURS:
        (project.folder / "pyproject.toml").unlink()
        project.write("alembic.ini", INI)
    handlers, logger = list(logging.root.handlers), logging.getLogger("application")

    project.one_head()
    project.up()
    project.again()
    project.models()

    assert logging.root.handlers == handlers
    assert not logger.disabled


async def test_a_running_loop_is_no_trouble(project: Project) -> None:
    """Whoever tests in a loop may hold the laws there."""
    project.write("migrations/env.py", ASYNCHRONOUS)
    project.write("alembic.ini", INI)

    project.again()
    project.models()


def test_two_heads_are_named(project: Project) -> None:
    """With their files, and what merges them."""
    project.write("migrations/versions/0003.py", TWO.replace('"0002"', '"0003"'))

    said = project.broken(project.one_head)

    assert "2 heads: 0002 (0002_mood.py), 0003 (0003.py)" in said
    assert "alembic merge heads" in said


def test_a_project_without_a_revision_is_told(project: Project) -> None:
    """There is no head then."""
    for file in (project.folder / "migrations" / "versions").glob("*.py"):
        file.unlink()

    assert "alembic revision --autogenerate" in project.broken(project.one_head)


def test_branches_are_walked_and_merged(project: Project) -> None:
    """A revision of two parents is made after both, and taken back before them."""
    branch = TWO.replace('"0002"', '"0003"').replace("mood", "feeling")
    project.write("migrations/versions/0003.py", branch)
    project.write(
        "migrations/versions/0004.py",
        "revision = '0004'\ndown_revision = ('0002', '0003')\n"
        "def upgrade(): pass\ndef downgrade(): pass\n",
    )

    project.one_head()
    project.up()
    project.again()


def test_a_revision_that_cannot_be_made_is_named(project: Project) -> None:
    """With its file and the error of the database."""
    project.change("migrations/versions/0002_mood.py", '"jars", sa.Column', '"pots", sa.Column')

    said = project.broken(project.up)

    assert "the upgrade of 0002 (0002_mood.py) failed" in said
    assert 'relation "pots" does not exist' in said


def test_a_downgrade_that_fails_is_named(project: Project) -> None:
    """With its file, the error, and how to declare that there is no way back."""
    project.change("migrations/versions/0002_mood.py", '"jars", "mood"', '"jars", "size"')

    said = project.broken(project.again)

    assert "the downgrade of 0002 (0002_mood.py) failed" in said
    assert 'column "size" of relation "jars" does not exist' in said


def test_a_revision_may_be_declared_irreversible(project: Project) -> None:
    """It is not taken back then, nor are those before it; the others are, each by itself."""
    path = "migrations/versions/0002_mood.py"
    project.change(path, 'op.drop_column("jars", "mood")', 'raise NotImplementedError("data")')
    assert "NotImplementedError: data" in project.broken(project.again)

    class Declared(Laws):
        irreversible = frozenset({"0002"})

    project.laws = Declared()
    project.again()

    project.change("migrations/versions/0001_jars.py", 'op.drop_table("jars")', "pass")
    assert "0001_jars.py: downgrade() leaves behind" in project.broken(project.again)


def test_a_declaration_of_no_revision_is_refused(project: Project) -> None:
    """A name with an error in it would declare nothing."""

    class Declared(Laws):
        irreversible = frozenset({"0009"})

    project.laws = Declared()

    assert "names what is no revision: 0009" in project.broken(project.again)


@pytest.mark.parametrize(
    ("revision", "forgotten", "left"),
    [
        ("0002_mood.py", "mood.drop(op.get_bind())", "type mood"),
        ("0002_mood.py", 'op.drop_column("jars", "mood")', "jars.mood"),
        ("0001_jars.py", 'op.drop_table("jars")', "jars"),
        ("0001_jars.py", 'op.execute("DROP FUNCTION f()")', "function f()"),
    ],
)
def test_what_a_downgrade_leaves_behind_is_named(
    project: Project, revision: str, forgotten: str, left: str
) -> None:
    """The type of an enum is what is forgotten most: Alembic does not drop it with its column."""
    project.change(f"migrations/versions/{revision}", forgotten, "pass")
    if left == "jars.mood":
        project.change(f"migrations/versions/{revision}", "mood.drop(op.get_bind())", "pass")

    said = project.broken(project.again)

    assert said.startswith(f"{revision}: downgrade() leaves behind")
    assert f"  - {left}" in said.splitlines()


def test_what_is_made_again_has_to_be_the_same(project: Project) -> None:
    """A downgrade may change what was there before, and the upgrade not see it."""
    column = 'op.drop_column("jars", "mood")'
    project.change(
        "migrations/versions/0002_mood.py", column, f"{column}\n    op.execute('DROP FUNCTION f()')"
    )

    said = project.broken(project.again)

    assert "0002_mood.py: made again after downgrade(), it is another schema" in said
    assert "function f(): this function is missing now" in said


def test_drift_is_told_with_what_to_do(project: Project) -> None:
    """All differences in one message."""
    project.change("models.py", '"sad", "ok"', '"sad", "ok", "happy"')
    project.change(
        "models.py", "Integer, primary_key=True", "Integer, primary_key=True, comment='c'"
    )

    said = project.broken(project.models).splitlines()

    assert said[0] == "The models and the migrations differ:"
    assert said[1].startswith("  - jars.id: the models say 'c', the migrations no comment. Next: ")
    assert said[2].startswith("  - type mood: the models say ENUM ('sad', 'ok', 'happy')")


def test_what_may_drift_is_declared_here_or_in_the_environment(project: Project) -> None:
    """By a pattern, or by the include_object that Alembic knows."""
    table = 'op.execute("CREATE TABLE audit (id serial PRIMARY KEY)")'
    project.change(
        "migrations/versions/0001_jars.py", "def upgrade():", f"def upgrade():\n    {table}"
    )
    assert "audit: only the migrations make this table" in project.broken(project.models)

    class Declared(Laws):
        exclude = frozenset({"aud*"})

    project.laws = Declared()
    project.models()

    project.laws = Laws()
    project.write("migrations/env.py", SYNCHRONOUS)
    project.models()


def test_an_environment_without_models_is_told(project: Project) -> None:
    """Without target_metadata there is nothing to compare."""
    project.write("migrations/env.py", SYNCHRONOUS.replace("[models.metadata]", "None"))

    assert "target_metadata=Base.metadata" in project.broken(project.models)


ONE_LINE = "from stillroom.testing.migrations import TestMigrations as TestMigrations\n"

OWN_CLASS = """
from stillroom.testing import migrations


class TestMigrations(migrations.TestMigrations):
    irreversible = {"0002"}
"""


@pytest.mark.parametrize("module", [ONE_LINE, OWN_CLASS])
def test_one_line_is_four_tests(project: Project, module: str) -> None:
    """Pytest collects the class that is imported, or a class that is made of it, and not both."""
    project.write("pytest.ini", "[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    project.write("test_project.py", module)
    command = [sys.executable, "-m", "pytest", "-q", "-Werror", "-p", "no:cacheprovider"]
    arguments = ["--stillroom-max-repeats=1"]  # what the laws send is not the test's

    answer = subprocess.run(
        [*command, *arguments],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "4 passed" in answer.stdout, answer.stdout + answer.stderr
