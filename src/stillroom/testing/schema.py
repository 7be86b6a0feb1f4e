"""The tables of a project, made in an empty database."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

from sqlalchemy import MetaData

from stillroom.engine import EngineSettings, create_engine
from stillroom.errors import ConfigurationError
from stillroom.migrations import upgrade
from stillroom.url import parse_url


def migrate(folder: Path, url: str) -> None:
    """Run the project's revisions, whatever URL its env.py names."""
    with ThreadPoolExecutor(1) as executor:  # an event loop may run in this thread
        executor.submit(lambda: asyncio.run(upgrade(folder, url=url))).result()


def create_tables(metadata: str, url: str) -> None:
    """Create all tables of a metadata that is named as in app.models:Base.metadata.

    Raises ConfigurationError when there is none under that name.
    """
    found = _find(metadata)
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lambda: asyncio.run(_create(found, url))).result()


def _find(name: str) -> MetaData:
    module, _, path = name.partition(":")
    found: object = import_module(module)
    for attribute in path.split("."):
        found = getattr(found, attribute, None)
    if not isinstance(found, MetaData):
        msg = (
            f"stillroom_metadata is {name!r}, which is no MetaData of SQLAlchemy. Name a module "
            "and what is in it, as in app.models:Base.metadata"
        )
        raise ConfigurationError(msg)
    return found


async def _create(metadata: MetaData, url: str) -> None:
    engine = create_engine(parse_url(url), EngineSettings(statement_timeout=0))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
