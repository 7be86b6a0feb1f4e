"""The tables of a project, made by its Alembic revisions."""

import asyncio
from pathlib import Path

from stillroom.errors import ConfigurationError
from stillroom.migrations import script_location, upgrade
from stillroom.testing.apart import apart
from stillroom.testing.databases.sources import digest, imported


class Revisions:
    """The project's Alembic revisions, whatever URL its env.py names."""

    def __init__(self, folder: Path) -> None:
        """Take the folder that has the configuration of Alembic."""
        self._folder = folder

    def digest(self) -> str:
        """Name the revisions, and the modules of the project that they import.

        Raises ConfigurationError when there are none.
        """
        try:
            location = script_location(self._folder)
        except ConfigurationError as error:
            msg = (
                f"{error} Where the tables of a project without migrations come from says the "
                "setting stillroom_metadata, as in app.models:Base.metadata"
            )
            raise ConfigurationError(msg) from error
        revisions = [path for path in location.rglob("*") if path.is_file()]
        texts = [path for path in revisions if path.suffix != ".pyc"]
        modules = imported(path for path in texts if path.name != "env.py")
        return digest([*texts, *modules])

    def build(self, url: str) -> None:
        """Upgrade to head."""
        apart(url, lambda: asyncio.run(upgrade(self._folder, url=url)))
