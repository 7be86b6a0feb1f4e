"""Pages of a select that cost the same at its first row and at its last.

``USERS = Pages(select(User), order_by=[User.created_at.desc()])`` is made once, beside the view,
and ``page = await USERS.rows(session, 50, cursor)`` has the rows behind those that the client has
seen. There is no OFFSET, which reads all that it skips: the cursor names the row where a page
begins, so rows that are added or deleted meanwhile neither repeat nor hide any other.
https://use-the-index-luke.com/no-offset
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, TypeVarTuple, overload

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.joins import AnySelect
from stillroom.pages.keyset import Keyset, Neighbours

__all__ = ["Neighbours", "Page", "Pages"]

T = TypeVar("T")
E = TypeVar("E")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, kw_only=True)
class Page(Neighbours, Generic[T]):
    """Hold the rows of a page, in the order of the pages whichever way it was reached."""

    rows: Sequence[T]


class Pages(Generic[T]):
    """Give the rows of a select page by page.

    The columns of `order_by` are ascending unless they say ``.desc()``. What tells two equal rows
    apart is added, in the direction of the last one: the primary key, where the order has no unique
    columns. `key` names it where the select is not one of tables. An index that has the columns of
    the order, each in its direction or each in the other, answers a page without a sort. `maximum`
    is the largest number of rows of a page.

    Raises ConfigurationError for a column that may be NULL, and for a select that has an order, a
    limit, or groups. That an expression is never NULL is the caller's word.
    """

    @overload
    def __init__(
        self: "Pages[E]",
        statement: Select[E],
        *,
        order_by: Sequence[Any],
        key: Sequence[Any] | None = None,
        maximum: int = 100,
    ) -> None: ...

    @overload
    def __init__(
        self: "Pages[Row[*Ts]]",
        statement: Select[*Ts],
        *,
        order_by: Sequence[Any],
        key: Sequence[Any] | None = None,
        maximum: int = 100,
    ) -> None: ...

    def __init__(
        self,
        statement: AnySelect,
        *,
        order_by: Sequence[Any],
        key: Sequence[Any] | None = None,
        maximum: int = 100,
    ) -> None:
        """Take a select, whose bind parameters get their values later, and its order."""
        self._keyset = Keyset(statement, order_by, key, maximum)
        self._width = len(statement.column_descriptions)

    async def rows(
        self, session: AsyncSession, limit: int, cursor: str | None = None, **values: Any
    ) -> Page[T]:
        """Return the page that a cursor leads to, the first one without a cursor.

        A select of one entity or column gives these, any other its rows. `values` are those of the
        select's bind parameters. Raises LimitError for a limit outside of 1 to `maximum`, and
        CursorError for what is no cursor of this order; both are a 422 in HTTP.
        """
        start = self._keyset.start(limit, cursor)
        statement = self._keyset.statements[start.kind]
        found = (await session.execute(statement, {**values, **start.values})).freeze()
        keys = found().scalars(self._width).all()
        kept = found().scalars() if self._width == 1 else found().columns(*range(self._width))
        rows: list[Any] = list(kept.all()[:limit])
        if start.position.is_backwards:
            rows.reverse()
        near, far = (keys[0], keys[len(rows) - 1]) if keys else (None, None)
        beside = self._keyset.neighbours(start, len(keys), near, far)
        return Page(rows=rows, next=beside.next, previous=beside.previous)
