"""A COMMIT that PostgreSQL answers with ROLLBACK is an error."""

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError

from stillroom.errors import UncommittedWritesError


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


_FAILED = "stillroom.failed"
