"""What the joins of a select do to its rows."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from sqlalchemy import FromClause, Join, Select

AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"


def filled_with_null(statement: AnySelect) -> set[Any]:
    """Return the columns that an outer join fills with NULL where it finds no row."""
    filled: set[Any] = set()
    for join in _joins(statement.get_final_froms()):
        if join.isouter or join.full:
            filled |= set(join.right.c)
        if join.full:
            filled |= set(join.left.c)
    return filled


def _joins(froms: Sequence[FromClause]) -> Iterator[Join]:
    pending: list[FromClause] = list(froms)
    while pending:
        part = pending.pop()
        if isinstance(part, Join):
            pending += [part.left, part.right]
            yield part
