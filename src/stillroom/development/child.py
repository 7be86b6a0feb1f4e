"""A process that ends with its supervisor, on the supervisor's side: see `worker`."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP)

_STOP_SECONDS = 6  # a worker ends itself after four, whatever hangs in it


class Child:
    """Run a worker's process, and hold the supervisor's end of its socket."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.process = process
        self._control = control

    @classmethod
    async def start(
        cls,
        folder: Path,
        environ: Mapping[str, str],
        arguments: list[str],
        descriptors: list[int] | None = None,
    ) -> Self:
        """Start the process with these arguments; it inherits the descriptors."""
        control, theirs = socket.socketpair()
        control.setblocking(False)
        with theirs:
            number = theirs.fileno()
            # Inherited: until the worker has its handlers, a Ctrl-C waits there, and here.
            signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "stillroom.development.worker"),
                    *(str(number), *arguments),
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
        """Wait until it serves; False when it has ended before."""
        with contextlib.suppress(ConnectionResetError):
            return bool(await asyncio.get_running_loop().sock_recv(self._control, 1))
        return False

    async def stop(self) -> None:
        """Ask it to end, let requests end, and wait; kill it when it does not."""
        self._control.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
