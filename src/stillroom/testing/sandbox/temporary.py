"""The temporary tables of all logical connections, in the one temporary schema that they share."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stillroom.testing.sandbox.session import Session
from stillroom.testing.sandbox.statements import Kind, Statement

TABLES = (
    "SELECT oid, relname, relkind FROM pg_class "
    "WHERE relnamespace = pg_my_temp_schema() AND relkind IN ('r', 'p', 'v', 'S', 'i', 'I')"
)
"""A query for what `learn()` takes."""


@dataclass
class _Table:
    owner: Session
    name: str
    kind: str
    action: str
    is_hidden: bool = False

    @property
    def hidden_name(self) -> str:
        return f"{self.owner.number}.{self.name}"

    @property
    def identifier(self) -> str:
        name = self.hidden_name if self.is_hidden else self.name
        return 'pg_temp."' + name.replace('"', '""') + '"'

    def turn(self) -> str:
        """Return the SQL that hides the table, or shows it."""
        before = self.identifier
        self.is_hidden = not self.is_hidden
        return f"ALTER TABLE {before} RENAME TO {self.identifier.removeprefix('pg_temp.')}"


class TemporaryTables:
    """Give each table to the session that made it, and hide it from all others by another name.

    PostgreSQL's catalog is asked after everything that may have changed the tables; what is known
    here is whose they are, and what a COMMIT does to them, as PostgreSQL never sees one.
    """

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._known: dict[str, _Table] = {}  # with those that are gone

    def __bool__(self) -> bool:
        """Say whether there has been a table: a rollback may bring it back."""
        return bool(self._known)

    def may_change(self, statements: Iterable[Statement]) -> bool:
        """Say whether statements may make, drop or rename tables."""
        return any(
            "TEMP" in statement.words or (self and statement.kind is Kind.WRITE)
            for statement in statements
        )

    def learn(
        self, rows: Iterable[Sequence[str | None]], session: Session, words: str = ""
    ) -> None:
        """Take what the catalog says; what is new was made by the session's statement."""
        found = re.search(r"ON COMMIT (DROP|DELETE)", words)
        tables: dict[str, _Table] = {}
        for oid, name, kind in rows:
            key, shown = str(oid), str(name)
            action = found[1] if found is not None and kind == "r" else ""
            table = self._known.get(key) or _Table(session, shown, str(kind), action)
            table.is_hidden = shown == table.hidden_name
            if not table.is_hidden:
                table.name = shown
            tables[key] = self._known[key] = table
        self._tables = tables

    def arrange(self, session: Session) -> str:
        """Return the SQL that shows the session its own tables, and no others."""
        tables = self._tables.values()
        others = [it for it in tables if it.owner is not session and not it.is_hidden]
        own = [it for it in tables if it.owner is session and it.is_hidden]
        return "; ".join(table.turn() for table in others + own)

    def at_commit(self, session: Session) -> str:
        """Return the SQL that does what PostgreSQL does to the session's tables at a COMMIT."""
        return "".join(
            f"DROP TABLE {table.identifier}; "
            if table.action == "DROP"
            else f"TRUNCATE {table.identifier}; "
            for table in self._of(session)
            if table.action
        )

    def drop(self, session: Session) -> str:
        """Return the SQL that drops the session's tables."""
        kinds = {"r": "TABLE", "v": "VIEW", "S": "SEQUENCE"}
        return "".join(
            f"DROP {kinds[table.kind]} IF EXISTS {table.identifier} CASCADE; "
            for table in self._of(session)
            if table.kind in kinds
        )

    def _of(self, session: Session) -> list[_Table]:
        return [table for table in self._tables.values() if table.owner is session]
