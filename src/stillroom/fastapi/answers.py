"""Every error as an answer: handlers that turn an exception into a problem (RFC 9457)."""

import json
import logging
import re
from dataclasses import replace
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillroom.errors import (
    ClientGoneError,
    CursorError,
    DatabaseUnavailableError,
    DeadlineError,
    IdempotencyKeyError,
    LimitError,
    UncommittedWritesError,
    UnknownOutcomeError,
)
from stillroom.fastapi.repeats import Repeats
from stillroom.fastapi.unit import has_lost_writes, is_read_only
from stillroom.manager import DatabaseSessionManager
from stillroom.problems import (
    INTERNAL_ERROR,
    MEDIA_TYPE,
    Problem,
    constraint_of,
    phrase,
    problem_of,
    sqlstate_of,
)
from stillroom.redaction import redacted
from stillroom.routes import route_of

logger = logging.getLogger("stillroom")


class InvalidField(BaseModel):
    """Name a value of the request that cannot be taken, and say why."""

    field: str = Field(examples=["body.email"])
    detail: str


class ProblemDetails(BaseModel):
    """Describe what went wrong, for programs (`code`) and for people (`detail`)."""

    type: str = Field("about:blank", json_schema_extra={"format": "uri-reference"})
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = Field(None, description="The occurrence, as the server's log names it.")
    errors: list[InvalidField] = []


class ProblemResponse(Response):
    """Send a problem; the JSON is ASCII, so no input can make it fail."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {})
        if problem.retry_after is not None:
            headers["Retry-After"] = str(problem.retry_after)
        super().__init__(_json(problem), problem.status, headers)


def _json(problem: Problem) -> str:
    try:
        return json.dumps(problem.content, allow_nan=False)
    except (TypeError, ValueError):  # what an HTTPException carried is no JSON
        return json.dumps(replace(problem, extra={}).content)


def answer_errors(app: FastAPI, manager: DatabaseSessionManager) -> None:
    """Answer the errors of FastAPI, of the database and of the program as problems."""

    async def answer(request: Request, error: Exception) -> Response:
        return _answer(request.scope, error, manager)

    for kind in (
        ClientGoneError,
        CursorError,
        DBAPIError,
        DatabaseUnavailableError,
        DeadlineError,
        IdempotencyKeyError,
        LimitError,
        PoolTimeoutError,
        UnicodeEncodeError,
        UnknownOutcomeError,
    ):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_middleware(_LastResort, manager=manager)


async def _answer_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    headers = dict(error.headers or {})
    if error.status_code < 400:
        return Response(status_code=error.status_code, headers=headers)
    title = phrase(error.status_code)
    detail: Any = error.detail  # FastAPI's HTTPException takes any JSON
    problem = Problem(
        status=error.status_code,
        code=_code(title),
        detail=detail if isinstance(detail, str) else title,
        extra={} if isinstance(detail, str) else {"context": detail},
    )
    return ProblemResponse(problem, headers)


async def _answer_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    errors = [
        {"field": _location(item), "detail": _reason(item)} for item in error.errors()[:_MOST]
    ]
    problem = Problem(
        status=422,
        code="invalid_request",
        detail="The request has values that cannot be taken; `errors` names them.",
        extra={"errors": errors},
    )
    return ProblemResponse(problem)


def _answer(scope: Scope, error: Exception, manager: DatabaseSessionManager) -> Response:
    problem = problem_of(error, read_only=is_read_only(scope), metadata=manager.metadata)
    if problem is None or problem.status == 500:
        problem = replace(problem or INTERNAL_ERROR, extra={"instance": _log_unknown(scope, error)})
    else:
        _log_known(scope, error, problem)
    return ProblemResponse(problem)


def _log_known(scope: Scope, error: Exception, problem: Problem) -> None:
    # No traceback: the driver's own prints the values of the row that was refused.
    arguments = (
        _route(scope),
        problem.status,
        problem.code,
        type(error).__name__,
        sqlstate_of(error),
        constraint_of(error),
    )
    if problem.status >= 500 and not isinstance(error, ClientGoneError):
        _repeats.log(f"{problem.status} {problem.code}", _KNOWN, *arguments)
    else:
        logger.info(_KNOWN, *arguments)


def _log_unknown(scope: Scope, error: Exception) -> str:
    occurrence = f"urn:uuid:{uuid4()}"
    reason = ""
    if sqlstate_of(error) == "25006" and is_read_only(scope):
        reason = " wrote in its read session (say @unit_of_work(read_only=False) if it must)"
    logger.error("%s%s: 500 %s", _route(scope), reason, occurrence, exc_info=redacted(error))
    return occurrence


class _LastResort:
    """Answer an exception that nobody has answered, and keep the connection.

    Starlette's own last resort answers and raises again, whereupon the server cuts a connection
    that the client believes to be good: the next, innocent request on it fails.
    """

    def __init__(self, app: ASGIApp, manager: DatabaseSessionManager) -> None:
        self._app = app
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent: Message = {"type": "nothing"}

        async def note(message: Message) -> None:
            nonlocal sent
            is_good = message["type"] == "http.response.start" and message["status"] < 400
            if is_good and has_lost_writes(scope):
                raise UncommittedWritesError(_LOST_WRITES)
            sent = message
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception as error:
            if sent["type"] == "nothing":
                await _answer(scope, error, self._manager)(scope, receive, send)
            elif sent["type"] == "http.response.body" and not sent.get("more_body"):
                _log_unknown(scope, error)  # a background task: the client has its answer, whole
            else:
                raise  # the server cuts the response: a client must not take it for whole


def _route(scope: Scope) -> str:
    return f"{scope['method']} {route_of(scope) or '(no route)'}"


def _code(title: str) -> str:
    return re.sub(r"[^a-z]+", "_", title.lower()).strip("_")


def _location(item: dict[str, Any]) -> str:
    parts = item["loc"][:-1] if item["type"] == "extra_forbidden" else item["loc"]
    # Names in the schema are tame; a key that the client made up is not shown to anybody.
    return ".".join(str(part) if _TAME.fullmatch(str(part)) else "*" for part in parts)


def _reason(item: dict[str, Any]) -> str:
    return item["msg"] if item["type"] in _SILENT_ON_INPUT else "The value cannot be taken."


_KNOWN = "%s: %d %s (%s, SQLSTATE %s, constraint %s)"
_repeats = Repeats(logger)

_LOST_WRITES = (
    "An exception rolled back what the view had written, and its handler answered below 400, which "
    "means committed. Answer 400 or more, or return the response from the view."
)
_MOST = 20
_TAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

# The messages of Pydantic that say nothing of the input; others quote it, in whole or in part.
# https://docs.pydantic.dev/latest/errors/validation_errors/
_SILENT_ON_INPUT = frozenset({
    "bool_parsing", "bool_type", "bytes_type", "date_type", "datetime_type", "decimal_parsing",
    "decimal_type", "dict_type", "enum", "extra_forbidden", "finite_number", "float_parsing",
    "float_type", "greater_than", "greater_than_equal", "int_from_float", "int_parsing",
    "int_parsing_size", "int_type", "json_invalid", "less_than", "less_than_equal", "list_type",
    "literal_error", "missing", "model_attributes_type", "model_type", "multiple_of",
    "none_required", "string_pattern_mismatch", "string_too_long", "string_too_short",
    "string_type", "string_unicode", "time_type", "too_long", "too_short", "uuid_type",
})  # fmt: skip
