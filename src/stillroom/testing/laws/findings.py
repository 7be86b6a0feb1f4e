"""What a law has found, in words that say what to do."""

from collections.abc import Sequence
from typing import NoReturn

from stillroom.testing.laws.exchange import Request


def fail(message: str) -> NoReturn:
    """Fail the test."""
    __tracebackhide__ = True
    raise AssertionError(message)


def require_write(status: int, *, has_written: bool) -> None:
    """See that the request that writes does so where nothing fails."""
    __tracebackhide__ = True
    if status >= 400:
        fail(f"`write` was answered {status} where nothing fails. Say a request that is taken.")
    if not has_written:
        fail(
            f"`write` was answered {status}, and nothing is written when all has ended. Either it "
            "is a request that writes nothing, or nobody commits."
        )


def require_refusal(status: int, writes: int) -> None:
    """See that the request that is refused is, after it has written."""
    __tracebackhide__ = True
    if status < 400 or not writes:
        fail(
            f"`refused` was answered {status} after {writes} writes. Say a request that writes, "
            "and is then refused."
        )


def require_read(status: int) -> None:
    """See that the request that reads is answered."""
    __tracebackhide__ = True
    if status >= 400:
        fail(f"`read` was answered {status} where nothing fails. Say a request that is taken.")


def require_rows(request: Request, *, has_read: bool) -> None:
    """See that the request that reads has read."""
    __tracebackhide__ = True
    if not has_read:
        fail(f"{request} has read no row. Let `read` be a GET that reads what `write` has written.")


def statements(found: Sequence[str]) -> str:
    """List the last statements of transactions that are open."""
    return "".join(f"\n  - {statement}" for statement in found)


ANSWERED_BEFORE_COMMIT = (
    "The answer {status} was sent before the COMMIT was over. A client that reads at once does not "
    "find what it was told is there, and when the COMMIT fails it is never told. Commit before the "
    "answer: in the view, or in what calls it; not in what a dependency does after its `yield`, "
    'unless that is Depends(..., scope="function").'
)
COMMIT_FAILED_SILENTLY = (
    "PostgreSQL has refused the COMMIT, and the answer was {status}: the client believes that its "
    "work is there, and it is lost. Commit before the answer, and let the error of a COMMIT out."
)
COMMITTED_IN_PARTS = (
    "{what} has failed, the answer was {status}, and a part of the work is there: the request "
    "commits more than once. Let models flush, and commit once, where the request ends."
)
REFUSED_AND_WRITTEN = (
    "The answer was {status}, and what the request wrote before is there. Roll back when the "
    "answer is 400 or more, also where it is returned, or made by an exception handler."
)
FAILED_AFTER_COMMIT = (
    "The answer was {status}, and the work is committed: a statement that came after the COMMIT "
    "has failed. A client that tries again does it twice. Read what the answer needs before the "
    "COMMIT (flush, RETURNING), with expire_on_commit=False."
)
HALF = (
    "A request was given up while PostgreSQL held its {point}, and a part of its work is there: "
    "{done} (rows made, rows gone). Commit once, where the request ends."
)
LEFT_OPEN = (
    "Requests have failed or were given up, and transactions of theirs stay open: each holds a "
    "connection and its locks. Close the session in a `finally`, or by `async with`, before "
    "anything else is awaited there. Their last statements:"
)
POOL_IS_BROKEN = (
    "After requests that failed or were given up, others are answered {refused}: connections are "
    "lost, or go to the next request in a bad state. Close the session in a `finally`."
)
HELD = (
    "{request}: the answer was sent, the client takes its time, and the transaction is still open: "
    "so many slow clients as connections, and nobody else is answered. End the session before the "
    "answer is sent. Its last statement:"
)
GET_MAY_WRITE = (
    "The GET has read in a transaction that may write: a mistake in it, or in a model that it "
    "calls, changes data that a link, a crawler or a prefetch was only to show. Read in a READ "
    "ONLY transaction (postgresql_readonly, or default_transaction_read_only for a connection)."
)
HANGS = (
    "It has taken more than {seconds} s: a request waits for a connection that never comes back, "
    "or for itself."
)
