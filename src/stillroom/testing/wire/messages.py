"""The messages of PostgreSQL's protocol, version 3, as far as a connection in between reads them.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

CANCEL_REQUEST = 80877102
SSL_REQUEST = 80877103
GSS_REQUEST = 80877104


class Message(NamedTuple):
    """One message: a byte that says what it is, and its body."""

    kind: bytes
    body: bytes = b""

    def encode(self) -> bytes:
        """Return the message as it goes over the wire."""
        return self.kind + _LENGTH.pack(len(self.body) + 4) + self.body


class Messages:
    """Cut a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take what was received and yield each message that is complete."""
        buffer = self._buffer
        buffer += data
        start, end = 0, len(buffer)
        try:
            while start + 5 <= end:
                (length,) = _LENGTH.unpack_from(buffer, start + 1)
                stop = start + 1 + length
                if stop > end:
                    break
                yield Message(bytes(buffer[start : start + 1]), bytes(buffer[start + 5 : stop]))
                start = stop
        finally:
            del buffer[:start]

    def take_startup(self, data: bytes) -> tuple[int, bytes] | None:
        """Take bytes of a new connection; return code and body of its first message when whole.

        That message has no byte in front that would say what it is.
        """
        self._buffer += data
        if len(self._buffer) < 8:
            return None
        length, code = _STARTUP.unpack_from(self._buffer)
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[8:length])
        del self._buffer[:length]
        return code, body


def text(body: bytes, start: int = 0) -> str:
    """Return the string that starts there; strings end with a NUL."""
    return body[start : body.index(0, start)].decode()


def startup_parameters(body: bytes) -> dict[str, str]:
    """Return what a StartupMessage asks for: user, database and run-time parameters."""
    words = body.decode().split("\0")
    return dict(zip(words[0::2], words[1::2], strict=False)) if words else {}


def query(sql: str) -> bytes:
    """Return a simple Query."""
    return Message(b"Q", sql.encode() + b"\0").encode()


def close_portals(names: Sequence[str]) -> bytes:
    """Return what closes portals, which is no error for one that is closed already, and a Sync."""
    closes = [Message(b"C", b"P" + name.encode() + b"\0").encode() for name in names]
    return b"".join(closes) + SYNC


def ready(status: bytes) -> bytes:
    """Return a ReadyForQuery; the status is I, T or E."""
    return Message(b"Z", status).encode()


def complete(tag: str) -> bytes:
    """Return a CommandComplete."""
    return Message(b"C", tag.encode() + b"\0").encode()


def parameter_status(name: str, value: str) -> bytes:
    """Return a ParameterStatus."""
    return Message(b"S", name.encode() + b"\0" + value.encode() + b"\0").encode()


def key_data(process: int, secret: int) -> bytes:
    """Return a BackendKeyData."""
    return Message(b"K", struct.pack("!ii", process, secret)).encode()


def error(sqlstate: str, message: str, *, hint: str = "", severity: str = "ERROR") -> bytes:
    """Return an ErrorResponse."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message, "H": hint}
    body = b"".join(
        name.encode() + value.encode() + b"\0" for name, value in fields.items() if value
    )
    return Message(b"E", body + b"\0").encode()


def error_fields(body: bytes) -> Mapping[str, str]:
    """Return the fields of an ErrorResponse: C is the SQLSTATE, M the message, H the hint."""
    return {field[:1]: field[1:] for field in body.decode(errors="replace").split("\0") if field}


def row(body: bytes) -> list[str | None]:
    """Return the values of a DataRow that is in text format."""
    (count,) = struct.unpack_from("!h", body)
    values: list[str | None] = []
    start = 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, start)
        start += 4
        values.append(None if length < 0 else body[start : start + length].decode())
        start += max(length, 0)
    return values


def parameters(body: bytes) -> list[bytes | None]:
    """Return the parameters of a Bind, each in the format that its sender chose."""
    start = body.index(0, body.index(0) + 1) + 1
    (formats,) = struct.unpack_from("!h", body, start)
    start += 2 + 2 * formats
    (count,) = struct.unpack_from("!h", body, start)
    start += 2
    values: list[bytes | None] = []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, start)
        start += 4
        values.append(None if length < 0 else body[start : start + length])
        start += max(length, 0)
    return values


_LENGTH = struct.Struct("!i")
_STARTUP = struct.Struct("!ii")

AUTHENTICATION_OK = Message(b"R", struct.pack("!i", 0)).encode()
READY = b"Z" + _LENGTH.pack(5)
"""How a ReadyForQuery begins; its status follows."""
SYNC = Message(b"S").encode()
PARSE_COMPLETE = Message(b"1").encode()
BIND_COMPLETE = Message(b"2").encode()
CLOSE_COMPLETE = Message(b"3").encode()
NO_DATA = Message(b"n").encode()
NO_PARAMETERS = Message(b"t", struct.pack("!h", 0)).encode()
EMPTY_QUERY = Message(b"I").encode()

REPORTED = (
    "server_version", "server_encoding", "client_encoding", "application_name", "is_superuser",
    "session_authorization", "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes",
    "standard_conforming_strings", "in_hot_standby", "default_transaction_read_only", "search_path",
)  # fmt: skip
"""The parameters that a server reports when a connection starts.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC
"""
