"""Work that another transaction or a lost connection has ended is done again, as a whole."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from fastapi import Request, Response
from sqlalchemy.exc import DBAPIError

from stillroom.errors import ConfigurationError, RolledBackError
from stillroom.fastapi.deadline import Deadline
from stillroom.problems import is_old_plan, only_cause, sqlstate_of


async def retry(
    attempt: Callable[[], Awaitable[Response]],
    request: Request,
    deadline: Deadline,
    has_committed: Callable[[], bool],
) -> Response:
    """Return the response of the first attempt that nothing in the database stands against.

    Another attempt is made after a serialization failure, a deadlock, a plan that a change of the
    schema has made old, and a connection that was lost before anything was committed; not where
    some of the work has been committed, nor where the body of the request cannot be read again. The
    pauses grow, with jitter, and end with the deadline.
    """
    for number in range(ATTEMPTS):
        try:
            return await attempt()
        except Exception as error:
            pause = random.uniform(0.5, 1.0) * min(_FIRST_PAUSE * 2**number, _LONGEST_PAUSE)  # noqa: S311
            if (
                number == ATTEMPTS - 1
                or not is_retried(error)
                or has_committed()
                or not _can_be_read_again(request)
                or pause >= deadline.left
            ):
                raise
            await _end_dependencies(request, error)
        await asyncio.sleep(pause)
    raise AssertionError  # the last attempt has raised


def is_retried(error: BaseException) -> bool:
    """Say whether the same work may succeed when it is done again, and has left nothing behind."""
    error = only_cause(error)
    if sqlstate_of(error) in _SQLSTATES or is_old_plan(error):
        return True
    is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return is_lost or isinstance(error, RolledBackError)


async def _end_dependencies(request: Request, error: Exception) -> None:
    # What the dependencies of an attempt do after the response, they do now, with its error.
    stack: AsyncExitStack = request.scope["fastapi_inner_astack"].pop_all()
    if await stack.__aexit__(type(error), error, error.__traceback__):
        msg = "A dependency with `yield` has passed over an exception; let it raise it again."
        raise ConfigurationError(msg) from error


def _can_be_read_again(request: Request) -> bool:
    # A body that was read whole is kept; a file of a form, or a stream, has been read by the view.
    return request._form is None and (not request._stream_consumed or hasattr(request, "_body"))


ATTEMPTS = 5

_FIRST_PAUSE = 0.02  # seconds
_LONGEST_PAUSE = 0.5

# https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html
_SQLSTATES = frozenset({"40001", "40P01"})
