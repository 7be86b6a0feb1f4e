"""The temporary tables of one logical connection, as far as a COMMIT changes them."""

import re

from stillroom.testing.statements import Statement


class TemporaryTables:
    """Know what a COMMIT does to each temporary table: PostgreSQL never sees one."""

    def __init__(self) -> None:
        self._actions: dict[str, str] = {}

    def __len__(self) -> int:
        """Return the number of tables that a COMMIT changes."""
        return len(self._actions)

    def note(self, statement: Statement) -> None:
        """Note the table that a statement has made, if any."""
        found = _TEMPORARY.search(statement.words)
        name = _NAME.search(statement.text)
        if found is not None and name is not None and found["action"]:
            self._actions[name[1]] = found["action"]

    def at_commit(self) -> str:
        """Return the SQL that does what PostgreSQL does to them at a COMMIT."""
        return "".join(
            f"DROP TABLE IF EXISTS {name}; " if action == "DROP" else f"TRUNCATE {name}; "
            for name, action in self._actions.items()
        )

    def clear(self) -> None:
        """Forget all."""
        self._actions.clear()


_TEMPORARY = re.compile(
    r"^CREATE (?:(?:GLOBAL|LOCAL) )?TEMP(?:ORARY)? TABLE.*ON COMMIT (?P<action>DROP|DELETE)?"
)
_NAME = re.compile(r"\bTABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\"[^\"]+\"|[\w.]+)", re.IGNORECASE)
