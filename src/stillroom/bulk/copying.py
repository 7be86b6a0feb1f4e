"""COPY in the connection and the transaction of a session, on either driver."""

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import anyio
from sqlalchemy import Connection, Dialect, Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Mapper

from stillroom.bulk.rows import Layout, Plan, Rows, Runs


async def create_many(session: AsyncSession, mapper: Mapper[Any], rows: Rows) -> int:
    """Write rows of a model and return their number, as `Model.create_many` says."""
    layout = Layout(mapper)
    await session.flush()
    connection = await session.connection(bind_arguments={"mapper": mapper})
    async with aclosing(Runs(layout, rows, lambda plan: plan.columns)) as runs:
        while (plan := await runs.next()) is not None:
            copy = await _Copy.make(connection, layout.table, plan)
            if not plan.needs_insert and await copy.takes_all():
                await copy.write(runs)
                continue
            async with aclosing(runs.batches()) as batches:
                async for batch in batches:
                    await connection.execute(insert(layout.table), batch)
    return runs.count


@dataclass(frozen=True)
class _Copy:
    """Write rows by the COPY of a driver, of which SQLAlchemy knows nothing."""

    connection: AsyncConnection
    driver: Any
    schema: str | None
    table: "Table[Any]"
    plan: Plan

    @classmethod
    async def make(cls, connection: AsyncConnection, table: "Table[Any]", plan: Plan) -> "_Copy":
        driver = (await connection.get_raw_connection()).driver_connection
        assert connection.sync_connection is not None  # noqa: S101  (it has started)
        options = connection.sync_connection.get_execution_options()
        schemas: Any = options.get("schema_translate_map") or {}
        return cls(connection, driver, schemas.get(table.schema, table.schema), table, plan)

    @property
    def statement(self) -> str:
        """Return the statement, as errors show it."""
        preparer = self.connection.dialect.identifier_preparer
        columns = ", ".join(preparer.quote(column.name) for column in self.plan.columns)
        name = preparer.quote(self.table.name)
        schema = "" if self.schema is None else f"{preparer.quote_schema(self.schema)}."
        return f"COPY {schema}{name} ({columns}) FROM STDIN"

    async def takes_all(self) -> bool:
        """Say whether the driver can write the types of all columns.

        Asyncpg sends rows in binary, and finds out too late which types it has only as text: the
        transaction is aborted then. So a COPY of no rows is tried first, once for all.
        """
        if not _is_asyncpg(self.driver):
            return True
        known = _taken.setdefault(self.connection.dialect, {})
        key = self.schema, self.plan.columns
        if key not in known:
            known[key] = await self._try()
        return known[key]

    async def write(self, runs: Runs) -> None:
        """Write the rows of a run.

        Raises what SQLAlchemy raises for an INSERT; an error of the rows themselves as it is.
        """
        failures: list[BaseException] = []
        async with aclosing(self._records(runs, failures)) as records, self._errors(failures):
            await self._send(records)

    async def _try(self) -> bool:
        asyncpg: Any = self.connection.dialect.loaded_dbapi.asyncpg
        async with self._errors([]):
            savepoint = self.driver.transaction()
            await savepoint.start()
            try:
                await self._copy_records([])
            except asyncpg.InternalClientError:
                return False
            finally:
                await savepoint.rollback()
        return True

    async def _send(self, records: AsyncGenerator[list[Any]]) -> None:
        if _is_asyncpg(self.driver):
            await self._begin()
            await self._copy_records(records)
            return
        async with self.driver.cursor() as cursor, _Wholly(cursor.copy(self.statement)) as copy:
            async for record in records:
                await copy.write_row(record)

    async def _copy_records(self, records: Any) -> None:
        columns = [column.name for column in self.plan.columns]
        await self.driver.copy_records_to_table(
            self.table.name, schema_name=self.schema, columns=columns, records=records
        )

    async def _begin(self) -> None:
        # SQLAlchemy begins a transaction of asyncpg with the first statement that it runs itself.
        if not self.driver.is_in_transaction():
            await self.connection.exec_driver_sql("SELECT 1")

    async def _records(
        self, runs: Runs, failures: list[BaseException]
    ) -> AsyncGenerator[list[Any]]:
        dialect = self.connection.dialect
        processors = [
            (place, process)
            for place, column in enumerate(self.plan.columns)
            if (process := column.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        ]
        try:
            async with aclosing(runs.values()) as rows:
                async for values in rows:
                    for place, process in processors:
                        try:
                            values[place] = process(values[place])
                        except Exception as error:
                            why = f"has a bad {self.plan.names[place]!r}: {error}"
                            raise runs.refuse(why) from error
                    yield values
        except Exception as error:
            failures.append(error)
            raise

    @asynccontextmanager
    async def _errors(self, known: Collection[BaseException]) -> AsyncGenerator[None]:
        """Raise the errors of the driver as SQLAlchemy raises those of a statement."""
        try:
            yield
        except Exception as error:
            if error not in known:
                await self.connection.run_sync(_raise_as_of_sqlalchemy, error, self.statement)
            raise


class _Wholly:
    """Leave the COPY of psycopg wholly: PostgreSQL has to be told that no more rows will come.

    Anyio repeats a cancellation on each turn of the loop, and would cut that off.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    async def __aenter__(self) -> Any:
        return await self._context.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        if error[1] is None:
            await self._context.__aexit__(*error)
            return
        with anyio.move_on_after(_PATIENCE, shield=True):
            await self._context.__aexit__(*error)


def _is_asyncpg(driver: Any) -> bool:
    return hasattr(driver, "copy_records_to_table")


def _raise_as_of_sqlalchemy(connection: Connection, error: Exception, statement: str) -> None:
    dbapi: Any = connection.dialect.loaded_dbapi
    adapted: Any = connection.connection.dbapi_connection
    if isinstance(error, _OF_A_VALUE) and hasattr(dbapi, "asyncpg"):
        # Asyncpg wraps what it cannot encode for a statement, and not for a COPY.
        wrapped = dbapi.asyncpg.DataError(f"A value cannot be written: {error}")
        wrapped.__cause__ = error
        error = wrapped
    try:
        adapted._handle_exception(error)
    except dbapi.Error as translated:
        connection._handle_dbapi_exception(translated, statement, None, None, None)


_PATIENCE = 5.0
"""How long PostgreSQL may take to end a COPY that failed, in seconds; then the session does it."""

_OF_A_VALUE = (ArithmeticError, AttributeError, TypeError, ValueError)

# By dialect, of which each engine has its own: whether a COPY takes the columns of a plan.
_taken: WeakKeyDictionary[Dialect, dict[Any, bool]] = WeakKeyDictionary()
