"""The revisions of a project: upgraded from a running loop, or run one at a time."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import MetaData, Table

from stillroom.errors import ConfigurationError, StillroomError
from stillroom.migrations.catalogue import Catalogue

Direction = Literal["upgrade", "downgrade"]


async def upgrade(folder: Path, revision: str = "head", *, url: str | None = None) -> None:
    """Upgrade to a revision while the event loop goes on.

    `folder` holds the pyproject.toml with [tool.alembic], or the alembic.ini; `url`, if given,
    stands in for the one of an env.py that calls run_environment. Raises ConfigurationError where
    there is no such configuration, and what Alembic and the database raise.
    """
    await asyncio.to_thread(_upgrade, folder, revision, url)


def script_location(folder: Path) -> Path:
    """Return where the revisions of a project are. Raises ConfigurationError as `upgrade` does."""
    return Path(str(_configuration(folder).get_alembic_option("script_location")))


class RevisionError(StillroomError):
    """Report which revision failed, in which direction, and with what."""

    def __init__(self, revision: str, direction: Direction, file: str, error: Exception) -> None:
        """Name the revision; the error is the message's end."""
        said = str(error).partition("\n")[0]
        super().__init__(
            f"the {direction} of {revision} ({file}) failed with {type(error).__name__}: {said}"
        )
        self.revision = revision
        self.direction = direction


@dataclass(frozen=True)
class Settings:
    """Hold what an env.py gives to Alembic's context.configure."""

    metadata: list[MetaData]
    version_table: str
    include_name: Callable[..., bool]
    include_object: Callable[..., bool]

    def left_out(self, catalogue: Catalogue) -> set[str]:
        """Return the tables that Alembic is told to let be, each as ``schema.table``."""
        ours = {
            (it.schema or catalogue.default_schema, it.name): it
            for metadata in self.metadata
            for it in metadata.tables.values()
        }
        theirs = {it.relation for it in catalogue.things if it.kind == "table"}
        return {
            f"{schema}.{name}"
            for schema, name in ours.keys() | theirs
            if not self._is_included(schema, name, ours.get((schema, name)), catalogue)
        }

    def _is_included(
        self, schema: str, name: str, table: Table | None, catalogue: Catalogue
    ) -> bool:
        shown = None if schema == catalogue.default_schema else schema
        if table is not None:
            return self.include_object(table, name, "table", False, None)
        parents = {
            "schema_name": shown,
            "schema_qualified_table_name": name if shown is None else f"{shown}.{name}",
        }
        reflected = Table(name, MetaData(), schema=shown)
        return self.include_name(name, "table", parents) and self.include_object(
            reflected, name, "table", True, None
        )


class Revisions:
    """Run the revisions of a project, by its own env.py, in the steps that are asked for.

    An env.py that calls run_environment connects to the URL that is given here; any other to what
    it names, so whoever runs it must see to where its engines connect. Nothing here may be called
    while an event loop runs in the thread: an env.py may call asyncio.run.
    """

    def __init__(self, folder: Path) -> None:
        """Read the revisions. Raises ConfigurationError, and what Alembic raises."""
        self._configuration = _configuration(folder)
        self._scripts = ScriptDirectory.from_config(self._configuration)

    @property
    def heads(self) -> list[str]:
        """Return the revisions that no other follows."""
        return sorted(self._scripts.get_heads())

    @property
    def names(self) -> list[str]:
        """Return all revisions, each after those that it stands on."""
        return [script.revision for script in self._scripts.walk_revisions()][::-1]

    def upgrade(self, url: str, names: Iterable[str]) -> None:
        """Upgrade by these revisions, one after the other. Raises RevisionError."""
        self._run(url, names, "upgrade")

    def downgrade(self, url: str, names: Iterable[str]) -> None:
        """Take these revisions back, one after the other. Raises RevisionError."""
        self._run(url, names, "downgrade")

    def file(self, name: str) -> str:
        """Return the name of a revision's file."""
        return Path(self._script(name).path).name

    def settings(self, url: str) -> Settings:
        """Run the env.py without any revision, and return what it configures."""
        found: dict[str, Any] = {}

        def look(_heads: object, context: Any) -> list[Any]:
            found.update(context.opts)
            found.update(version_table=context.version_table)
            return []

        self._run_environment(url, look)
        metadata = found.get("target_metadata")
        return Settings(
            [metadata] if isinstance(metadata, MetaData) else list(metadata or ()),
            found["version_table"],
            found.get("include_name") or _any,
            found.get("include_object") or _any,
        )

    def _run(self, url: str, names: Iterable[str], direction: Direction) -> None:
        running: Script | None = None

        def steps(_heads: object, _context: object) -> Iterator[MigrationStep]:
            nonlocal running
            make = getattr(MigrationStep, f"{direction}_from_script")
            for name in names:
                running = self._script(name)
                yield make(self._scripts.revision_map, running)
            running = None

        try:
            self._run_environment(url, steps)
        except Exception as error:
            if running is None:
                raise
            name = running.revision
            raise RevisionError(name, direction, self.file(name), error) from error

    def _run_environment(self, url: str, steps: Callable[..., Iterable[Any]]) -> None:
        self._configuration.attributes["url"] = url
        # What Alembic's commands do, but for the choice of the steps.
        with _one_at_a_time, EnvironmentContext(self._configuration, self._scripts, fn=steps):
            self._scripts.run_env()

    def _script(self, name: str) -> Script:
        return self._scripts.get_revision(name)


def _upgrade(folder: Path, revision: str, url: str | None) -> None:
    configuration = _configuration(folder)
    configuration.attributes["url"] = url
    with _one_at_a_time:
        command.upgrade(configuration, revision)


def _configuration(folder: Path) -> Config:
    ini, settings = folder / "alembic.ini", folder / "pyproject.toml"
    configuration = Config(ini if ini.is_file() else None, toml_file=settings)
    location = configuration.get_alembic_option("script_location")
    if location is None:
        where = f"{ini} has no script_location, and" if ini.is_file() else f"There is no {ini}, and"
        msg = (
            f"{where} {settings} has no script_location in [tool.alembic]; name the migrations' "
            "folder in one of them."
        )
        raise ConfigurationError(msg)
    # The command is typed in the folder, which relative paths count from; here one may be anywhere.
    if ":" not in location:
        _set(configuration, "script_location", str(folder.absolute() / location))
    if configuration.get_main_option("prepend_sys_path") == ".":
        configuration.remove_main_option("prepend_sys_path")
        if str(folder.absolute()) not in sys.path:
            sys.path.insert(0, str(folder.absolute()))
    return configuration


def _set(configuration: Config, name: str, value: str) -> None:
    configuration.set_main_option(name, value.replace("%", "%%"))


def _any(*_: object) -> bool:
    return True


# Alembic keeps the environment of the running command in a global of its module.
_one_at_a_time = Lock()
