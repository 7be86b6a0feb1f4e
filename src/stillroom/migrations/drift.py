"""Whether the models and the revisions make the same database, as PostgreSQL sees both."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import MetaData

from stillroom.migrations.catalogue import Catalogue, Thing, read
from stillroom.migrations.changes import Change, Wording, changes
from stillroom.migrations.models import Connect, NewDatabase, connect, create_models
from stillroom.migrations.spelling import respell


@dataclass(frozen=True)
class Difference:
    """Say where the models and the migrations differ, and what to do next."""

    subject: str
    what: str
    remedy: str

    def __str__(self) -> str:
        """Read as sentences."""
        return f"{self.subject}: {self.what}. {self.remedy}"


async def drift(
    metadata: MetaData | Iterable[MetaData],
    *,
    migrated: NewDatabase,
    empty: NewDatabase,
    exclude: Collection[str] = ("alembic_version",),
    connect: Connect = connect,
) -> list[Difference]:
    """Compare a database that the revisions make with one that the models make.

    `migrated` makes a database that is at head and returns its URL, `empty` makes an empty one;
    each may be called more than once. Compared are schemas that the models use, and the default
    one; what only revisions make there is drift, unless it is a function, a trigger, a view, an
    extension or a partition. A pattern of `exclude` names tables or other things, as in ``audit_*``
    or ``pantry.*``. Raises ModelsError where the models cannot be created.
    """
    metadatas = [metadata] if isinstance(metadata, MetaData) else list(metadata)
    async with connect(migrated()) as connection:
        theirs = await read(connection)
    async with connect(
        await create_models(metadatas, theirs, migrated, empty, connect)
    ) as connection:
        ours = await read(connection)
        theirs = await respell(connection, ours, theirs)
    compared = changes(_of_interest(ours, ours, exclude), _of_interest(theirs, ours, exclude))
    return [
        Difference(
            change.subject(ours.default_schema),
            change.text(_WORDING),
            _remedy(change),
        )
        for change in compared
        if not (
            change.left is None and not change.attribute and _is_only_for_revisions(change.thing)
        )
    ]


def _of_interest(catalogue: Catalogue, models: Catalogue, exclude: Collection[str]) -> Catalogue:
    schemas = {it.schema for it in models.things if it.kind not in ("schema", "function")}
    schemas |= {models.default_schema, ""}
    return catalogue._replace(
        things=[
            it
            for it in catalogue.things
            if it.kind != "schema" and it.schema in schemas and not _is_excluded(it, exclude)
        ]
    )


def _is_excluded(thing: Thing, exclude: Collection[str]) -> bool:
    schema, table = thing.relation
    names = {table, f"{schema}.{table}", f"{table}.{thing.name}"}
    if thing.kind != "column":
        names.add(thing.name)
    return any(fnmatchcase(name, pattern) for name in names for pattern in exclude)


def _is_only_for_revisions(thing: Thing) -> bool:
    return thing.kind in _ONLY_FOR_REVISIONS or "bound" in thing.facts


def _remedy(change: Change) -> str:
    thing, attribute = change.thing, change.attribute
    what = thing.kind
    if what == "constraint":
        what = thing.facts["definition"].partition(" ")[0]  # CHECK, EXCLUDE, FOREIGN, ...
    if "of its own sequence" in f"{change.left} {change.right}":
        what = "serial"
    if (condition := _SEEN_BY_AUTOGENERATE.get((what, attribute))) is not None:
        return f"Next: alembic revision --autogenerate{condition}"
    hint = _BY_HAND.get((thing.kind, attribute), "")
    return f"Autogenerate may not see it; next: alembic revision, and write it by hand{hint}"


_WORDING = Wording(
    "the models say {}, the migrations {}",
    "only the models have this {}",
    "only the migrations make this {}",
)

_ONLY_FOR_REVISIONS = frozenset(
    {"extension", "foreign table", "function", "materialized view", "trigger", "view"}
)

# Each with what an env.py has to say for it to be seen; run_environment says so.
_SEEN_BY_AUTOGENERATE = {
    ("table", ""): "",
    ("table", "comment"): "",
    ("column", ""): "",
    ("column", "type"): "",
    ("column", "nullability"): "",
    ("column", "identity"): "",
    ("column", "comment"): "",
    ("column", "default"): " (where context.configure has compare_server_default=True)",
    ("index", ""): "",
    ("index", "name"): "",
    ("CHECK", ""): " (where the plugin alembic.ext.checkconstraint_byname is configured)",
    ("FOREIGN", ""): "",
    ("FOREIGN", "definition"): "",
    ("UNIQUE", ""): "",
    ("UNIQUE", "name"): "",
}

_ANEW = ": drop it and create it anew"
_BY_HAND = {
    ("type", "values"): (
        ': op.execute("ALTER TYPE ... ADD VALUE ...") for a value that is new; for one that goes, '
        "a new type"
    ),
    ("constraint", "definition"): _ANEW,
    ("index", "definition"): _ANEW,
    ("index", "validity"): ": REINDEX it",
    ("constraint", "name"): ': op.execute("ALTER TABLE ... RENAME CONSTRAINT ... TO ...")',
    ("index", "name"): ': op.execute("ALTER INDEX ... RENAME TO ...")',
}
