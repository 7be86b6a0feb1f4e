"""The statements that a test sends: counted, measured, and traced to the line that sent each."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any, cast

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine, ExceptionContext, ExecutionContext
from sqlalchemy.exc import DBAPIError

from stillroom.testing.callsite import CallSite, find_call_site
from stillroom.testing.engines import is_routed
from stillroom.testing.queries.report import describe, repetitions, shape, summary


@dataclass(slots=True, eq=False)
class Query:
    """One statement as it was sent."""

    sql: str
    executions: int
    """How many sets of parameters went with it; more than one is an executemany."""
    call_site: CallSite | None
    transaction: int
    """The number of its transaction, counted from the log's first on."""
    began: float
    """When it was sent, in seconds of time.perf_counter."""
    milliseconds: float | None = None
    """How long the answer took; None while there is none."""
    row_count: int | None = None
    """How many rows the driver says were returned or changed; None where it does not say."""
    error: str | None = None

    @property
    def shape(self) -> str:
        """Return the statement without its values, alike for all that differ in these alone."""
        return shape(self.sql)


class QueryLog:
    """Record what every engine of the process sends, synchronous or not, in any thread and loop.

    A query is a statement that SQLAlchemy gives to the driver. What begins and ends transactions
    and savepoints is none, nor is what a dialect asks of its first connection, nor what the
    application says to the driver itself.
    """

    def __init__(self) -> None:
        self._entries: list[Query | str] = []
        self._transactions = count(1)
        self._listeners: dict[str, Any] = {
            "before_cursor_execute": self._note_start,
            "after_cursor_execute": self._note_end,
            "handle_error": self._note_error,
            "begin": self._note_begin,
            "commit": self._note_commit,
            "rollback": self._note_rollback,
        }

    def install(self) -> None:
        """Record from now on; engines that exist already are heard too."""
        for name, listener in self._listeners.items():
            if not event.contains(Engine, name, listener):
                event.listen(Engine, name, listener)

    def remove(self) -> None:
        """Record no more; what was recorded is kept."""
        for name, listener in self._listeners.items():
            if event.contains(Engine, name, listener):
                event.remove(Engine, name, listener)

    def clear(self) -> None:
        """Forget what was recorded: a test begins."""
        self._entries.clear()

    @property
    def statements(self) -> list[Query]:
        """Return the queries since the last clear(), in the order in which they were sent."""
        return _queries(self._entries)

    @property
    def count(self) -> int:
        """Return the number of queries since the last clear()."""
        return len(self.statements)

    @contextmanager
    def at_most(self, limit: int) -> Generator[None]:
        """Allow so many queries in the block, whichever task or thread sends them.

        Raises AssertionError, which lists what was sent and names an N+1, where there were more.
        An exception of the block passes as it is.
        """
        verb = "was" if limit == 1 else "were"
        with self._budget(0, limit, f"at most {limit} {verb} allowed"):
            yield

    @contextmanager
    def exactly(self, number: int) -> Generator[None]:
        """Expect so many queries in the block, no more and no less; else as `at_most`."""
        verb = "was" if number == 1 else "were"
        with self._budget(number, number, f"exactly {number} {verb} expected"):
            yield

    @contextmanager
    def none(self) -> Generator[None]:
        """Allow no query in the block; else as `at_most`."""
        with self._budget(0, 0, "none was allowed"):
            yield

    def repeated(self, limit: int) -> str:
        """Return what was sent more than `limit` times since the last clear(), empty if nothing."""
        return repetitions(self.statements, limit)

    def report(self) -> str:
        """Return all that was sent since the last clear(), in order; a long list loses its middle.

        It is empty where nothing was sent.
        """
        return describe(self._entries) if self.statements else ""

    @contextmanager
    def _budget(self, least: int, most: int, rule: str) -> Generator[None]:
        start = len(self._entries)
        yield
        sent = _queries(self._entries[start:])
        if not least <= len(sent) <= most:
            raise AssertionError(summary(sent, rule))

    def _note_start(
        self,
        connection: Connection,
        _cursor: object,
        sql: str,
        parameters: Any,
        context: Any,
        executemany: bool,
    ) -> None:
        # A dialect's questions to its first connection are the only ones outside a transaction.
        if not connection.in_transaction() or is_routed():
            return
        if _CONTROL.match(sql):
            self._entries.append(shape(sql))
            return
        query = Query(
            sql,
            # One INSERT of many rows is no executemany, but SQLAlchemy says so too.
            len(cast("Any", parameters)) if executemany and isinstance(parameters, list) else 1,
            find_call_site(),
            connection.info.get(_TRANSACTION, 0),
            perf_counter(),
        )
        self._entries.append(query)
        if context is not None:
            context.stillroom_query = query

    def _note_end(
        self,
        _connection: Connection,
        cursor: Any,
        _sql: str,
        _parameters: object,
        context: ExecutionContext | None,
        _executemany: bool,
    ) -> None:
        query: Query | None = getattr(context, "stillroom_query", None)
        if query is None or query.milliseconds is not None:
            return
        query.milliseconds = (perf_counter() - query.began) * 1000
        if cursor.rowcount >= 0:
            query.row_count = cursor.rowcount

    def _note_error(self, context: ExceptionContext) -> None:
        query: Query | None = getattr(context.execution_context, "stillroom_query", None)
        if query is None or query.milliseconds is not None:
            return
        query.milliseconds = (perf_counter() - query.began) * 1000
        query.error = _describe_error(context)

    def _note_begin(self, connection: Connection) -> None:
        connection.info[_TRANSACTION] = next(self._transactions)
        self._note("BEGIN")

    def _note_commit(self, _connection: Connection) -> None:
        self._note("COMMIT")

    def _note_rollback(self, _connection: Connection) -> None:
        self._note("ROLLBACK")

    def _note(self, control: str) -> None:
        if not is_routed():
            self._entries.append(control)


def _queries(entries: list[Query | str]) -> list[Query]:
    return [entry for entry in entries if isinstance(entry, Query)]


def _describe_error(context: ExceptionContext) -> str:
    # As text, and its first line alone: the exception would keep all the frames of its traceback,
    # and the lines below repeat the values of the row.
    error: BaseException | None = context.original_exception
    if isinstance(context.sqlalchemy_exception, DBAPIError):
        error = context.sqlalchemy_exception.driver_exception
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


_TRANSACTION = "stillroom.transaction"

_CONTROL = re.compile(
    r"\s*(BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE
)
