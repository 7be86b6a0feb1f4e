"""A cursor: where a page begins, as text that a client keeps and gives back."""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, cast

from stillroom.errors import CursorError


@dataclass(frozen=True)
class Position:
    """Say behind which row a page begins, and in which direction it goes.

    `key` has the values that order the row, as PostgreSQL writes them; without one the page begins
    at the end from which it goes.
    """

    is_backwards: bool = False
    key: tuple[str, ...] = ()


def write_cursor(position: Position, order: str) -> str:
    """Return the cursor of a position; it fits this order alone.

    It is made of the letters that a URL needs not escape, and its values can be read by anybody.
    """
    key = json.dumps(position.key, separators=(",", ":"), ensure_ascii=False)
    content = f"{'<' if position.is_backwards else '>'}{key}".encode()
    written = _VERSION + _check(content, order) + content
    return base64.urlsafe_b64encode(written).decode().rstrip("=")


def read_cursor(cursor: str, order: str, size: int) -> Position:
    """Return the position of a cursor in an order of so many columns.

    Raises CursorError for one of another order or of a later version, and for any other text.
    """
    if _ALPHABET.fullmatch(cursor) is None:
        raise _refuse("it is no cursor", order)
    try:
        written = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except binascii.Error:
        raise _refuse("it was cut", order) from None
    version, check, content = written[:1], written[1 : 1 + _CHECK], written[1 + _CHECK :]
    if version != _VERSION:
        raise _refuse("it is of another version", order)
    if check != _check(content, order):
        raise _refuse("it was changed, or belongs to another order", order)
    try:
        key: Any = read_key(content[1:])
    except (ValueError, RecursionError):
        raise _refuse("it was made by somebody else", order) from None
    if len(key) not in (0, size) or not all(isinstance(value, str) for value in key):
        raise _refuse("it was made by somebody else", order)
    return Position(content[:1] == b"<", key)


def read_key(written: str | bytes) -> tuple[str, ...]:
    """Return the values of a key from the JSON that PostgreSQL makes of it."""
    return tuple(cast("list[str]", json.loads(written)))


def _check(content: bytes, order: str) -> bytes:
    # No secret: it tells a mistake from a cursor. Who forges one sees what they may see anyway.
    ordered = hashlib.sha256(order.encode()).digest()
    return hashlib.blake2b(content, digest_size=_CHECK, key=ordered).digest()


def _refuse(why: str, order: str) -> CursorError:
    return CursorError(
        f"This cursor leads nowhere in the order of {order}: {why}. Begin without a cursor."
    )


_VERSION = b"\1"
_CHECK = 8
_ALPHABET = re.compile(r"[A-Za-z0-9_-]+")
