"""A process that tells no tales when it ends, or when nobody catches an error."""

import re
import sys
import threading
import traceback
import warnings
from typing import TextIO

from stillroom.redaction.copies import redacted
from stillroom.redaction.logs import redact_logs
from stillroom.redaction.wording import HIDDEN


def redact_process() -> None:
    """Do what `redact_logs` does, and the same for what Python itself writes to stderr.

    That is: an error that ends the process or a thread, one in a finaliser, and warnings. For a
    process that serves, not for one that runs tests.
    """
    redact_logs()
    sys.excepthook = lambda _kind, error, _trace: show(error)
    threading.excepthook = _show_of_thread
    sys.unraisablehook = _show_unraisable
    warnings.showwarning = _show_warning


def show(error: BaseException) -> None:
    """Write the traceback of an error, without values, to stderr."""
    traceback.print_exception(redacted(error), file=sys.stderr)


def _show_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread is not None else "?"
        sys.stderr.write(f"Exception in thread {name}:\n")
        show(args.exc_value)


def _show_unraisable(args: "sys.UnraisableHookArgs") -> None:
    sys.stderr.write(f"{args.err_msg or 'Exception ignored'}, in a {type(args.object).__name__}\n")
    if args.exc_value is not None:
        show(args.exc_value)


def _show_warning(  # noqa: PLR0917  (the order is Python's)
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = str(message)
    if category.__module__.startswith("sqlalchemy"):  # they quote the keys of rows
        text = re.sub(r"'[^']*'|\"[^\"]*\"|\b\d+\b", HIDDEN, text)
    shown = warnings.formatwarning(text, category, filename, lineno, line)
    (file or sys.stderr).write(shown)
