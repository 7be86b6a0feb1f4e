"""A process that ends with its supervisor, on the supervisor's side: see `control`."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP)


class Child:
    """Run a worker's process, and hold the supervisor's end of its socket."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.process = process
        self._control = control

    @classmethod
    async def start(
        cls,
        module: str,
        arguments: list[str],
        *,
        folder: Path,
        environ: Mapping[str, str],
        descriptors: list[int] | None = None,
    ) -> Self:
        """Start a module with these arguments after its control; it inherits the descriptors."""
        control, theirs = socket.socketpair()
        control.setblocking(False)
        with theirs:
            number = theirs.fileno()
            # Inherited: until the worker has its handlers, a Ctrl-C waits there, and here.
            signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", module, str(number), *arguments),
                    cwd=folder,
                    env=environ,
                    pass_fds=[number, *(descriptors or [])],
                )
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL_SIGNALS)
        return cls(process, control)

    def permit(self) -> None:
        """Let it serve."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: that is noticed by itself
            self._control.send(b"s")

    async def serving(self) -> bool:
        """Wait until it serves; False when it has not come to that."""
        return await self._receive(1) == SERVING

    async def failure(self) -> str:
        """Read why it does not serve; empty where it ended without a word."""
        words = bytearray()
        while part := await self._receive(4096):
            words += part
        return words.decode(errors="replace")

    async def stop(self, seconds: float) -> int:
        """Ask it to end, and return its exit code; after these seconds it is killed."""
        self._control.close()
        try:
            async with asyncio.timeout(seconds):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()

    async def _receive(self, size: int) -> bytes:
        with contextlib.suppress(ConnectionResetError):
            return await asyncio.get_running_loop().sock_recv(self._control, size)
        return b""


SERVING = b"s"
FAILED = b"f"
"""What a worker says first of all: that it serves, or why it does not."""


async def stop_signal() -> None:
    """Wait for a signal that says stop; HUP stays ignored where nohup has said so."""
    received = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, received.set)
    loop.add_signal_handler(signal.SIGTERM, received.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, received.set)
    await received.wait()
