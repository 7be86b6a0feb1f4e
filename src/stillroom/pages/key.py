"""Which columns tell each row of a select from every other one."""

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Alias, ColumnElement, FromClause, Join, Table, UniqueConstraint
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, ColumnClause
from sqlalchemy.sql.visitors import iterate

from stillroom.errors import ConfigurationError
from stillroom.joins import AnySelect


def missing_key(
    statement: AnySelect, ordered: Collection[ColumnElement[Any]]
) -> list[ColumnElement[Any]]:
    """Return the primary keys that make an order of a select total.

    A table whose key or other unique columns are ordered by needs none, nor does one that is joined
    by these: it repeats no row. Raises ConfigurationError for what has no primary key.
    """
    known = set(ordered)
    return [
        column
        for relation in _repeating(statement.get_final_froms())
        if not any(key <= known for key in _keys(relation))
        for column in _primary_key(relation)
        if column not in known
    ]


def _repeating(froms: Collection[FromClause]) -> Iterator[FromClause]:
    """Yield the relations of which one row of the select may have any row."""
    for relation in froms:
        if not isinstance(relation, Join):
            yield relation
            continue
        yield from _repeating([relation.left])
        right = relation.right
        equated = set(_equated(relation.onclause, right))
        if isinstance(right, Join) or not any(key <= equated for key in _keys(right)):
            yield from _repeating([right])


def _equated(clause: Any, relation: FromClause) -> Iterator[Any]:
    """Yield the columns of a relation that a condition makes equal to something outside of it."""
    if isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            yield from _equated(part, relation)
    elif isinstance(clause, BinaryExpression) and clause.operator is operators.eq:
        own = set(relation.c)
        for column, other in ((clause.left, clause.right), (clause.right, clause.left)):
            if column in own and not own & set(iterate(other)):
                yield column


def _keys(relation: FromClause) -> Iterator[set[Any]]:
    """Yield the sets of columns of which no two rows of a relation have the same."""
    table = relation.element if isinstance(relation, Alias) else relation
    if not isinstance(table, Table):
        return  # a subquery may say that a column is a key, and repeat it
    if primary_key := set(relation.primary_key):
        yield primary_key
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint) and not constraint.deferrable:
            yield {relation.c[column.key] for column in constraint.columns}
    for index in table.indexes:
        columns: list[Any] = list(index.expressions)
        is_whole = index.dialect_options["postgresql"]["where"] is None
        if index.unique and is_whole and all(isinstance(it, ColumnClause) for it in columns):
            yield {relation.c[column.key] for column in columns}


def _primary_key(relation: FromClause) -> list[ColumnElement[Any]]:
    columns: list[ColumnElement[Any]] = list(relation.primary_key)
    if not columns or not any(_keys(relation)):
        name = getattr(relation, "name", None) or type(relation).__name__
        msg = (
            f"{name} is no table with a primary key, so rows that are equal in the order could be "
            "skipped. Say which columns tell the rows of the select apart: Pages(..., key=[...])."
        )
        raise ConfigurationError(msg)
    return columns
