"""Log records without values, whoever writes them."""

import logging
from typing import Any

from stillroom.redaction.copies import redacted
from stillroom.redaction.wording import HIDDEN


def redact_logs() -> None:
    """Let every log record of the process have a copy of its error that holds no value.

    So it reaches no handler, whatever its format: neither the chained error of the driver nor that
    of a task that nobody awaits. Where a record names a request, its query is left out; where
    SQLAlchemy is told to log rows and parameters, or a notice of PostgreSQL, what they are. What a
    program puts into a message by itself stays. To call it again does nothing.
    """
    make: Any = logging.getLogRecordFactory()
    if getattr(make, _MARK, False):
        return

    def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = make(*args, **kwargs)
        _redact(record)
        return record

    setattr(make_redacted, _MARK, True)
    logging.setLogRecordFactory(make_redacted)


def _redact(record: logging.LogRecord) -> None:
    record.msg = _without_values(record.msg)
    if isinstance(record.args, tuple):
        record.args = tuple(_without_values(it) for it in record.args)
    elif record.args:
        record.args = {name: _without_values(it) for name, it in record.args.items()}
    if (special := _SPECIAL.get(record.name)) is not None:
        special(record)
    if record.exc_info and record.exc_info[1] is not None:
        copy = redacted(record.exc_info[1])
        record.exc_info = (type(copy), copy, copy.__traceback__)


def _without_values(value: object) -> object:
    if isinstance(value, BaseException):
        return redacted(value)
    # SQLAlchemy's, which show parameters and rows.
    return HIDDEN if type(value).__name__ in {"_repr_params", "_repr_row"} else value


def _headline(record: logging.LogRecord) -> None:
    # The other lines show the task or the future, which show the error that they have ended with,
    # and this one the arguments of a callback.
    if record.exc_info:
        record.msg = str(record.msg).partition("\n")[0].partition("(")[0]


def _path_alone(record: logging.LogRecord) -> None:
    if isinstance(record.args, tuple):
        record.args = tuple(
            it.partition("?")[0] if isinstance(it, str) and it.startswith("/") else it
            for it in record.args
        )


def _severity_alone(record: logging.LogRecord) -> None:
    if isinstance(record.args, tuple) and record.args:
        record.args = (record.args[0], *(HIDDEN for _ in record.args[1:]))


_MARK = "__stillroom_redacts__"
_SPECIAL = {
    "asyncio": _headline,
    "sqlalchemy.dialects.postgresql": _severity_alone,
    "uvicorn.access": _path_alone,
}
