"""What an application sends, in units: the messages that are answered as one."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stillroom.testing.wire.messages import Message, Messages


@dataclass(eq=False)
class Unit:
    """The messages up to a Sync, a Flush or a simple Query, and the data of a COPY after them."""

    messages: list[Message] = field(default_factory=list[Message])
    task: asyncio.Task[Any] | None = None
    _kept: list[bytes] = field(default_factory=list[bytes])
    _write: Callable[[bytes], None] | None = None
    _failure: bytes = b""

    @property
    def kind(self) -> bytes:
        """Return the kind of the message that ends it."""
        return self.messages[-1].kind

    @property
    def is_copying(self) -> bool:
        """Say whether the server takes data of a COPY."""
        return self._write is not None

    def take(self, data: bytes) -> None:
        """Take data of a COPY; an application may send it before the server has asked for it."""
        if self._write is not None:
            self._write(data)
        elif not self._failure:
            self._kept.append(data)

    def start_copy(self, write: Callable[[bytes], None]) -> None:
        """Hand on the data that came already, and all that comes."""
        write(self._failure or b"".join(self._kept))
        self._write = None if self._failure else write

    def fail_copy(self, reason: str) -> None:
        """Let a COPY fail that takes data, or is going to."""
        self._failure = Message(b"f", reason.encode() + b"\0").encode()
        if self._write is not None:
            self._write(self._failure)
            self._write = None

    def end_copy(self) -> None:
        """Hand nothing on any more."""
        self._write = None


class Inbox:
    """Cut what comes into units."""

    def __init__(self) -> None:
        self._messages = Messages()
        self._unit = Unit()
        self._last = Unit()

    def take_startup(self, data: bytes) -> tuple[int, bytes] | None:
        """Take bytes of a new connection; return code and body of its first message when whole."""
        return self._messages.take_startup(data)

    def feed(self, data: bytes, task: asyncio.Task[Any] | None) -> Iterator[Unit]:
        """Take bytes that one task sent; yield each unit that is complete."""
        for message in self._messages.feed(data):
            if message.kind in (b"d", b"c", b"f"):
                self._last.take(message.encode())
                continue
            if self._last.is_copying and message.kind in (b"S", b"H"):
                continue  # "ignored during a COPY"
            self._unit.messages.append(message)
            if message.kind in (b"S", b"H", b"Q", b"X"):
                self._unit.task = task
                self._last, self._unit = self._unit, Unit()
                yield self._last
