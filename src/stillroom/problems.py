"""What an error of the database means in HTTP: SQLSTATE and constraint to a problem (RFC 9457)."""

from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, cast

from sqlalchemy import Index, MetaData, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.sql.visitors import iterate

from stillroom.errors import (
    ClientGoneError,
    CursorError,
    DatabaseUnavailableError,
    DeadlineError,
    IdempotencyKeyError,
    LimitError,
    UnknownOutcomeError,
)

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Describe one problem to a client: what went wrong, in words of ours alone.

    Nothing of it comes from the request, a row or a statement. `code` is for programs, `detail` for
    people, `fields` names what the client can change; `retry_after` is in seconds.
    """

    status: int
    code: str
    detail: str
    fields: tuple[str, ...] = ()
    retry_after: int | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def content(self) -> dict[str, Any]:
        """Return the members of the JSON object.

        https://www.rfc-editor.org/rfc/rfc9457#section-3.1
        """
        content: dict[str, Any] = {
            "type": "about:blank",
            "title": phrase(self.status),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.fields:
            content["errors"] = [{"field": name, "detail": self.detail} for name in self.fields]
        return {**content, **self.extra}


INTERNAL_ERROR = Problem(status=500, code="internal_error", detail="The server made a mistake.")
"""A mistake of the program, of which a client learns no more."""


def phrase(status: int) -> str:
    """Return the name of a status as RFC 9110 has it; Python's own differ between its versions.

    https://www.rfc-editor.org/rfc/rfc9110#section-15
    """
    if status in _PHRASES:
        return _PHRASES[status]
    return HTTPStatus(status).phrase if status in _KNOWN else "Error"


def problem_of(
    error: BaseException, *, read_only: bool, metadata: MetaData | None = None
) -> Problem | None:
    """Return what an error of the database or of a page means to a client, or None for another.

    `read_only` says that the session was a read session: its write is a mistake of the program
    (500), where a write session that may not write stands on a demoted primary (503). `metadata`
    knows which columns a constraint is about.
    """
    error = only_cause(error)
    if is_old_plan(error):
        return _busy("schema_changed", "The database has just been changed; try again.")
    sqlstate = sqlstate_of(error)
    if sqlstate is None:
        return _without_sqlstate(error)
    if sqlstate == "25006" and not read_only:
        return _busy("read_only_database", "The database takes no writes now; try again later.")
    problem = _PROBLEMS.get(sqlstate) or _PROBLEMS.get(sqlstate[:2]) or INTERNAL_ERROR
    return replace(problem, fields=_fields(error, metadata)) if sqlstate[:2] == "23" else problem


def only_cause(error: BaseException) -> BaseException:
    """Return the one error that a group holds, as a TaskGroup raises it; else the error itself."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        causes = list(group.exceptions)
        return only_cause(causes[0]) if len(causes) == 1 else group
    return error


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE that PostgreSQL gave, on either driver, or None.

    https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    sqlstate = getattr(_driver_error(only_cause(error)), "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) else None


def is_old_plan(error: BaseException) -> bool:
    """Say whether a statement was refused because the schema has changed since it was prepared."""
    error = only_cause(error)
    names = {kind.__name__ for kind in type(_driver_error(error)).__mro__}
    return "InvalidCachedStatementError" in names or (
        sqlstate_of(error) == "0A000" and "cached plan" in str(error)  # psycopg
    )


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the violated constraint, on either driver, or None."""
    return _diagnostic(error, "constraint_name")


def _busy(code: str, detail: str) -> Problem:
    return Problem(status=503, code=code, detail=detail, retry_after=1)


def _driver_error(error: BaseException) -> BaseException:
    # SQLAlchemy lets an error through as it is that arrives while a cursor is read.
    if not isinstance(error, DBAPIError):
        return error
    try:
        return error.driver_exception or error
    except ValueError:  # SQLAlchemy has made it: there is none of the driver
        return error.orig or error


def _without_sqlstate(error: BaseException) -> Problem | None:
    if isinstance(error, IdempotencyKeyError):
        return _OF_KEY[error.reason]
    for kind, problem in _OWN.items():
        if isinstance(error, kind):
            return problem
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return _BAD_VALUE  # psycopg lets it through; there is no such text in PostgreSQL
    if isinstance(error, DBAPIError):
        return _refused_by_driver(error)
    return None


def _refused_by_driver(error: DBAPIError) -> Problem:
    # The connection is gone, or a value fits no PostgreSQL type.
    names = {kind.__name__ for kind in type(_driver_error(error)).__mro__}
    if error.connection_invalidated or "OperationalError" in names:
        return _UNAVAILABLE
    return _BAD_VALUE if "DataError" in names else INTERNAL_ERROR


def _fields(error: BaseException, metadata: MetaData | None) -> tuple[str, ...]:
    # What the models do not know is not named: a client has no business with it.
    table = _table(error, metadata)
    if table is None:
        return ()
    column = _diagnostic(error, "column_name")
    if column is not None:
        return (column,) if column in table.columns else ()
    constraint = constraint_of(error)
    return () if constraint is None else _columns(table, constraint)


def _table(error: BaseException, metadata: MetaData | None) -> Table | None:
    name, schema = _diagnostic(error, "table_name"), _diagnostic(error, "schema_name")
    if metadata is None or name is None:
        return None
    own = metadata.tables.get(f"{schema}.{name}")
    if own is None and (unqualified := metadata.tables.get(name)) is not None:
        # A table without a schema is in that of the search path, which is "public" by default.
        return unqualified if schema == (metadata.schema or "public") else None
    return own


def _columns(table: Table, constraint_name: str) -> tuple[str, ...]:
    for constraint in table.constraints:
        if constraint.name == constraint_name:
            return tuple(column.name for column in getattr(constraint, "columns", ()))
    for index in table.indexes:
        if index.name == constraint_name:
            return _columns_of_index(index)
    return ()


def _columns_of_index(index: Index) -> tuple[str, ...]:
    # The columns of an expression, as in lower(email), stand inside of it.
    names = (
        getattr(element, "name", None)
        for expression in index.expressions
        if not isinstance(expression, str)
        for element in iterate(expression)
        if element.__visit_name__ == "column"
    )
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def _diagnostic(error: BaseException, name: str) -> str | None:
    driver_error = _driver_error(error)
    # psycopg keeps the fields of the server's message in .diag, asyncpg on the exception.
    value = getattr(getattr(driver_error, "diag", driver_error), name, None)
    return value if isinstance(value, str) else None


_KNOWN = frozenset(HTTPStatus)
_PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
_UNAVAILABLE = _busy("database_unavailable", "The database cannot be reached; try again later.")
_BAD_VALUE = Problem(
    status=422, code="bad_value", detail="The database cannot store a value that was sent."
)
_BAD_CURSOR = Problem(
    status=422,
    code="bad_cursor",
    detail="The cursor is none of this list in this order; begin without one.",
)
_BAD_LIMIT = Problem(
    status=422, code="bad_limit", detail="A page cannot have as many rows as were asked for."
)
_UNKNOWN_OUTCOME = Problem(
    status=503,
    code="outcome_unknown",
    detail="It is not known whether the work was done; look before it is tried again.",
)
_DEADLINE = Problem(
    status=504, code="deadline", detail="The work took longer than a request may; it was ended."
)
_KEY = "idempotency_key"
_OF_KEY = {
    "missing": Problem(
        status=400, code=f"{_KEY}_missing", detail="The request needs an Idempotency-Key header."
    ),
    "malformed": Problem(
        status=400,
        code=f"{_KEY}_malformed",
        detail='An Idempotency-Key is one string of 1 to 255 ASCII characters, as in "8e03978e".',
    ),
    "not_kept": Problem(
        status=400,
        code=f"{_KEY}_not_supported",
        detail="The answer cannot be kept for a second request; send it without Idempotency-Key.",
    ),
    "in_use": Problem(
        status=409,
        code=f"{_KEY}_in_use",
        detail="A request with this Idempotency-Key is under way; try again later.",
        retry_after=1,
    ),
    "reused": Problem(
        status=422,
        code=f"{_KEY}_reused",
        detail="This Idempotency-Key came with another request; make a new one for this.",
    ),
}
_OWN: dict[type[Exception], Problem] = {
    ClientGoneError: Problem(
        status=503, code="client_gone", detail="The client left while its request waited."
    ),
    CursorError: _BAD_CURSOR,
    DatabaseUnavailableError: _UNAVAILABLE,
    DeadlineError: _DEADLINE,
    LimitError: _BAD_LIMIT,
    PoolTimeoutError: _busy("pool_timeout", "All connections are in use; try again later."),
    UnknownOutcomeError: _UNKNOWN_OUTCOME,
}

_PROBLEMS = {
    "08": _UNAVAILABLE,
    "22": _BAD_VALUE,
    "22012": INTERNAL_ERROR,  # a division by zero is the program's
    "22001": Problem(status=422, code="too_long", detail="A value is too long."),
    "22003": Problem(status=422, code="out_of_range", detail="A number is out of range."),
    "23": Problem(status=409, code="conflict", detail="The change conflicts with a rule."),
    "23001": Problem(status=409, code="in_use", detail="Something else refers to this."),
    "23502": Problem(status=422, code="missing_value", detail="A value is required."),
    "23503": Problem(
        status=409, code="reference_conflict", detail="What is referred to is missing or in use."
    ),
    "23505": Problem(status=409, code="already_exists", detail="The value is taken already."),
    "23514": Problem(status=422, code="rule_violated", detail="A value breaks a rule."),
    "23P01": Problem(status=409, code="overlap", detail="The value conflicts with another one."),
    "25P03": _UNAVAILABLE,
    "25P04": Problem(status=504, code="transaction_timeout", detail="The database took too long."),
    "40001": _busy("conflict_with_other_work", "Another request was in the way; try again."),
    "40P01": _busy("conflict_with_other_work", "Another request was in the way; try again."),
    "53": _busy("database_busy", "The database has no room for more; try again later."),
    "54000": Problem(status=422, code="too_long", detail="A value is too long."),
    "55P03": _busy("locked", "Another request holds the data; try again later."),
    "57014": Problem(status=504, code="statement_timeout", detail="The database took too long."),
    "57P01": _UNAVAILABLE,
    "57P02": _UNAVAILABLE,
    "57P03": _UNAVAILABLE,
    "57P05": _UNAVAILABLE,
}
