"""Pages that PostgreSQL answers as JSON: `stillroom.pages` without a row object in between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Integer, bindparam, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.joins import AnySelect
from stillroom.json.rows import columns_of, object_from, utf8, with_relationships
from stillroom.json.statement import ReadyStatement, read_row
from stillroom.pages.keyset import KEY, LIMIT, Keyset, Neighbours


@dataclass(frozen=True, kw_only=True)
class JSONPage(Neighbours):
    """Hold a page as a JSON array of objects."""

    body: bytes


class JSONPages:
    """Answer a select page by page as JSON in the form of a Pydantic model.

    ``USERS = JSONPages(select(User), UserSchema, order_by=[User.created_at.desc()])`` is made once,
    and ``page = await USERS.read(session, 50, cursor)`` is one round trip. The order, the key and
    the cursors are those of `stillroom.pages.Pages`, the JSON is that of `JSONSelect`; it raises
    what these raise.
    """

    def __init__(
        self,
        statement: AnySelect,
        model: type[BaseModel],
        *,
        order_by: Sequence[Any],
        key: Sequence[Any] | None = None,
        maximum: int = 100,
    ) -> None:
        """Take a select, whose bind parameters get their values later, a model and the order."""
        whole = with_relationships(statement, model)
        self._keyset = Keyset(whole, order_by, key, maximum)
        self._statements: Mapping[tuple[bool, bool], ReadyStatement] = {
            kind: ReadyStatement(_page(found, model, is_backwards=kind[0]))
            for kind, found in self._keyset.statements.items()
        }

    async def read(
        self, session: AsyncSession, limit: int, cursor: str | None = None, **values: Any
    ) -> JSONPage:
        """Return the page that a cursor leads to, as `Pages.rows` does."""
        start = self._keyset.start(limit, cursor)
        row = await read_row(session, self._statements[start.kind], {**values, **start.values})
        assert row is not None  # noqa: S101  (an aggregate has one)
        body, count, near, far = row
        beside = self._keyset.neighbours(start, count, near, far)
        return JSONPage(body=body, next=beside.next, previous=beside.previous)


def _page(found: AnySelect, model: type[BaseModel], *, is_backwards: bool) -> AnySelect:
    """Return the select of the array, the number of rows found, and the first and the last key."""
    limit = bindparam(LIMIT, type_=Integer)
    inner = found.subquery()
    rows = select(*inner.c, func.row_number().over().label(_PLACE)).subquery()
    place = rows.c[_PLACE]
    objects = select(*columns_of(found, model, rows)).correlate(rows).lateral()
    each = object_from(objects)
    ordered = aggregate_order_by(each, place.desc()) if is_backwards else each
    array = func.json_agg(ordered).filter(place <= limit)
    key = rows.c[KEY]
    return select(
        utf8(func.coalesce(array, literal_column("'[]'::json"))),
        func.count(),
        func.max(key).filter(place == 1),
        func.max(key).filter(place == limit),
    ).select_from(rows.join(objects, true()))


_PLACE = "_place"
