"""SQL as the sandbox has to know it: what a statement may change, and what cannot be sandboxed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache


class Kind(Enum):
    """What a statement does to a transaction."""

    READ = "read"
    WRITE = "write"
    CONTROL = "control"  # BEGIN, COMMIT, SAVEPOINT and the like
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, read as far as words go: unknown ones are taken for writes."""

    text: str
    words: str
    """The statement in capitals, without comments, literals and quoted names."""
    kind: Kind
    functions: frozenset[str]
    """The names in front of a parenthesis, in capitals."""
    refusal: str
    """Why it cannot run inside of a transaction that is rolled back; empty where it can."""
    quoted: frozenset[str] = frozenset()
    """The quoted names, in capitals."""

    @property
    def names(self) -> frozenset[str]:
        """Return all that may name a relation, in capitals."""
        return self.quoted.union(self.words.split())

    @property
    def is_setting(self) -> bool:
        """Say whether it may change a run-time parameter."""
        return "SET_CONFIG" in self.functions or self.words.startswith(("SET ", "RESET", "DISCARD"))

    @property
    def is_advisory(self) -> bool:
        """Say whether it takes or gives back an advisory lock."""
        return any("ADVISORY" in name for name in self.functions)

    @property
    def is_alone(self) -> bool:
        """Say whether it reads no table, so that any connection answers it alike."""
        return " FROM " not in f"{self.words} "

    @property
    def sees_no_work(self) -> bool:
        """Say whether the uncommitted work of others cannot change its answer.

        So it is with what a driver, a dialect and a pool ask when they connect.
        """
        return self.kind is Kind.EMPTY or (
            _SEES_NO_WORK.fullmatch(self.words) is not None and self.functions <= _OF_THE_SERVER
        )

    @property
    def only_locks(self) -> bool:
        """Say whether it is a write for no more than the rows that it locks."""
        without = _LOCKS.sub("", self.words)
        return without != self.words and _kind(without) is Kind.READ

    @property
    def only_changes_rows(self) -> bool:
        """Say whether it has written nothing when its tag counts no row, but for triggers."""
        return self.words.startswith(("INSERT ", "UPDATE ", "DELETE ", "MERGE "))

    @property
    def is_plain_query(self) -> bool:
        """Say whether it asks, and leaves nothing behind on the connection."""
        is_query = _QUERY.match(self.words) is not None and self.kind is Kind.READ
        return is_query and not self.is_setting and not self.is_advisory

    @property
    def may_be_explained(self) -> bool:
        """Say whether PostgreSQL plans it, and an EXPLAIN of it does nothing."""
        return self.words.startswith(("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "))

    @property
    def never_waits(self) -> bool:
        """Say whether it passes over rows that are locked, or fails at once."""
        return " SKIP LOCKED" in self.words or " NOWAIT" in self.words

    @property
    def changes_schema(self) -> bool:
        """Say whether constraints, functions and views may come or go by it."""
        return self.words.startswith(("CREATE ", "ALTER ", "DROP ", "DO ", "CALL ", "IMPORT "))

    @property
    def needs_transaction(self) -> bool:
        """Say whether it is an error by itself, as what it does would end with it."""
        declares = self.words.startswith("DECLARE ") and "WITH HOLD" not in self.words
        return declares or self.words.startswith("LOCK ")

    @property
    def is_query(self) -> bool:
        """Say whether it takes a snapshot, after which a transaction's modes are fixed."""
        return not self.words.startswith(("SET ", "SHOW ", "RESET "))


@lru_cache(maxsize=4096)
def read_statements(sql: str) -> tuple[Statement, ...]:
    """Return the statements of a text, without the empty ones."""
    found = [_statement(text, words, quoted) for text, words, quoted in _split(sql)]
    return tuple(statement for statement in found if statement.kind is not Kind.EMPTY)


