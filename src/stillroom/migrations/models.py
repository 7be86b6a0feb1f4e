"""A database that is made by the models alone."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from sqlalchemy import Enum, MetaData
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from stillroom.engine import EngineSettings, create_engine
from stillroom.errors import StillroomError
from stillroom.migrations.catalogue import Catalogue, quote, run
from stillroom.url import parse_url

NewDatabase = Callable[[], str]
"""Make a database and return its URL."""

Connect = Callable[[str], AbstractAsyncContextManager[AsyncConnection]]
"""Open a connection in a transaction, which is committed at the end."""


class ModelsError(StillroomError):
    """Report that the models' tables cannot be created."""


@asynccontextmanager
async def connect(url: str) -> AsyncGenerator[AsyncConnection]:
    """Open a connection in a transaction, which is committed at the end."""
    settings = EngineSettings(statement_timeout=0)
    engine = create_engine(parse_url(url), settings, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def create_models(
    metadatas: list[MetaData],
    catalogue: Catalogue,
    migrated: NewDatabase,
    empty: NewDatabase,
    connect: Connect,
) -> str:
    """Create what the models say in a database of its own, and return its URL.

    Raises ModelsError where that cannot be done.
    """
    # An empty database is the truest. Models may need what a revision makes: a schema or an
    # extension, or else a function in a default or a CHECK, or a type that they do not create: a
    # migrated database has them, when all is gone from it that models create.
    errors: list[SQLAlchemyError] = []
    removal = _removal(catalogue, _created_types(metadatas))
    for new_database, preparation in (
        (empty, []),
        (empty, _context(catalogue)),
        (migrated, removal),
    ):
        models_url = new_database()
        try:
            async with connect(models_url) as connection:
                for statement in preparation:
                    await run(connection, statement)
                for metadata in metadatas:
                    await connection.run_sync(metadata.create_all)
        except SQLAlchemyError as error:
            errors.append(error)
        else:
            return models_url
    said = "; ".join(dict.fromkeys(str(error).partition("\n")[0] for error in errors))
    msg = (
        "The models cannot be created, neither in an empty database nor in one that has the "
        f"schemas, extensions and functions of the migrated one: {said}. Let what the models need "
        "be made by a revision, or by the models, as CREATE OR REPLACE where PostgreSQL has that."
    )
    raise ModelsError(msg) from errors[-1]


def _context(catalogue: Catalogue) -> list[str]:
    schemas = [it.name for it in catalogue.things if it.kind == "schema"]
    extensions = {it.name: it.facts["schema"] for it in catalogue.things if it.kind == "extension"}
    return [
        *(f"CREATE SCHEMA IF NOT EXISTS {quote(it)}" for it in schemas),
        *(
            f"CREATE EXTENSION IF NOT EXISTS {quote(it)} SCHEMA {schema} CASCADE"
            for it, schema in extensions.items()
        ),
    ]


def _removal(catalogue: Catalogue, types: set[tuple[str, str]]) -> list[str]:
    kinds = ("view", "materialized view", "foreign table", "table", "sequence", "type")
    return [
        f"DROP {kind} IF EXISTS {quote(it.schema)}.{quote(it.name)} CASCADE"
        for kind in kinds
        for it in catalogue.things
        if it.kind == kind and (kind != "type" or {it.relation, ("", it.name)} & types)
    ]


def _created_types(metadatas: list[MetaData]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for metadata in metadatas:
        for column in (column for table in metadata.tables.values() for column in table.columns):
            kind = _bare(column.type)
            if isinstance(kind, _NAMED) and getattr(kind, "create_type", True):
                found.add((kind.schema or "", kind.name or ""))
    return found


def _bare(kind: Any) -> Any:
    """Return the type that an array or a decorator stands around."""
    inner = getattr(kind, "impl_instance", None) or getattr(kind, "item_type", None)
    return kind if inner is None else _bare(inner)


_NAMED: tuple[Any, ...] = (Enum, DOMAIN)
