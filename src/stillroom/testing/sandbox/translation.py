"""SQL as the physical connection gets it: with names and answers that are one connection's own."""

import re
from collections.abc import Iterable
from functools import lru_cache, partial

from stillroom.testing.sandbox.parameters import OF_ONE
from stillroom.testing.sandbox.statements import Statement


def mirrored(statement: Statement) -> frozenset[str]:
    """Return what a statement asks that all connections of a sandbox would be told alike.

    They share a process and a transaction of PostgreSQL. What each of them has to be told is put
    into parameters, which the translated statement reads.
    """
    return _mirrored(statement.text)[1]


class Translation:
    """Translate the statements of one connection.

    A name of a cursor or of a prepared statement gets the connection's number in front.
    """

    def __init__(self, number: int) -> None:
        self.cursors: set[str] = set()
        self.statements: set[str] = set()
        self._number = number

    def of(self, statements: Iterable[Statement], sql: str) -> str:
        """Return the text that is sent for statements that came as one text."""
        texts = [self._of(statement) for statement in statements]
        if texts == [statement.text for statement in statements]:
            return sql
        return ";".join(texts)

    def own(self, name: str) -> str:
        """Return the name that PostgreSQL knows a cursor or statement of the connection by."""
        return f"{self._number}.{name}"

    def back(self, message: bytes) -> bytes:
        """Return an error of PostgreSQL with the application's own names."""
        return message.replace(f'"{self._number}.'.encode(), b'"')

    def _of(self, statement: Statement) -> str:
        text, words = _mirrored(statement.text)[0], statement.words
        for beginning, pattern, is_cursor in _NAMES:
            if beginning.match(words):
                known = self.cursors if is_cursor else self.statements
                if words.startswith(("DECLARE", "PREPARE")) and (found := pattern.search(text)):
                    known.add(_folded(found["name"]))
                return pattern.sub(partial(self._named, known), text, count=1)
        return text

    def _named(self, known: set[str], found: "re.Match[str]") -> str:
        name = _folded(found["name"])
        if name not in known:  # a function may have opened it, by a name that is PostgreSQL's
            return found[0]
        quoted = self.own(name).replace('"', '""')
        return f'{found["before"]}"{quoted}"{found["after"]}'


@lru_cache(maxsize=4096)
def _mirrored(text: str) -> tuple[str, frozenset[str]]:
    names: set[str] = set()
    for name, pattern, replacement in _MIRRORS:
        text, count = pattern.subn(replacement, text)
        if count:
            names.add(name)
    return text, frozenset(names)


def _folded(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _setting(name: str) -> str:
    return f"current_setting('stillroom.{name}', true)"


def _named(name: str, alias: str) -> tuple[str, "re.Pattern[str]", str]:
    pattern = rf"^{_BLANK}SHOW\s+{alias}\s*$"
    return name, re.compile(pattern, re.IGNORECASE), f"SELECT {_setting(name)} AS {name}"


def _read(name: str) -> tuple[str, "re.Pattern[str]", str]:
    pattern = rf"\bcurrent_setting\s*\(\s*'{name}'\s*(?:,\s*\w+\s*)?\)"
    return name, re.compile(pattern, re.IGNORECASE), _setting(name)


def _written(name: str) -> tuple[str, "re.Pattern[str]", str]:
    pattern = rf"\bset_config\s*\(\s*'{name}'"
    return name, re.compile(pattern, re.IGNORECASE), f"set_config('stillroom.{name}'"


_BLANK = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_NAME = r'(?P<name>"(?:[^"]|"")+"|[A-Za-z_\x80-\uffff][\w$]*)'

_FIRST = re.compile(
    rf"(?P<before>^{_BLANK}(?:DECLARE|PREPARE)\s+){_NAME}(?P<after>)", re.IGNORECASE | re.DOTALL
)
_LAST = re.compile(rf"(?P<before>\s){_NAME}(?P<after>\s*)$")
_CURRENT = re.compile(rf"(?P<before>\bCURRENT\s+OF\s+){_NAME}(?P<after>)", re.IGNORECASE)
_EXECUTE = re.compile(rf"(?P<before>\bEXECUTE\s+){_NAME}(?P<after>)", re.IGNORECASE)

# By what a statement's words are: where the name stands, and whether it is a cursor's.
_NAMES = [
    (re.compile("DECLARE "), _FIRST, True),
    (re.compile("(FETCH|MOVE|CLOSE) "), _LAST, True),
    (re.compile("(UPDATE|DELETE) .*CURRENT OF "), _CURRENT, True),
    (re.compile("PREPARE "), _FIRST, False),
    (re.compile("DEALLOCATE "), _LAST, False),
    (re.compile("(EXPLAIN .*|CREATE .* AS )?EXECUTE "), _EXECUTE, False),
]

OF_THE_TRANSACTION = ("transaction_isolation", "transaction_read_only")

_MIRRORS: list[tuple[str, "re.Pattern[str]", str]] = [
    (
        "xid",
        re.compile(r"(?:pg_catalog\.)?\bpg_current_xact_id_if_assigned\s*\(\s*\)", re.IGNORECASE),
        f"nullif({_setting('xid')}, '')::xid8",
    ),
    (
        "xid",
        re.compile(r"(?:pg_catalog\.)?\btxid_current_if_assigned\s*\(\s*\)", re.IGNORECASE),
        f"nullif({_setting('xid')}, '')::int8",
    ),
    _named("transaction_isolation", r"transaction\s+isolation\s+level"),
    *(_named(name, name) for name in (*OF_THE_TRANSACTION, *OF_ONE)),
    *(_read(name) for name in (*OF_THE_TRANSACTION, *OF_ONE)),
    *(_written(name) for name in OF_THE_TRANSACTION),
]
