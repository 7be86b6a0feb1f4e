"""The socket on which clients knock."""

import contextlib
import ctypes
import ipaddress
import os
import socket
import stat
import struct
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from stillroom.errors import ConfigurationError

BACKLOG = 2048
"""How many connections may wait to be accepted."""


@contextmanager
def listen(host: str, port: int) -> Generator[socket.socket]:
    """Listen on an address; raises ConfigurationError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"Nothing can listen on {host}:{port}: {error.strerror or error}. "
            "Choose another --host or --port, or stop what listens there."
        ) from error
    with listener:
        yield listener


@contextmanager
def listen_at(path: Path) -> Generator[socket.socket]:
    """Listen on a unix socket, for whoever may enter its folder, and remove it at the end.

    A socket that was left there by a server that is gone makes room. Raises ConfigurationError
    where that cannot be.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _make_room(path)
            listener.bind(str(path))
            path.chmod(0o666)  # as on the loopback: a proxy is another user
            listener.listen(BACKLOG)
        except OSError as error:
            raise ConfigurationError(
                f"Nothing can listen on {path}: {error.strerror or error}. "
                "Choose another --uds, or stop what listens there."
            ) from error
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def let_nobody_new_in(listener: socket.socket) -> None:
    """Drop what begins a connection from now on; those that have begun are made, and wait.

    A socket that is closed resets who waits at it, and between the last accept() and close() one
    may come. Linux drops for us: the client tries again after a second, and is refused.
    https://www.kernel.org/doc/html/latest/networking/filter.html
    """
    if sys.platform == "linux" and listener.family != socket.AF_UNIX:
        program = ctypes.create_string_buffer(_NO_SYN)
        length = len(_NO_SYN) // _INSTRUCTION.size
        filtered = struct.pack("HP", length, ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtered)


def require_public(host: str) -> None:
    """Raise ConfigurationError for an address that other machines may reach."""
    if not all(_is_loopback(address) for address in _addresses(host)):
        raise ConfigurationError(
            f"{host} can be reached from other machines, and the service asks nobody who they are: "
            "there is no authentication yet, so all may read and write everything. Say --public "
            "where that is meant, or where something else decides who gets here; or listen on "
            "127.0.0.1."
        )


_SO_ATTACH_FILTER = 26  # Python has no name for it
_INSTRUCTION = struct.Struct("HBBI")
_NO_SYN = b"".join(
    _INSTRUCTION.pack(*instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x45, 0, 1, 0x02),  # go on where SYN is among them, else skip one
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFF),  # take
    )
)


def _make_room(path: Path) -> None:
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            with contextlib.suppress(ConnectionRefusedError):
                client.connect(os.fspath(path))
                return  # somebody answers: bind() will say that it is taken
            path.unlink()


def _addresses(host: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None)]
    except OSError as error:
        raise ConfigurationError(f"--host {host} is no address: {error.strerror}.") from error


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
