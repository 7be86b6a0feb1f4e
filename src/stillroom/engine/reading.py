"""Connections that PostgreSQL holds to reading, and that begin a transaction only where it matters.

Under READ COMMITTED each statement has a snapshot of its own, in a transaction or not, so a SELECT
by itself reads what it would read between BEGIN and ROLLBACK, in one round trip instead of three.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from stillroom.engine.driver import is_quiet
from stillroom.engine.pooler import goes_through_pooler
from stillroom.errors import ConfigurationError

READ_ONLY = {"default_transaction_read_only": "on"}
"""What a connection starts with: it holds for each transaction, begun or not.

https://www.postgresql.org/docs/current/runtime-config-client.html
"""


def hold_to_reading(engine: Engine) -> None:
    """Begin a transaction where a statement could tell, and refuse options that would let it write.

    The connections of the engine are in AUTOCOMMIT, and start with READ_ONLY; through a pooler,
    which refuses that, each transaction is READ ONLY.
    """
    dialect = engine.dialect

    def begin(cursor: Any, statement: str, *arguments: Any) -> None:
        connection: Connection = arguments[-1].root_connection
        _refuse_to_write(connection.get_execution_options())
        if goes_through_pooler(dialect):
            _begin_read_only(connection)
        elif (
            cursor.server_side
            or dialect.default_isolation_level != "READ COMMITTED"
            or not is_the_same_alone(statement)
        ):
            leave_autocommit(connection)

    def end(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        dbapi_connection = record.dbapi_connection  # None where it was not taken back
        if dbapi_connection and not dialect.detect_autocommit_setting(dbapi_connection):
            dialect.set_isolation_level(dbapi_connection, "AUTOCOMMIT")

    # Events of the dialect, for each Connection makes its own listeners for those of the engine;
    # and only when it has asked, on the first connection, whom it speaks to.
    def listen(*_: Any) -> None:
        for name in ("do_execute", "do_execute_no_params", "do_executemany"):
            event.listen(engine, name, begin)

    event.listen(engine, "connect", listen, once=True)
    event.listen(engine, "checkin", end)


@lru_cache(maxsize=2048)
def is_the_same_alone(statement: str) -> bool:
    """Say whether a statement is answered the same, and does the same, without a transaction."""
    if _SELECT.match(statement) is None or _COMMENT.search(statement) is not None:
        return False
    return all(_HARMLESS.fullmatch(found[1]) for found in _PARENTHESIS.finditer(statement))


def is_autocommit(connection: Connection) -> bool:
    """Say whether a connection that is in use has no transaction that would have to be ended."""
    return connection.dialect.detect_autocommit_setting(_dbapi_connection(connection))


def is_at_rest(connection: Connection) -> bool:
    """Say whether nothing is under way on a connection that is in use."""
    return is_quiet(_dbapi_connection(connection))


def enter_autocommit(connection: Connection) -> None:
    """Let each statement that comes be a transaction by itself; none has begun.

    Through a pooler it would have no timeout, so one transaction is begun as ever.
    """
    if goes_through_pooler(connection.dialect):
        return
    connection.dialect.set_isolation_level(_dbapi_connection(connection), "AUTOCOMMIT")


def leave_autocommit(connection: Connection) -> None:
    """Let the end of a connection's work be a ROLLBACK, whatever it has been."""
    if is_autocommit(connection):
        level = connection.dialect.default_isolation_level or "READ COMMITTED"
        connection.dialect.set_isolation_level(_dbapi_connection(connection), level)


def _dbapi_connection(connection: Connection) -> DBAPIConnection:
    dbapi_connection = connection.connection.dbapi_connection
    assert dbapi_connection is not None  # noqa: S101  (the connection is open)
    return dbapi_connection


def _begin_read_only(connection: Connection) -> None:
    """Let a statement be in a READ ONLY transaction: through a pooler no session is read-only."""
    dialect: Any = connection.dialect
    dbapi_connection = _dbapi_connection(connection)
    if not is_quiet(dbapi_connection):
        return
    if getattr(dbapi_connection, "_transaction", None) is not None:  # asyncpg begins no second one
        msg = (
            "The transaction of a read session was ended by a statement. Through PgBouncer what "
            "comes after it could write: let the session end, and open another one."
        )
        raise ConfigurationError(msg)
    if dialect.get_readonly(dbapi_connection) is not True:
        dialect.set_readonly(dbapi_connection, True)
    leave_autocommit(connection)


def _refuse_to_write(options: Mapping[str, Any]) -> None:
    if options.get("postgresql_readonly") is False:
        msg = (
            "A read session cannot be made to write. Say @unit_of_work(read_only=False) of the "
            "view, or open a write session."
        )
        raise ConfigurationError(msg)


_SELECT = re.compile(r"\s*(SELECT|WITH|VALUES)\b", re.IGNORECASE)
_COMMENT = re.compile(r"/\*|--")
_PARENTHESIS = re.compile(r"([\w\".$]*)\s*\(")

# What may stand before a parenthesis: nothing, a word of SQL, a type, or a function that changes
# nothing and whose answer does not depend on the transaction.
_HARMLESS = re.compile(
    r"""
    |
    all | and | any | array | as | between | bigint | bit | by | case | cast | char | character
    | distinct | else | except | exists | filter | from | ilike | in | integer | intersect |
    interval | is | join | lateral | like | limit | not | numeric | offset | on | or | over |
    order | row | select | similar | some | then | time | timestamp | timestamptz | union |
    using | values | varchar | when | where | within | group |
    abs | age | array_agg | array_length | array_position | array_to_string | avg | bool_and |
    bool_or | btrim | cardinality | ceil | ceiling | char_length | coalesce | concat | concat_ws |
    convert_from | convert_to | count | cube | cume_dist | date | date_part | date_trunc | decode |
    dense_rank | encode | every | extract | first_value | floor | generate_series | greatest |
    grouping | json_agg | json_array_length | json_build_array | json_build_object |
    json_object_agg | json_scalar | jsonb_agg | jsonb_array_elements | jsonb_array_length |
    jsonb_build_array | jsonb_build_object | jsonb_object_agg | jsonb_path_exists | jsonb_typeof |
    lag | last_value | lead | least | left | length | lower | lpad | ltrim | make_date |
    make_interval | max | md5 | min | mod | nth_value | ntile | nullif | percentile_cont |
    percentile_disc | plainto_tsquery | position | power | rank | regexp_match | regexp_replace |
    replace | right | rollup | round | row_number | row_to_json | rpad | rtrim | sets | split_part
    | sqrt | starts_with | string_agg | string_to_array | strpos | substr | substring | sum |
    timezone | to_char | to_date | to_json | to_jsonb | to_number | to_timestamp | to_tsquery |
    to_tsvector | trim | trunc | ts_rank | unnest | upper | websearch_to_tsquery | width_bucket
    """,
    re.IGNORECASE | re.VERBOSE,
)
