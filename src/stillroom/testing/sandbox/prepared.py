"""The prepared statements and portals of one logical connection, under names of the sandbox."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stillroom.testing.sandbox.statements import Kind, Statement, read_statements
from stillroom.testing.sandbox.translation import Translation
from stillroom.testing.sandbox.units import Unit
from stillroom.testing.wire import messages
from stillroom.testing.wire.backend import Answer
from stillroom.testing.wire.messages import Message


@dataclass(frozen=True)
class Request:
    """What is sent to PostgreSQL in one turn, and what of it runs, is prepared and is bound."""

    unit: Unit
    data: bytes
    executed: tuple[Statement, ...]
    parsed: tuple[Statement, ...] = ()
    bound: Sequence[bytes | None] = ()


class Prepared:
    """Give statements and portals names that no other connection has, and know what they are."""

    def __init__(self, number: int) -> None:
        self.open_portals: set[str] = set()
        self.translation = Translation(number)
        self._number = number
        self._statements: dict[str, Statement] = {}
        self._portals: dict[str, Statement] = {}
        self._drops = 0

    def __len__(self) -> int:
        """Return the number of statements."""
        return len(self._statements) + len(self.translation.statements)

    def read(self, unit: Unit) -> Request:
        """Return a unit of the extended protocol as it goes to PostgreSQL."""
        parts: list[bytes] = []
        executed: list[Statement] = []
        bound: list[bytes | None] = []
        for kind, body in unit.messages:
            match kind:
                case b"P":
                    parts += self._parse(body)
                case b"B":
                    parts.append(self._bind(body))
                    bound = messages.parameters(body)
                case b"E":
                    portal = messages.text(body)
                    executed.append(self._portals.get(portal, _UNKNOWN))
                    rest = body[len(portal.encode()) :]
                    parts.append(Message(kind, self._portal(portal) + rest).encode())
                case b"D" | b"C":
                    name = messages.text(body, 1)
                    if kind == b"C":
                        self._forget(body[:1], name)
                    own = self._name(name) if body[:1] == b"S" else self._portal(name)
                    parts.append(Message(kind, body[:1] + own + b"\0").encode())
                case _:
                    pass
        parsed = [self._of(messages.text(m.body)) for m in unit.messages if m.kind == b"P"]
        data = b"".join(parts) + messages.SYNC
        return Request(unit, data, tuple(executed), tuple(parsed), bound)

    def is_control(self, unit: Unit) -> bool:
        """Say whether a unit prepares, or describes, what the sandbox does by itself."""
        parsed = [messages.text(m.body) for m in unit.messages if m.kind == b"P"]
        described = [
            messages.text(m.body, 1)
            for m in unit.messages
            if m.kind == b"D" and m.body[:1] == b"S"
        ]  # fmt: skip
        return any(self._of(name).kind is Kind.CONTROL for name in parsed + described)

    def only_fetches(self, unit: Unit) -> bool:
        """Say whether a unit only reads on from portals that are open."""
        return all(
            message.kind in (b"S", b"H", b"C")
            or (message.kind == b"E" and messages.text(message.body) in self.open_portals)
            for message in unit.messages
        )

    def drops(self, message: Message) -> bool:
        """Say whether a message answers a Close that the application has not sent."""
        if message.kind == b"3" and self._drops:
            self._drops -= 1
            return True
        return False

    def names_portal(self, request: Request) -> bool:
        """Say whether a request binds a portal that may stay open."""
        return any(m.kind == b"B" and messages.text(m.body) for m in request.unit.messages)

    def note_open(self, request: Request, answer: Answer) -> bool:
        """Note the portals that stay open after a request; say whether there are any."""
        if not self.names_portal(request) and not any(
            statement.words.startswith("DECLARE") for statement in request.executed
        ):
            return False
        declared = {
            found[1].lower()
            for statement in request.executed
            if (found := re.match(r"\s*DECLARE\s+\"?([^\s\"]+)", statement.text, re.IGNORECASE))
            if "WITH HOLD" not in statement.words
        }
        sent = request.unit.messages
        bound = {messages.text(m.body) for m in sent if m.kind == b"B"}
        executed = {messages.text(m.body) for m in sent if m.kind == b"E"}
        kept = {name for name in bound if name and (name not in executed or answer.is_suspended)}
        self.open_portals |= kept | declared
        return bool(kept | declared)

    def close_portals(self, also: Iterable[str] = ()) -> bytes:
        """Forget the open portals; return the messages that close them."""
        names = {self.translation.own(name) for name in (*self.open_portals, *also)}
        self.open_portals.clear()
        return messages.close_portals(sorted(names))

    def close_statements(self) -> bytes:
        """Return the messages that close all statements."""
        names = {*self._statements, *self.translation.statements}
        closes = [Message(b"C", b"S" + self._name(name) + b"\0") for name in names]
        return b"".join(close.encode() for close in closes) + messages.SYNC

    def _parse(self, body: bytes) -> list[bytes]:
        name = messages.text(body)
        start = len(name.encode()) + 1
        sql = messages.text(body, start)
        rest = body[start + len(sql.encode()) + 1 :]
        found = read_statements(sql)
        self._statements[name] = found[0] if found else _EMPTY
        own = self._name(name) + b"\0"
        text = self.translation.of(found, sql).encode()
        parse = Message(b"P", own + text + b"\0" + rest).encode()
        if name:
            return [parse]
        self._drops += 1  # the answer to this Close, for the unnamed one is replaced
        return [Message(b"C", b"S" + own).encode(), parse]

    def _bind(self, body: bytes) -> bytes:
        portal = messages.text(body)
        start = len(portal.encode()) + 1
        name = messages.text(body, start)
        self._portals[portal] = self._of(name)
        rest = body[start + len(name.encode()) + 1 :]
        names = self._portal(portal) + b"\0" + self._name(name) + b"\0"
        return Message(b"B", names + rest).encode()

    def _forget(self, what: bytes, name: str) -> None:
        if what == b"S":
            self._statements.pop(name, None)
        else:
            self._portals.pop(name, None)
            self.open_portals.discard(name)

    def _of(self, name: str) -> Statement:
        return self._statements.get(name, _UNKNOWN)

    def _name(self, name: str) -> bytes:
        return f"{self._number}.{name}".encode()

    def _portal(self, name: str) -> bytes:
        return self._name(name) if name else b""


_EMPTY = Statement("", "", Kind.EMPTY, frozenset(), "")
_UNKNOWN = Statement("", "", Kind.WRITE, frozenset(), "")
