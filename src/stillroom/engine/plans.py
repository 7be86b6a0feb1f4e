"""Statements whose plan a change of the schema has made old."""

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext


def renew_old_plans(engine: Engine) -> None:
    """Run a statement again that asyncpg refuses for its old plan, where it comes first.

    What has aborted the transaction was all that there was of it, so nobody else need be told. A
    later statement raises: what went before is lost with it.
    """

    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        connection = cursor._adapt_connection
        if connection._transaction is not None:
            return False
        try:
            cursor.execute(statement, parameters)
        except connection.dbapi.InvalidCachedStatementError as error:
            connection.rollback()
            context.handle_dbapi_exception(error)  # as SQLAlchemy does: all plans are old now
            cursor._invalidate_schema_cache_asof = context.dialect._invalidate_schema_cache_asof
            cursor.execute(statement, parameters)
        return True

    event.listen(engine, "do_execute", execute)


def give_up_old_plans(context: ExceptionContext) -> None:
    """Close a connection of psycopg that has a statement with an old plan; for "handle_error".

    It would fail for as long as the connection lives. SQLAlchemy's dialect for asyncpg prepares all
    of them anew, that for psycopg does not.
    """
    if "cached plan must not change result type" in str(context.original_exception):
        context.is_disconnect = True
