"""What an error is, in words that hold no value."""

import os
import re
import sys
from types import TracebackType
from typing import Any, cast

from stillroom.errors import DatabaseUnavailableError, StillroomError
from stillroom.redaction.wording import (
    HIDDEN,
    is_of_the_interpreter,
    own_names,
    own_words,
)


def describe(error: BaseException) -> str:
    """Return the message of an error as a log may have it.

    A database's has SQLSTATE, constraint, table, column and the statement without its literals; a
    validator's the places of the values and the kinds of mistake. Of any other the words are left
    that stand in the source. It never raises: who logs an error needs no second one.
    """
    try:
        return _described(error)
    except Exception:  # noqa: BLE001  (an error may have any attribute, and any of them may fail)
        return HIDDEN


def _described(error: BaseException) -> str:
    if isinstance(error, StillroomError):
        return _of_ours(error)
    if (found := _of_the_database(error)) is not None:
        return found
    if (found := _of_a_validator(error)) is not None:
        return found
    if isinstance(error, OSError) and error.errno is not None:
        return f"[Errno {error.errno}] {_reason(error)}"
    message, files = _text(error), _files(error.__traceback__, type(error))
    if isinstance(error, _INTERPRETER) and is_of_the_interpreter(error.__traceback__):
        return own_names(message, files, _known(error))
    return own_words(message, files)


def _of_ours(error: StillroomError) -> str:
    # They are made of names and numbers; some end in the words of the error beneath. Those of an
    # attempt to connect are about the server alone, and who runs it needs them.
    message, cause = str(error), error.__cause__
    if cause is None or isinstance(error, DatabaseUnavailableError) or not str(cause):
        return message
    return message.replace(str(cause), describe(cause))


def _of_the_database(error: BaseException) -> str | None:
    sql: object = getattr(error, "statement", None)
    driver_error = getattr(error, "driver_exception", None) or getattr(error, "orig", None) or error
    sqlstate: object = getattr(driver_error, "sqlstate", None)
    if not isinstance(sqlstate, str) and not isinstance(sql, str):
        return None
    parts = [f"SQLSTATE {sqlstate}"] if isinstance(sqlstate, str) else []
    # psycopg keeps the fields of the server's message in .diag, asyncpg on the exception.
    fields = getattr(driver_error, "diag", driver_error)
    names = {it: getattr(fields, f"{it}_name", None) for it in ("constraint", "table", "column")}
    parts.extend(f"{what} {name}" for what, name in names.items() if isinstance(name, str) and name)
    if driver_error is not error:
        parts.insert(0, type(driver_error).__name__)
        if not isinstance(sqlstate, str) and isinstance(driver_error, BaseException):
            parts.append(describe(driver_error))
    if isinstance(sql, str):
        place: object = getattr(fields, "position", None) or getattr(
            fields, "statement_position", None
        )
        parts.extend(_at(sql, place))
        parts.append(f"[SQL: {without_literals(sql)}]")
    return ", ".join(parts)


def without_literals(sql: str) -> str:
    """Return a statement with a mark for each text and number that stands in it."""
    shown = _LITERAL.sub(lambda found: found["kept"] or HIDDEN, sql)
    return shown if len(shown) < _LONGEST else f"{shown[:_LONGEST]} {HIDDEN}"


def _at(sql: str, place: object) -> list[str]:
    if not isinstance(place, int | str) or not str(place).isdecimal():
        return []
    word = re.match(r"\w[\w.]*", without_literals(sql[int(place) - 1 :]))
    return [f"at {word[0]}"] if word else []


def _of_a_validator(error: BaseException) -> str | None:
    errors: Any = getattr(error, "errors", None)
    if not isinstance(error, ValueError) and not hasattr(error, "body"):
        return None
    try:
        items = cast("list[dict[str, Any]]", list(errors()))
        found = [f"{_location(item['loc'])} ({item['type']})" for item in items[:_MOST]]
    except Exception:  # noqa: BLE001  (it has another `errors`)
        return None
    more = f" and {len(items) - _MOST} more" if len(items) > _MOST else ""
    return f"{len(items)} values are not valid: {', '.join(found)}{more}"


def _location(parts: tuple[object, ...]) -> str:
    # A key of a mapping may be a value that somebody sent.
    return ".".join(str(it) if _TAME.fullmatch(str(it)) else HIDDEN for it in parts)


def _reason(error: OSError) -> str:
    words = error.strerror or ""
    if re.fullmatch(r"[A-Za-z ,/()-]+", words):
        return words
    return os.strerror(error.errno or 0)


def _text(error: BaseException) -> str:
    # A KeyError shows the repr of what it was given, a group how many errors are in it.
    first = error.args[0] if error.args else None
    if isinstance(first, str) and (len(error.args) == 1 or hasattr(error, "exceptions")):
        return first
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (it has broken that itself)
        return HIDDEN


def _files(trace: TracebackType | None, kind: type[BaseException]) -> tuple[str, ...]:
    """Return the files of who raised it and of its type."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised = trace.tb_frame.f_code.co_filename if trace is not None else ""
    module = sys.modules.get(kind.__module__)
    return tuple(filter(None, (raised, getattr(module, "__file__", None))))


def _known(error: BaseException) -> frozenset[str]:
    owner = getattr(error, "obj", None)
    return frozenset({type(owner).__name__, getattr(owner, "__name__", "")})


_MOST = 20
_LONGEST = 1_000
_TAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,40}|\d{1,6}")

# What these say, where it is not a `raise` that raises them, is about types, names and numbers.
_INTERPRETER = (
    ArithmeticError,
    AttributeError,
    ImportError,
    IndexError,
    NameError,
    RecursionError,
    TypeError,
)

# Names in quotation marks and parameters stay; https://www.postgresql.org/docs/current/sql-syntax-lexical.html
_LITERAL = re.compile(
    r"""(?P<kept>"(?:[^"]|"")*"|\$\d+\b|%%|%\(\w+\)s|%s|:\w+|[A-Za-z_][\w$]*(?!['\w$]))"""
    r"""|[eE]'(?:[^'\\]|''|\\.)*'?|[A-Za-z]*&?'(?:[^']|'')*'?|\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z)"""
    r"""|\d[\w.]*|--[^\n]*|/\*.*?(?:\*/|\Z)""",
    re.DOTALL,
)
