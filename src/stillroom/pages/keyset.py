"""The statements of the pages of a select, and the cursors from one page to the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, bindparam

from stillroom.errors import ConfigurationError, LimitError
from stillroom.joins import AnySelect
from stillroom.pages.cursor import Position, read_cursor, read_key, write_cursor
from stillroom.pages.order import Order

KEY = "_key"
"""The column of each statement that has the key of the row, its last one."""

LIMIT = "_limit"
"""The parameter of each statement that says how many rows a page has."""


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Say where the pages beside a page begin; None where there is none."""

    next: str | None
    previous: str | None


@dataclass(frozen=True)
class Start:
    """Say where one page begins, and how many rows it has."""

    position: Position
    limit: int
    values: Mapping[str, Any]

    @property
    def kind(self) -> tuple[bool, bool]:
        """Return what of `Keyset.statements` reads it."""
        return self.position.is_backwards, bool(self.position.key)


class Keyset:
    """Read a select page by page in a total order.

    `statements` has the select for each direction, from an end or from a key. It gives one row more
    than the page has, if there is one, and has rows that go backwards in that direction.
    """

    def __init__(
        self,
        statement: AnySelect,
        order_by: Sequence[Any],
        key: Sequence[Any] | None,
        maximum: int,
    ) -> None:
        if maximum < 1:
            msg = f"maximum is {maximum}; a page has at least one row"
            raise ConfigurationError(msg)
        _require_whole(statement)
        self._maximum = maximum
        self._order = Order(statement, order_by, key)
        self.statements = {
            (is_backwards, has_key): self._select(statement, is_backwards, has_key)
            for is_backwards in (False, True)
            for has_key in (False, True)
        }

    def start(self, limit: int, cursor: str | None) -> Start:
        """Return where a page begins.

        Raises LimitError and CursorError for what no client was told to ask for.
        """
        if not 1 <= limit <= self._maximum:
            msg = f"A page has 1 to {self._maximum} rows, not {limit}."
            raise LimitError(msg)
        order = self._order
        position = Position() if cursor is None else read_cursor(cursor, order.text, order.size)
        return Start(position, limit, {LIMIT: limit, **order.values(position.key)})

    def neighbours(self, start: Start, count: int, near: str | None, far: str | None) -> Neighbours:
        """Return the cursors beside a page for which `count` rows were found.

        `near` and `far` are the keys of its first and its last row, in the direction it goes.
        """
        here = start.position
        ahead = behind = None
        if far is not None and count > start.limit:
            ahead = Position(here.is_backwards, read_key(far))
        if here.key:
            # Nothing lies beyond the key of an empty page: all rows are on the way back.
            behind = Position(not here.is_backwards, read_key(near) if near else ())
        following, previous = (behind, ahead) if here.is_backwards else (ahead, behind)
        return Neighbours(next=self._cursor(following), previous=self._cursor(previous))

    def _select(self, statement: AnySelect, is_backwards: bool, has_key: bool) -> AnySelect:
        if has_key:
            statement = statement.where(self._order.beyond(is_backwards=is_backwards))
        return (
            statement.add_columns(self._order.key().label(KEY))
            .order_by(*self._order.columns(is_backwards=is_backwards))
            .limit(bindparam(LIMIT, type_=Integer) + 1)
        )

    def _cursor(self, position: Position | None) -> str | None:
        return None if position is None else write_cursor(position, self._order.text)


def _require_whole(statement: AnySelect) -> None:
    """Refuse a select in which a condition on a row would mean something else."""
    for clause, is_there in {
        "ORDER BY": statement._order_by_clauses,
        "LIMIT": statement._limit_clause is not None,
        "OFFSET": statement._offset_clause is not None,
        "GROUP BY": statement._group_by_clauses,
        "DISTINCT": statement._distinct,
    }.items():
        if is_there:
            msg = (
                f"The statement of pages has its own {clause}. The order goes into order_by; rows "
                "that are grouped or chosen come from a subquery, with key=[...]."
            )
            raise ConfigurationError(msg)
