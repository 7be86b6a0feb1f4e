"""Copies of errors whose messages hold no value, for whoever prints a traceback."""

from typing import Any

from stillroom.redaction.description import describe


class Redacted(Exception):  # noqa: N818  (it is named as what it stands for)
    """Stand for an error: the same name, traceback and chain, and a message without values."""


class RedactedGroup(Redacted, ExceptionGroup[Exception]):
    """Stand for a group of errors."""


def redacted(error: BaseException) -> BaseException:
    """Return a copy of an error, and of all that it is chained to, for a log.

    It has the name of the error's type and is not of that type. Notes are left out: anybody may
    have written anything there.
    """
    return _copy(error, {})


def _copy(error: BaseException, copies: dict[int, BaseException]) -> BaseException:
    if isinstance(error, Redacted):
        return error
    if id(error) in copies:
        return copies[id(error)]
    copy: BaseException
    if _is_group(error):
        group: Any = error
        parts = [_copy(it, copies) for it in group.exceptions]
        copy = _named(type(group), RedactedGroup)(describe(error), parts)
    else:
        copy = _named(type(error), Redacted)(describe(error))
    copies[id(error)] = copy
    copy.__traceback__ = error.__traceback__
    copy.__cause__ = error.__cause__ and _copy(error.__cause__, copies)
    copy.__context__ = error.__context__ and _copy(error.__context__, copies)
    copy.__suppress_context__ = error.__suppress_context__
    return copy


def _is_group(error: object) -> bool:
    return isinstance(error, BaseExceptionGroup)


def _named(kind: Any, base: Any) -> Any:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (base,), names)
