"""Rows by the attributes of a model: what each gives, what Python adds, and what is left out."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Hashable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from sqlalchemy import Column, Table, bindparam
from sqlalchemy.orm import Mapper

from stillroom.errors import ConfigurationError, RowError

Row: TypeAlias = Mapping[str, Any]

Rows: TypeAlias = Iterable[Row] | AsyncIterable[Row]
"""Rows by the names of attributes, from a list, a generator or an asynchronous one."""


@dataclass(frozen=True)
class Plan:
    """Say how rows that give the same attributes are written."""

    given: frozenset[str]
    names: tuple[str, ...]
    columns: tuple[Column[Any], ...]
    needs_insert: bool
    _missing: Mapping[str, None]
    _defaults: tuple[tuple[str, Callable[[Row], Any]], ...]

    def values(self, row: Row) -> list[Any]:
        """Return the values of the columns."""
        whole = {**self._missing, **row}
        for name, default in self._defaults:
            whole[name] = default(whole)
        return [whole[name] for name in self.names]


class Layout:
    """Know the columns of a model by its attributes, and who fills those that a row does not give.

    Defaults of Python are evaluated for each row. Those of PostgreSQL are left to it: their columns
    are not written. A column that may be NULL and has neither is written as NULL.
    """

    def __init__(self, mapper: Mapper[Any]) -> None:
        table: Any = mapper.local_table
        is_one = isinstance(table, Table) and len(mapper.tables) == 1
        if not is_one:
            msg = (
                f"{mapper.class_.__name__} is not of one table; write the rows of each of its "
                "tables by a model of that table, or add them to the session."
            )
            raise ConfigurationError(msg)
        self.name = mapper.class_.__name__
        self.table: Table[Any] = table
        self.columns: dict[str, Column[Any]] = {
            attribute.key: column
            for attribute in mapper.column_attrs
            if isinstance(column := attribute.columns[0], Column) and column.table is self.table
        }
        self.key = list(self.table.primary_key)
        self.has_version = mapper.version_id_col is not None
        self.of_mapper = dict(_defaults_of(mapper))
        self._plans: dict[frozenset[str], Plan] = {}

    def plan(self, row: Row, number: int | None = None) -> Plan:
        """Return how a row is written.

        Raises RowError where it names what the model does not have, or lacks what it must have.
        """
        self.require_known(row, number)
        given = frozenset(row)
        if given not in self._plans:
            self._plans[given] = self._make(given, number)
        return self._plans[given]

    def require_known(self, row: Row, number: int | None = None) -> None:
        """Raise RowError where a row is no mapping, or has an attribute that the model has not."""
        where = self.name if number is None else f"Row {number} of {self.name}"
        if not isinstance(row, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            msg = f"{where} is a {type(row).__name__}; a row is a dict by the names of attributes."
            raise RowError(msg)
        if unknown := sorted(set(row) - self.columns.keys(), key=str):
            msg = f"{where} has no attribute {', '.join(map(repr, unknown))}; it has {self._has}."
            raise RowError(msg)

    @cached_property
    def _has(self) -> str:
        return ", ".join(self.columns)

    def _make(self, given: frozenset[str], number: int | None) -> Plan:
        defaults: dict[str, Callable[[Row], Any]] = {}
        missing: dict[str, None] = {}
        has_expression = False
        for name, column in self.columns.items():
            if name in given:
                continue
            if (default := self.of_mapper.get(column) or _default_of(column)) is not None:
                defaults[name] = default
            elif column.default is not None:
                has_expression = True
            elif _is_filled_by_postgresql(column):
                continue
            elif not column.nullable:
                msg = f"Row {number} of {self.name} lacks {name!r}, which has no default."
                raise RowError(msg)
            elif not column.type.should_evaluate_none:  # else None would be the null of JSON
                missing[name] = None
        written = {*given, *defaults, *missing}
        names = [name for name in self.columns if name in written]
        columns = tuple(self.columns[name] for name in names)
        # A COPY takes values alone, and some at least.
        needs_insert = has_expression or not names or any(map(_is_written_by_sql, columns))
        return Plan(
            given,
            tuple(names),
            columns,
            needs_insert,
            missing,
            tuple(defaults.items()),
        )


class Context:
    """Be to a default what it knows of the INSERT that it is evaluated for."""

    def __init__(self, parameters: Row) -> None:
        self.current_parameters = parameters

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> Row:  # noqa: ARG002
        """Return the values of the row.

        https://docs.sqlalchemy.org/en/21/core/defaults.html#context-sensitive-default-functions
        """
        return self.current_parameters


class Runs:
    """Part rows into runs of which one statement can write each."""

    def __init__(self, layout: Layout, rows: Rows, alike: Callable[[Plan], Hashable]) -> None:
        """Take the rows, and what is the same in all of a run."""
        self.count = 0
        self._layout = layout
        self._alike = alike
        self._rows = _iterate(rows)
        self._held: tuple[Plan, Row] | None = None

    async def next(self) -> Plan | None:
        """Return how the next run is written, or None at the end."""
        if self._held is None:
            async for row in self._rows:
                self._hold(row)
                break
        return None if self._held is None else self._held[0]

    async def values(self) -> AsyncGenerator[list[Any]]:
        """Yield the values of each row of the run that `next` has begun."""
        assert self._held is not None  # noqa: S101  (`next` has begun it)
        plan, row = self._held
        alike = self._alike(plan)
        self._held = None
        yield plan.values(row)
        async for row in self._rows:
            if getattr(row, "keys", tuple)() != plan.given:
                plan = self._hold(row)
                if self._alike(plan) != alike:
                    return
                self._held = None
            else:
                self.count += 1
            yield plan.values(row)

    async def batches(self) -> AsyncGenerator[list[dict[str, Any]]]:
        """Yield the rows of the run for an INSERT, so many at a time."""
        assert self._held is not None  # noqa: S101  (`next` has begun it)
        keys = [column.key for column in self._held[0].columns]
        size = _BATCH if keys else 1  # SQLAlchemy takes no list of rows that give nothing
        batch: list[dict[str, Any]] = []
        async with aclosing(self.values()) as rows:
            async for values in rows:
                batch.append(dict(zip(keys, values, strict=True)))
                if len(batch) == size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def refuse(self, why: str) -> RowError:
        """Return the error that names the row that was read last."""
        return RowError(f"Row {self.count} of {self._layout.name} {why}")

    async def aclose(self) -> None:
        """Ask for no more rows."""
        await self._rows.aclose()

    def _hold(self, row: Row) -> Plan:
        self.count += 1
        plan = self._layout.plan(row, self.count)
        self._held = plan, row
        return plan


def _defaults_of(mapper: Mapper[Any]) -> Iterable[tuple[Any, Callable[[Row], Any]]]:
    """Yield what the mapper itself would write: the class of a row, and its first version."""
    identity, version = mapper.polymorphic_identity, mapper.version_id_generator
    if mapper.polymorphic_on is not None and identity is not None:
        yield mapper.polymorphic_on, lambda _: identity
    if mapper.version_id_col is not None and version:
        yield mapper.version_id_col, lambda _: version(None)


def _default_of(column: Column[Any]) -> Callable[[Row], Any] | None:
    default: Any = column.default
    if default is None or default.is_clause_element or default.is_sequence:
        return None
    if default.is_callable:
        return lambda row: default.arg(Context(row))
    return lambda _: default.arg


def _is_written_by_sql(column: Column[Any]) -> bool:
    value = bindparam("value", type_=column.type)
    return column.type.bind_expression(value) is not None


def _is_filled_by_postgresql(column: Column[Any]) -> bool:
    return (
        column.server_default is not None
        or column.identity is not None
        or column.computed is not None
        or column is column.table.autoincrement_column
    )


async def _iterate(rows: Rows) -> AsyncGenerator[Row]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
        return
    for number, row in enumerate(rows, 1):
        if number % _TURN == 0:
            await asyncio.sleep(0)  # others have their turn, and a cancellation arrives
        yield row


_TURN = 500
_BATCH = 1000
