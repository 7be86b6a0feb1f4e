"""What the sandbox answers by itself: errors as PostgreSQL would, and what it cannot answer."""

from stillroom.errors import StillroomError

MARKER = '@pytest.mark.stillroom(isolation="clone")'
"""What gives a test a database of its own."""


CANCELLED = "canceling statement due to user request"
"""What PostgreSQL says to a statement that its client has cancelled."""


class SandboxError(StillroomError):
    """Fail a statement with a SQLSTATE and a message, in the words of PostgreSQL."""

    def __init__(self, sqlstate: str, message: str) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class Refusal(SandboxError):  # noqa: N818  (the field says "to refuse a statement")
    """Refuse a statement that a sandbox cannot run as production would; name the way out.

    Its SQLSTATE is of a class that PostgreSQL leaves to others.
    """

    def __init__(self, reason: str, cure: str = "") -> None:
        """Take what happened, without a full stop, and what may help beside the marker."""
        marker = f"{'Or give' if cure else 'Give'} the test a database of its own: {MARKER}"
        super().__init__("SR001", " ".join(filter(None, [f"{reason}.", cure, marker])))
