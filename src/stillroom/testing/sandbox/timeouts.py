"""The timeouts that end an idle connection: PostgreSQL's would end the one that all share."""

import asyncio
import re
import time
from collections.abc import Callable

from stillroom.testing.sandbox.session import Session


class IdleTimeouts:
    """End a connection that is idle for longer than its session's parameters allow.

    `expire` gets the SQLSTATE and the message.
    """

    def __init__(self, session: Session, expire: Callable[[str, str], None]) -> None:
        self._session = session
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count, as the connection is idle from now on."""
        self.stop()
        if self.may_expire() and (limits := self._limits()):
            seconds, sqlstate, what = min(limits)
            self._timer = asyncio.get_running_loop().call_later(
                seconds, self._expire, sqlstate, f"terminating connection due to {what} timeout"
            )

    def may_expire(self) -> bool:
        """Say whether the session has asked for any of them."""
        return not _NAMES.isdisjoint(self._session.parameters.effective())

    def stop(self) -> None:
        """Stop counting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _limits(self) -> list[tuple[float, str, str]]:
        transaction, values = self._session.transaction, self._session.parameters.effective()
        limits: list[tuple[float, str, str]] = []
        if transaction is None:
            if idle := seconds_of(values.get("idle_session_timeout", "0")):
                limits.append((idle, "57P05", "idle-session"))
            return limits
        if idle := seconds_of(values.get("idle_in_transaction_session_timeout", "0")):
            limits.append((idle, "25P03", "idle-in-transaction"))
        if whole := seconds_of(values.get("transaction_timeout", "0")):
            left = whole - (time.monotonic() - transaction.began)
            limits.append((max(left, 0), "25P04", "transaction"))
        return limits


def seconds_of(value: str) -> float:
    """Return a parameter's time; it is in milliseconds where it names no unit."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)?\s*", value)
    if found is None:
        return 0
    return float(found[1]) * _SECONDS[found[2] or "ms"]


_NAMES = {"idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}
