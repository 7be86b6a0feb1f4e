"""The run-time parameters of one logical connection."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stillroom.testing.sandbox.statements import Statement

Values = dict[str, str]


OF_ONE = {
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
}
"""What is done for each connection, and what it is where it was not set.

It would end the connection that all share, or hold it to what one of them wants.
"""


@dataclass
class Parameters:
    """Hold what a connection has set: at its start, for its session, for its transaction."""

    startup: Values = field(default_factory=Values)
    session: Values = field(default_factory=Values)
    local: Values = field(default_factory=Values)

    def effective(self) -> Values:
        """Return the parameters in force."""
        return {**self.startup, **self.session, **self.local}

    def copy(self) -> "Parameters":
        """Return what `restore()` takes after a rollback."""
        return Parameters(self.startup, dict(self.session), dict(self.local))

    def restore(self, earlier: "Parameters") -> None:
        """Go back to an earlier state."""
        self.session, self.local = dict(earlier.session), dict(earlier.local)

    def reset(self, name: str | None) -> None:
        """Forget one parameter, or all."""
        for values in (self.session, self.local):
            if name is None:
                values.clear()
            else:
                values.pop(name, None)


@dataclass(frozen=True)
class Change:
    """A parameter that a statement changes: `name` None is all; `local` for the transaction."""

    name: str | None
    is_local: bool = False
    is_reset: bool = False


def changes(statement: Statement, bound: Iterable[bytes | None]) -> list[Change]:
    """Return what a statement changes, as far as it can be read."""
    if "SET_CONFIG" in statement.functions:
        return list(_of_set_config(statement.text, list(bound)))
    if re.match(r"RESET ALL|DISCARD ALL", statement.words):
        return [Change(None, is_reset=True)]
    found = re.match(
        r"(?:SET|RESET)\s+(?P<scope>LOCAL\s+|SESSION\s+)?(?P<name>[\w.]+)",
        _bare(statement.text),
        re.IGNORECASE,
    )
    if found is None:
        return []
    name = found["name"].lower()
    is_local = (found["scope"] or "").strip().lower() == "local"
    names = _SPECIAL.get(name, [name])
    is_reset = statement.words.startswith("RESET") or statement.words.endswith("DEFAULT")
    return [Change(name, is_local, is_reset) for name in names]


def shared(values: Values) -> Values:
    """Return the parameters that the connection that all share may have."""
    return {name: value for name, value in values.items() if name not in OF_ONE}


def apply(target: Mapping[str, str], applied: Mapping[str, str]) -> str:
    """Return the SQL that brings a connection from one set of parameters to another."""
    new = [
        f"pg_catalog.set_config({_quote(name)}, {_quote(value)}, false)"
        for name, value in target.items()
        if applied.get(name) != value
    ]
    gone = [f"RESET {_name(name)}" for name in applied if name not in target]
    return "; ".join([*gone, *([f"SELECT {', '.join(new)}"] if new else [])])


def _bare(sql: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL).strip()


def _of_set_config(sql: str, bound: list[bytes | None]) -> Iterable[Change]:
    for found in _SET_CONFIG.finditer(sql):
        name, third = found["name"], found["local"].lower()
        if name.startswith("$"):
            value = bound[int(name[1:]) - 1] if int(name[1:]) <= len(bound) else None
            name = (value or b"").decode(errors="replace")
        if third.startswith("$"):
            number = int(third[1:]) - 1
            third = "true" if number < len(bound) and bound[number] in _TRUE else "false"
        yield Change(name.strip("'").lower(), third in ("true", "'t'", "'true'"))


_TRUE = {b"\x01", b"t", b"true", b"1", b"on"}

_SET_CONFIG = re.compile(
    r"set_config\s*\(\s*(?P<name>'[^']*'|\$\d+)(?:::\w+(?: \w+)*)?\s*,.*?,"
    r"\s*(?P<local>true|false|\$\d+|'t'|'true')(?:::\w+)?\s*\)",
    re.IGNORECASE | re.DOTALL,
)

_SPECIAL = {
    "time": ["timezone"],
    "names": ["client_encoding"],
    "schema": ["search_path"],
    "session": ["session_authorization", "role"],
    "characteristics": ["default_transaction_read_only", "default_transaction_isolation"],
    "seed": [],
    "constraints": [],
    "transaction": [],
}


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in value else f"'{escaped}'"


def _name(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))
