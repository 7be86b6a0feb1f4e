"""INSERT ... ON CONFLICT DO UPDATE: rows that are made, or changed where they are there already."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Column, Index
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper

from stillroom.bulk.rows import Context, Layout, Row, Rows, Runs
from stillroom.errors import ConfigurationError

T = TypeVar("T")

On: TypeAlias = str | Sequence[str]
"""What makes two rows one: an attribute, several, or the name of a constraint or unique index."""


async def upsert(session: AsyncSession, mapper: Mapper[T], values: Row, on: On) -> T:
    """Write one row and return it, as `Model.upsert` says."""
    layout = Layout(mapper)
    layout.require_known(values)
    given = {layout.columns[name]: value for name, value in values.items()}
    made = {column: default(values) for column, default in layout.of_mapper.items()}
    await session.flush()
    statement = _upsert(insert(mapper.class_), layout, given, on)
    rows = await session.scalars(
        statement.values({**made, **given}).returning(mapper.class_),
        execution_options={"populate_existing": True},
    )
    return rows.one()


async def upsert_many(session: AsyncSession, mapper: Mapper[Any], rows: Rows, on: On) -> int:
    """Write rows and return their number, as `Model.upsert_many` says."""
    layout = Layout(mapper)
    await session.flush()
    connection = await session.connection(bind_arguments={"mapper": mapper})
    async with aclosing(Runs(layout, rows, lambda plan: plan.given)) as runs:
        while (plan := await runs.next()) is not None:
            given = [layout.columns[name] for name in plan.given]
            # With RETURNING, SQLAlchemy writes many rows by one statement.
            statement = _upsert(insert(layout.table), layout, given, on).returning(*layout.key)
            async with aclosing(runs.batches()) as batches:
                async for batch in batches:
                    await connection.execute(statement, batch)
    return runs.count


def _upsert(statement: Insert, layout: Layout, given: Collection[Column[Any]], on: On) -> Insert:
    """Return the statement that changes what is given, except of what makes two rows one."""
    if layout.has_version:
        msg = (
            f"{layout.name} has a version, which an upsert would pass over. Read the row with "
            "FOR UPDATE, and change it or create it."
        )
        raise ConfigurationError(msg)
    target = _target(layout, on)
    same = {*layout.key, *_columns(layout, target)}
    changed: dict[Any, Any] = {
        column: statement.excluded[column.key] for column in given if column not in same
    }
    if changed:
        changed = {**dict(_touched(layout, given)), **changed}
    else:  # without a change nothing would be returned of a row that is there
        changed = {column: column for column in layout.key}
    return statement.on_conflict_do_update(**target, set_=changed)


def _target(layout: Layout, on: On) -> dict[str, Any]:
    names = [on] if isinstance(on, str) else list(on)
    if names and layout.columns.keys() >= set(names):
        return {"index_elements": [layout.columns[name] for name in names]}
    named: dict[Any, Any] = {it.name: it.name for it in layout.table.constraints if it.name}
    named |= {index.name: index for index in layout.table.indexes if index.unique}
    if isinstance(on, str) and on in named:
        return {"constraint": named[on]}
    msg = (
        f"{layout.name} has neither attributes nor a constraint or unique index for on={on!r}; it "
        f"has {', '.join([*layout.columns, *sorted(named)])}."
    )
    raise ConfigurationError(msg)


def _columns(layout: Layout, target: dict[str, Any]) -> Iterator[Any]:
    """Yield the columns in which the row that is there equals the new one."""
    constraint = target.get("constraint")
    if isinstance(constraint, Index):
        # One of an expression, as in lower(email), may differ.
        yield from (it for it in constraint.expressions if isinstance(it, Column))
    elif constraint is not None:
        for known in layout.table.constraints:
            if known.name == constraint:
                yield from getattr(known, "columns", ())
    else:
        yield from target["index_elements"]


def _touched(layout: Layout, given: Collection[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield what Python has for columns of a row that is changed.

    https://docs.sqlalchemy.org/en/21/core/defaults.html#python-executed-functions
    """
    for column in layout.columns.values():
        update: Any = column.onupdate
        if update is not None and column not in set(given):
            yield column, update.arg(Context({})) if update.is_callable else update.arg
