"""The socket on which clients knock."""

import socket
import sys

import pytest

from stillroom.serving.listener import let_nobody_new_in, listen


@pytest.mark.skipif(sys.platform != "linux", reason="another system has no filter for a socket")
def test_nobody_new_is_let_in_and_who_waits_is() -> None:
    """No connection can come between the last accept() and the close() that would reset it."""
    with listen("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as waiting:
            let_nobody_new_in(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            waiting.sendall(b"jam")
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(3) == b"jam"
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
