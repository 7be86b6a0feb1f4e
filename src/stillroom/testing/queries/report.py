"""What a test sent, as text: grouped by shape for a budget, in order for a failed test."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

from stillroom.testing.callsite import CallSite


class Sent(Protocol):
    """What is told of a statement."""

    sql: str
    executions: int
    call_site: CallSite | None
    transaction: int
    milliseconds: float | None
    row_count: int | None
    error: str | None


@lru_cache(maxsize=4096)
def shape(sql: str) -> str:
    """Return a statement in one line without comments and values.

    Parameters, literals and the casts of parameters become `?`; a list of values after IN and all
    rows after VALUES become `(...)`, so that statements which differ in their number are alike.
    """
    bare = _TOKEN.sub(_elide, sql).strip()
    return _ROWS.sub("VALUES (...)", _LIST.sub("IN (...)", bare))


def summary(sent: Sequence[Sent], rule: str) -> str:
    """Return the message of a budget that was not kept, each N+1 named in it."""
    lines = [f"{_number(len(sent), 'query', 'queries')}, {rule}"]
    groups = _groups(sent)
    if groups:
        lines += ["", *_abbreviate(_describe_group(group) for group in groups)]
    return "\n".join([*lines, *_warnings(sent)])


def repetitions(sent: Sequence[Sent], limit: int) -> str:
    """Return the message for the shapes that were sent more than `limit` times, or nothing."""
    groups = [group for group in _groups(sent) if len(group) > limit]
    if not groups:
        return ""
    kinds = _number(len(groups), "statement was", "statements were")
    lines = [f"{kinds} sent more than {_number(limit, 'time', 'times')}"]
    lines += ["", *_abbreviate(_describe_group(group) for group in groups)]
    return "\n".join([*lines, *_warnings([query for group in groups for query in group])])


def describe(entries: Sequence[Sent | str]) -> str:
    """Return the list of a failed test, in order; the bounds of transactions stand as text."""
    queries = [entry for entry in entries if not isinstance(entry, str)]
    time = sum(query.milliseconds or 0 for query in queries)
    lines = [f"{_number(len(queries), 'query', 'queries')}, {time:.1f} ms", ""]
    return "\n".join([*lines, *_abbreviate(_describe_entry(entry) for entry in entries)])


_TOKEN = re.compile(
    r"""
      (?P<keep>"(?:[^"]|"")*" | (?![eEbBxXnN]')[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*)
    | (?P<value>
        (?: [eE]'(?:[^'\\]|\\.|'')*' | [bBxXnN]?'(?:[^']|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
          | \$\d+ | %\(\w+\)s | %s | \d[\w.]* )
        (?: ::[\w."]+ (?:\ (?:WITH|WITHOUT)\ TIME\ ZONE|\ PRECISION|\ VARYING)?
            (?:\([\d, ]*\))? (?:\ (?:WITH|WITHOUT)\ TIME\ ZONE)? (?:\[\])* )?
      )
    | (?P<blank>(?:\s | --[^\n]* | /\*.*?\*/)+)
    """,
    re.VERBOSE | re.DOTALL,
)
_LIST = re.compile(r"\bIN \((?:(?:\?|\([?, ]++\))(?:, )?)++\)")
_ROW = r"\((?:[^()]|\([^()]*+\))*+\)"
_ROWS = re.compile(rf"\bVALUES {_ROW}(?:, {_ROW})*+")


def _elide(found: re.Match[str]) -> str:
    return {"keep": found[0], "blank": " "}.get(found.lastgroup or "", "?")


def _groups(sent: Iterable[Sent]) -> list[list[Sent]]:
    groups: dict[str, list[Sent]] = {}
    for query in sent:
        groups.setdefault(shape(query.sql), []).append(query)
    return sorted(groups.values(), key=len, reverse=True)


def _describe_group(group: Sequence[Sent]) -> str:
    time = sum(query.milliseconds or 0 for query in group)
    lines = [f"{len(group):5}x {time:8.2f} ms  {_shorten(shape(group[0].sql))}"]
    for site, times in Counter(query.call_site for query in group).most_common():
        where = _where(site)
        lines.append(f"{_INDENT}{where}" + (f"  ({times}x)" if times < len(group) else ""))
    return "\n".join(lines)


def _describe_entry(entry: Sent | str) -> str:
    if isinstance(entry, str):
        return f"{_INDENT}{entry}"
    time = "?" if entry.milliseconds is None else f"{entry.milliseconds:.2f}"
    lines = [f"{time:>14} ms  {_shorten(shape(entry.sql))}{_size(entry)}"]
    lines += [f"{_INDENT}  failed: {entry.error}"] if entry.error else []
    return "\n".join([*lines, f"{_INDENT}  {_where(entry.call_site)}"])


def _size(query: Sent) -> str:
    sets = f"{query.executions} sets of parameters" if query.executions > 1 else ""
    rows = "" if query.row_count is None else _number(query.row_count, "row", "rows")
    sizes = ", ".join(filter(None, [sets, rows]))
    return f"  ({sizes})" if sizes else ""


def _warnings(sent: Iterable[Sent]) -> Iterator[str]:
    """Name each N+1: requests of their own repeat a statement too, a transaction should not."""
    times = Counter((shape(it.sql), it.call_site, it.transaction) for it in sent)
    named: set[tuple[str, CallSite | None]] = set()
    for (sql, site, _), number in times.most_common():
        if number > 2 and (sql, site) not in named:
            named.add((sql, site))
            verb = sql.partition(" ")[0]
            cure = _CURES.get(verb, _CURE)
            yield f"\nN+1: {number} times the same {verb} in one transaction, at {_where(site)}"
            yield f"     {cure}"


_CURES = dict.fromkeys(
    ["INSERT", "UPDATE", "DELETE"],
    "Send all rows at once: add_all() and one flush, execute() with a list, or WHERE ... IN.",
)
_CURE = (
    "Load what belongs to all rows at once: select(...).options(selectinload(...)), joinedload(...)"
    "\n     where it is one row each, or one query with WHERE ... IN."
)


def _where(site: CallSite | None) -> str:
    if site is None:
        return "no line of the application, a task of its own"
    return f"{site}  {site.source}".rstrip()


def _shorten(sql: str) -> str:
    return sql if len(sql) <= 2 * _HALF else f"{sql[:_HALF]} ... {sql[-_HALF:]}"


def _abbreviate(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    left_out = len(lines) - 2 * _ENDS
    if left_out <= 0:
        return lines
    return [*lines[:_ENDS], f"{_INDENT}... {left_out} more ...", *lines[-_ENDS:]]


def _number(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


_INDENT = " " * 17
_ENDS = 20
_HALF = 120