_TOKEN = re.compile(
    r"""
      (?P<blank>\s+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<literal>[eE]'(?:[^'\\]|\\.|'')*'|(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*')
    | (?P<dollar>\$(?P<tag>[A-Za-z_\x80-\uffff]?\w*)\$.*?\$(?P=tag)\$)
    | (?P<name>(?:[uU]&)?"(?:[^"]|"")*")
    | (?P<word>[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*)
    | (?P<number>\$?\d[\w.]*)
    | (?P<end>;)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def _split(sql: str) -> Iterator[tuple[str, list[str], dict[int, str]]]:
    """Yield text, words, and the quoted names by their places among the words."""
    words: list[str] = []
    quoted: dict[int, str] = {}
    start = position = 0
    while position < len(sql):
        found = _TOKEN.match(sql, position)
        if found is None:
            msg = f"The last alternative takes any character, but not {sql[position]!r}"
            raise AssertionError(msg)
        position = found.end()
        match found.lastgroup:
            case "comment":
                position = _end_of_comment(sql, position)
            case "literal" | "dollar" | "tag":
                words.append("''")
            case "name":
                quoted[len(words)] = found[0].partition('"')[2][:-1].replace('""', '"').upper()
                words.append('""')
            case "word":
                words.append(found[0].upper())
            case "end" if not _is_routine(words):
                yield sql[start : found.start()], words, quoted
                words, quoted, start = [], {}, position
            case "number" | "other" | "end":
                words.append(found[0])
            case _:
                pass
    yield sql[start:], words, quoted


def _end_of_comment(sql: str, position: int) -> int:
    depth = 1  # comments nest
    while depth and position < len(sql):
        two = sql[position : position + 2]
        depth += (two == "/*") - (two == "*/")
        position += 2 if two in ("/*", "*/") else 1
    return position


def _is_routine(words: list[str]) -> bool:
    """Say whether a semicolon stands within the body of a routine that is written in SQL."""
    text = " ".join(words)
    return text.startswith("CREATE ") and text.count("BEGIN ATOMIC") > text.endswith(" END")


def _statement(text: str, tokens: list[str], quoted: dict[int, str]) -> Statement:
    words = " ".join(tokens)
    called = {name for place, name in quoted.items() if tokens[place + 1 : place + 2] == ["("]}
    functions = frozenset(re.findall(r"(\w+) \(", words)) | called
    refusal = _refusal(words, functions)
    return Statement(text, words, _kind(words), functions, refusal, frozenset(quoted.values()))


def _kind(words: str) -> Kind:
    if not words:
        return Kind.EMPTY
    if _CONTROL.match(words):
        return Kind.CONTROL
    is_read = _READ.match(words) and not _WRITES_WITHIN.search(words)
    return Kind.READ if is_read else Kind.WRITE


# Words of expressions and of built-in types; a table, a type or a function of the application's is
# none of them.
_PLAIN = (
    r"(?:''|\$?\d[\w.]*|[-+*/=<>!(),.:|]|AS (?:\w+|\"\")|AND|OR|NOT|IS|NULL|TRUE|FALSE|PG_CATALOG"
    r"|CURRENT_USER|CURRENT_CATALOG|CURRENT_SCHEMA|CURRENT_TIMESTAMP|VERSION|CURRENT_DATABASE"
    r"|PG_BACKEND_PID|CURRENT_SETTING|NOW|CLOCK_TIMESTAMP|GEN_RANDOM_UUID|COUNT"
    r"|BOOLEAN|SMALLINT|INTEGER|INT|BIGINT|NUMERIC|FLOAT|TEXT|VARCHAR|JSONB?|UUID|DATE|TIMESTAMP)"
)
_SEES_NO_WORK = re.compile(
    rf"SHOW [\w ]+|SELECT(?: {_PLAIN})+"
    r"|SELECT (?:(?!FROM|SELECT|JOIN)\S+ )+FROM (?:PG_CATALOG \. )?PG_STAT_ACTIVITY"
    r"(?: WHERE(?: (?!FROM|SELECT|JOIN|UNION|TABLE)\S+)+)?"
)
_OF_THE_SERVER = {
    "VERSION", "CURRENT_SCHEMA", "CURRENT_DATABASE", "PG_BACKEND_PID", "CURRENT_SETTING", "NOW",
    "CLOCK_TIMESTAMP", "GEN_RANDOM_UUID", "COUNT", "AND", "OR", "NOT", "IN", "SELECT",
    "WHERE",
}  # fmt: skip

_CONTROL = re.compile(
    r"(BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE TRANSACTION"
    r"|SET ((LOCAL|SESSION) )?TRANSACTION(_READ_ONLY|_ISOLATION)?"
    r"|CLOSE ALL|DEALLOCATE (PREPARE )?ALL|DISCARD)\b"
)
_QUERY = re.compile(r"(\( )*(SELECT|VALUES|TABLE|WITH)\b")
_LOCKS = re.compile(r" FOR (NO KEY UPDATE|UPDATE|KEY SHARE|SHARE)\b")
_READ = re.compile(
    r"(\( )*(SELECT|VALUES|TABLE|SHOW|EXPLAIN|WITH|FETCH|MOVE|CLOSE|DECLARE|COPY|SET|RESET|DISCARD"
    r"|PREPARE|DEALLOCATE|UNLISTEN)\b"
)
_WRITES_WITHIN = re.compile(
    r"\b(INSERT|UPDATE|DELETE|MERGE|INTO|FOR (NO KEY )?UPDATE|FOR (KEY )?SHARE"
    r"|^PREPARE|^SET CONSTRAINTS|^DECLARE .*WITH HOLD)\b"
    r"|^COPY .* FROM\b(?!.* TO\b)"
)


def _refusal(words: str, functions: frozenset[str]) -> str:
    if "PG_NOTIFY" in functions:
        return _REFUSED[0][1]
    if functions & {"PG_TERMINATE_BACKEND", "PG_CANCEL_BACKEND"}:
        return "it may end the one connection that all connections of the test share"
    return next((why for pattern, why in _REFUSED if pattern.match(words)), "")


_REFUSED = [
    (re.compile(r"(LISTEN|NOTIFY)\b"), "a notification is sent at a COMMIT, which never comes"),
    (re.compile(r"VACUUM\b"), "VACUUM cannot run inside a transaction"),
    (
        re.compile(r"(BEGIN|START TRANSACTION|SET)\b.*\bSERIALIZABLE\b"),
        "all connections share one transaction, so conflicts of SERIALIZABLE are never found",
    ),
    (
        re.compile(r"(CREATE|DROP|REINDEX|ALTER)\b(?! (OR|FUNCTION|PROCEDURE)).*\bCONCURRENTLY\b"),
        "CONCURRENTLY cannot run inside a transaction",
    ),
    (
        re.compile(
            r"(CREATE|DROP) (DATABASE|TABLESPACE|SUBSCRIPTION)\b|ALTER SYSTEM\b|CLUSTER$"
            r"|REINDEX (\(.*\) )?(DATABASE|SYSTEM|SCHEMA)\b"
        ),
        "it cannot run inside a transaction",
    ),
    (
        re.compile(r"PREPARE TRANSACTION\b|(COMMIT|ROLLBACK) PREPARED\b"),
        "a prepared transaction would outlive the test",
    ),
]
