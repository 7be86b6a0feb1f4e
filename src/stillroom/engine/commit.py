"""What a COMMIT has done: ROLLBACK is no success, and a lost answer is asked for."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, PoolProxiedConnection, event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from stillroom.engine.driver import fetch_row, is_quiet
from stillroom.engine.outcome import Inquiry, Transaction
from stillroom.errors import StillroomError, UncommittedWritesError


def refuse_lost_commit(engine: Engine) -> None:
    """Let the COMMIT of a transaction that a failed statement has aborted raise."""

    # PostgreSQL answers the COMMIT of an aborted transaction with "ROLLBACK" and no error, and the
    # drivers pass over it: a caller that caught the error of a statement and went on would believe
    # its work to be committed. https://www.postgresql.org/docs/current/sql-commit.html
    def note_begin(connection: Connection) -> None:
        connection.info.pop(_FAILED, None)

    def note_error(context: ExceptionContext) -> None:
        if context.connection is not None and not context.is_disconnect:
            context.connection.info[_FAILED] = True

    def check(connection: Connection) -> None:
        if not connection.info.pop(_FAILED, False):
            return
        try:
            connection.exec_driver_sql("SELECT 1")  # refused while the transaction is aborted
        except DBAPIError as error:
            # SQLAlchemy takes a COMMIT that raises for the end of the transaction.
            engine.dialect.do_rollback(connection.connection)
            msg = (
                "Nothing was committed: a statement of the transaction had failed, which aborts "
                "all of it, and its error was passed over. Let the error out, or run a statement "
                "that may fail in a savepoint: async with session.begin_nested()."
            )
            raise UncommittedWritesError(msg) from error

    event.listen(engine, "begin", note_begin)
    event.listen(engine, "handle_error", note_error)
    event.listen(engine, "commit", check)


def settle_lost_commits(engine: Engine, inquiry: Inquiry) -> None:
    """Let a COMMIT whose connection was lost end as PostgreSQL says that it has.

    It succeeds where it has been committed, and raises RolledBackError where all of it was
    rolled back: it may be tried again. Raises UnknownOutcomeError where PostgreSQL cannot tell.
    """
    _inquiries[engine] = inquiry
    dialect = engine.dialect
    send_commit = dialect.do_commit

    def commit(dbapi_connection: PoolProxiedConnection) -> None:
        if is_quiet(dbapi_connection.dbapi_connection):
            send_commit(dbapi_connection)
            return
        transaction: Transaction | None = None
        try:
            transaction = _identify(dbapi_connection)
            send_commit(dbapi_connection)
        except dialect.loaded_dbapi.Error as error:
            if not dialect.is_disconnect(error, dbapi_connection.dbapi_connection, None):
                if transaction is None:
                    dialect.do_rollback(
                        dbapi_connection
                    )  # SQLAlchemy takes the transaction for ended
                raise
            failure = await_only(inquiry.failure_of(transaction))
            if failure is not None:
                vars(error)[_FAILURE] = failure
                raise
            # As after any lost connection: those of the pool are as old, and none is trusted.
            engine.pool._invalidate(dbapi_connection, error, _checkin=False)
            _of(dbapi_connection).invalidate(error)

    dialect.do_commit = commit  # type: ignore[method-assign]
    event.listen(engine, "commit", _note)
    event.listen(engine, "handle_error", _failure_of, retval=True)


def inquiry_of(engine: Engine) -> Inquiry | None:
    """Return what may be asked about the transactions of an engine, None where nothing is."""
    return _inquiries.get(engine)


def _note(connection: Connection) -> None:
    connection.info[_CONNECTION] = ref(connection)  # a dialect commits without it


def _of(proxied: PoolProxiedConnection) -> Connection:
    connection: Connection | None = proxied.info[_CONNECTION]()
    assert connection is not None  # noqa: S101  (it is committing)
    return connection


def _failure_of(context: ExceptionContext) -> StillroomError | None:
    return vars(context.original_exception).get(_FAILURE)


def _identify(proxied: PoolProxiedConnection) -> Transaction:
    history = proxied.info.get(_HISTORY)
    if history is not None:
        (number,) = _row(proxied, _ID)
    else:
        number, history = _row(proxied, _ID_AND_HISTORY)
        proxied.info[_HISTORY] = history
    return Transaction(number, history)


def _row(proxied: PoolProxiedConnection, statement: str) -> Sequence[Any]:
    connection: Any = proxied.dbapi_connection
    row: Sequence[Any] | None
    if hasattr(connection.driver_connection, "fetchrow"):
        row = await_only(fetch_row(connection, statement))
    else:
        cursor = connection.cursor()
        try:
            cursor.execute(statement)
            row = cursor.fetchone()
        finally:
            cursor.close()
    assert row is not None  # noqa: S101  (it has no FROM)
    return row


_FAILED = "stillroom.failed"
_CONNECTION = "stillroom.committing"
_FAILURE = "stillroom.failure"
_HISTORY = "stillroom.history"

# The id of a transaction that wrote, and the time from which on the server has its statistics: it
# loses them in a crash, as it may lose ids, and keeps them in an orderly restart; another server
# has a time of its own. https://www.postgresql.org/docs/current/monitoring-stats.html
_ID = "SELECT pg_current_xact_id_if_assigned()::text"
_ID_AND_HISTORY = (
    "SELECT pg_current_xact_id_if_assigned()::text, "
    "(SELECT stats_reset::text FROM pg_stat_bgwriter)"
)

_inquiries: WeakKeyDictionary[Engine, Inquiry] = WeakKeyDictionary()
