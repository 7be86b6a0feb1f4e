"""The laws of migrations, for the tests of a project.

One line of a test module is enough, with the pytest plugin::

    from stillroom.testing.migrations import TestMigrations as TestMigrations
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NoReturn

from sqlalchemy.ext.asyncio import AsyncConnection

from stillroom.migrations.catalogue import Catalogue, read
from stillroom.migrations.changes import Wording, changes
from stillroom.migrations.drift import drift
from stillroom.migrations.models import connect
from stillroom.migrations.revisions import RevisionError, Revisions, Settings
from stillroom.testing.apart import apart
from stillroom.testing.engines import routed


class TestMigrations:
    """Hold the revisions of the project to four laws, on empty databases of the run's own.

    The project's own env.py runs them, and says where the models are by its `target_metadata`; the
    URL that it names is not connected to. Who has something to declare makes a class of it::

        from stillroom.testing import migrations

        class TestMigrations(migrations.TestMigrations):
            irreversible = {"0007"}
            exclude = {"audit_*"}
    """

    irreversible: ClassVar[Collection[str]] = ()
    """The revisions that cannot be taken back, and are not."""
    exclude: ClassVar[Collection[str]] = ()
    """Patterns of names that may drift: tables, `schema.table`, `table.column`, types, indexes.

    Tables that the include_name or include_object of the env.py leaves out need not be said again.
    """

    def test_the_revisions_have_one_head(self, stillroom_migrations_folder: Path) -> None:
        """Only one revision is followed by no other, so `alembic upgrade head` knows where to go.

        Two come about when two branches of the code each add a revision, without any conflict.
        """
        revisions = Revisions(stillroom_migrations_folder)
        heads = [f"{name} ({revisions.file(name)})" for name in revisions.heads]
        if not heads:
            _fail("There is no revision. Next: alembic revision --autogenerate")
        if len(heads) > 1:
            _fail(
                f"There are {len(heads)} heads: {', '.join(heads)}. Next: alembic merge heads, or "
                "let the down_revision of one be the other, if that was not released"
            )

    def test_the_revisions_lead_from_nothing_to_the_head(
        self, stillroom_migrations_folder: Path, stillroom_new_database: Callable[[], str]
    ) -> None:
        """Each revision can be made in turn, from an empty database on."""
        revisions = Revisions(stillroom_migrations_folder)
        _Walk(revisions, stillroom_new_database()).up(revisions.names)

    def test_each_revision_can_be_taken_back_and_made_again(
        self, stillroom_migrations_folder: Path, stillroom_new_database: Callable[[], str]
    ) -> None:
        """A downgrade leaves nothing behind, and what is made again is what was made first.

        It is looked at after each revision by itself, and after all of them. Schemas and extensions
        may stay, as others may use them.
        """
        revisions = Revisions(stillroom_migrations_folder)
        names = revisions.names
        if unknown := set(self.irreversible) - set(names):
            _fail(f"`irreversible` names what is no revision: {', '.join(sorted(unknown))}")
        walk = _Walk(revisions, stillroom_new_database())
        start, reversible = walk.look(), list[str]()
        for name in names:
            before = walk.look()
            walk.up([name])
            if name in self.irreversible:
                start, reversible = walk.look(), []
            else:
                walk.down_and_up([name], before)
                reversible.append(name)
        if reversible:
            walk.down_and_up(reversible, start)

    def test_the_models_are_what_the_revisions_make(
        self, stillroom_migrations_folder: Path, stillroom_new_database: Callable[[], str]
    ) -> None:
        """PostgreSQL describes what both make alike, also where `alembic check` does not look.

        That is: values of an enum, the text of a CHECK, deferrable, predicate and method of an
        index, defaults.
        """
        revisions = Revisions(stillroom_migrations_folder)

        def migrate() -> _Walk:
            walk = _Walk(revisions, stillroom_new_database())
            walk.up(revisions.names)
            return walk

        walk = migrate()
        settings = walk.settings
        if not settings.metadata:
            _fail(
                "The env.py gives no models to context.configure. Next: "
                "target_metadata=Base.metadata there, after an import of all models"
            )
        exclude = {settings.version_table, *settings.left_out(walk.look()), *self.exclude}
        at_hand = iter([walk.url])
        differences = apart(
            walk.url,
            lambda: asyncio.run(
                drift(
                    settings.metadata,
                    migrated=lambda: next(at_hand, None) or migrate().url,
                    empty=stillroom_new_database,
                    exclude=exclude,
                    connect=_connect,
                )
            ),
        )
        if differences:
            _fail(_list("The models and the migrations differ", [str(it) for it in differences]))


class _Walk:
    """Go up and down with one database."""

    def __init__(self, revisions: Revisions, url: str) -> None:
        self.url = url
        self._revisions = revisions
        self._seen: Catalogue | None = None

    @cached_property
    def settings(self) -> Settings:
        return apart(self.url, lambda: self._revisions.settings(self.url))

    def look(self) -> Catalogue:
        if self._seen is None:
            self._seen = apart(self.url, lambda: asyncio.run(_read(self.url)))
        return self._seen

    def up(self, names: Sequence[str], circumstances: str = "") -> None:
        self._seen = None
        try:
            apart(self.url, lambda: self._revisions.upgrade(self.url, names))
        except RevisionError as error:
            _fail(f"{error}{circumstances}", error)

    def down(self, names: Sequence[str]) -> None:
        self._seen = None
        try:
            apart(self.url, lambda: self._revisions.downgrade(self.url, names[::-1]))
        except RevisionError as error:
            _fail(
                f"{error}. Next: mend it or, if it is meant to be irreversible, say so in a class "
                f"of your own: irreversible = {{{error.revision!r}}}",
                error,
            )

    def down_and_up(self, names: Sequence[str], before: Catalogue) -> None:
        files = " to ".join(dict.fromkeys(self._revisions.file(it) for it in (names[0], names[-1])))
        made = self.look()
        self.down(names)
        if left := self._left(before):
            _fail(_list(f"{files}: downgrade() leaves behind, and has to drop", left))
        self.up(names, f". It was made before, and taken back ({files})")
        again = self.look()
        different = [
            f"{it.subject(again.default_schema)}: {it.text(_AGAIN)}" for it in changes(made, again)
        ]
        if different:
            _fail(_list(f"{files}: made again after downgrade(), it is another schema", different))

    def _left(self, before: Catalogue) -> list[str]:
        now = self.look()
        return [
            it.subject(now.default_schema)
            for it in changes(before, now)
            if it.left is None
            and not it.attribute
            and it.thing.kind not in ("schema", "extension")
            and it.thing.relation[1] != self.settings.version_table
        ]


@asynccontextmanager
async def _connect(url: str) -> AsyncGenerator[AsyncConnection]:
    with routed(url):
        async with connect(url) as connection:
            yield connection


async def _read(url: str) -> Catalogue:
    async with connect(url) as connection:
        return await read(connection)


def _list(title: str, sentences: Sequence[str]) -> str:
    return "\n".join([f"{title}:", *(f"  - {it}" for it in sentences)])


def _fail(message: str, error: Exception | None = None) -> NoReturn:
    __tracebackhide__ = True
    raise AssertionError(message) from error


_AGAIN = Wording("it was {} and is now {}", "this {} is missing now", "this {} was not there")
