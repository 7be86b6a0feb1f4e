"""A server that nothing may ever connect to, standing for production."""

import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Trap:
    """A port of this machine that listens, and never answers."""

    port: int

    def url(self, driver: str = "") -> str:
        """Return a URL that leads here."""
        return f"postgresql{driver}://nobody:secret@127.0.0.1:{self.port}/production"


@contextmanager
def set_trap() -> Generator[Trap]:
    """Listen while the block runs; fail if anything has connected meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield Trap(server.getsockname()[1])
        try:
            server.accept()
        except BlockingIOError:
            return
        msg = "A connection was made to the server that stands for production."
        raise AssertionError(msg)
