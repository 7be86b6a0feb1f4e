"""Errors and logs that tell what went wrong, and nothing of whom it happened to.

A log is read by more people than a database is. Drivers quote the values of a row in their errors
(`DETAIL: Key (email)=(...)`), validators the input, asyncio the whole error of a task; hiding the
parameters of statements is not enough. What is shown instead: the type, SQLSTATE, constraint, table
and column, the statement without its literals, every frame, and of a message the words that stand
in the source itself.
"""

from stillroom.redaction.copies import redacted
from stillroom.redaction.description import describe
from stillroom.redaction.logs import redact_logs
from stillroom.redaction.process import redact_process, show

__all__ = ["describe", "redact_logs", "redact_process", "redacted", "show"]
