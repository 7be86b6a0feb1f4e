"""The errors that Stillroom raises: one base, few children, each message says what to do next."""


class StillroomError(Exception):
    """Say what happened, what was looked at, and what to do next."""


class ConfigurationError(StillroomError):
    """Refuse a setting, a database URL or a route that cannot do what was asked of it."""


class LifecycleError(StillroomError):
    """Refuse an object that is not open yet, open already, or closed."""


class DatabaseUnavailableError(StillroomError):
    """Report that PostgreSQL was out of reach and nothing was written; a later try may succeed."""


class ClientGoneError(StillroomError):
    """Report a request that was given up, for its client left while it waited for a connection."""


class DeadlineError(StillroomError):
    """Report work that was ended because its time was over; nothing of it is committed."""


class RolledBackError(DatabaseUnavailableError):
    """Report that a connection was lost, and that all of the work was rolled back with it."""


class UnknownOutcomeError(StillroomError):
    """Report a COMMIT that was sent and not answered in time: the work may be there or not."""


class UncommittedWritesError(StillroomError):
    """Report writes that nobody committed before the response was ready."""


class IdempotencyKeyError(StillroomError):
    """Refuse a request for its Idempotency-Key; `reason` says which of the few it is."""

    def __init__(self, reason: str, message: str) -> None:
        """Take one of: missing, malformed, in_use, reused, not_kept."""
        super().__init__(message)
        self.reason = reason


class CursorError(StillroomError):
    """Refuse a cursor that no page of this order has given."""


class LimitError(StillroomError):
    """Refuse a number of rows that is larger than a page may be, or below one."""


class RowError(StillroomError):
    """Refuse a row that does not fit its model, and say which of many it is."""


class PostgresNotFoundError(StillroomError):
    """Report that no PostgreSQL programs were found, where was looked, and what to install."""


class PostgresStartError(StillroomError):
    """Report that a PostgreSQL server did not start, with the end of its log."""
