"""The production server: a listening socket, and workers that are kept running."""

import asyncio
import json
import os
import socket
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from stillroom.errors import StillroomError
from stillroom.postgres.watchdog import how_it_ended
from stillroom.serving.child import Child, stop_signal
from stillroom.serving.listener import let_nobody_new_in, listen, listen_at, require_public
from stillroom.serving.options import Options
from stillroom.workers import VARIABLE, workers

_MARGIN_SECONDS = 4
"""How long after the grace a worker may take to end: it ends itself after half of that."""

_HANDSHAKE_SECONDS = 0.1
"""How long a connection that has begun may take to be made, before a stop."""

_PAUSE_SECONDS = 1
"""Between two starts of a worker that fail while others serve."""


def serve(options: Options) -> None:
    """Serve the application until INT, TERM or HUP says stop, and let requests end.

    Raises StillroomError for an address that cannot be had or that nobody has called public, for an
    application that does not start, and where a worker had to be killed at the end.
    """
    if options.uds is None and not options.public:
        require_public(options.host)
    with _listener(options) as listener:
        asyncio.run(_Supervisor(options, listener).run())


def _listener(options: Options) -> AbstractContextManager[socket.socket]:
    if options.uds is not None:
        return listen_at(Path(options.uds))
    return listen(options.host, options.port)


class _Supervisor:
    """Keep as many workers as were asked for, each in a task of its own."""

    def __init__(self, options: Options, listener: socket.socket) -> None:
        self._options = options
        self._listener = listener
        self._environ = {**os.environ, VARIABLE: str(max(options.workers, workers() or 0))}
        self._serving: set[Child] = set()
        self._is_said = False
        self._killed: list[int] = []

    async def run(self) -> None:
        stop = asyncio.ensure_future(stop_signal())
        keepers = [
            asyncio.ensure_future(self._keep_a_worker(is_first=number == 0))
            for number in range(self._options.workers)
        ]
        await asyncio.wait([stop, *keepers], return_when=asyncio.FIRST_COMPLETED)
        is_asked_to_stop = stop.done()
        if is_asked_to_stop:
            let_nobody_new_in(self._listener)
            await asyncio.sleep(_HANDSHAKE_SECONDS)
        self._listener.close()  # first of all: the last worker to close its own refuses who comes
        for task in (stop, *keepers):
            task.cancel()
        ends = await asyncio.gather(*keepers, return_exceptions=True)
        for end in ends:
            # Who stops all processes at once, as systemd does, may meet a worker at its start.
            if isinstance(end, Exception) and not is_asked_to_stop:
                raise end
        if self._killed:
            pids = ", ".join(map(str, self._killed))
            raise StillroomError(
                f"A worker (pid {pids}) did not end within {self._options.grace} s and was cut "
                "off: a request in it blocks the event loop, or the end of its lifespan hangs."
            )

    async def _keep_a_worker(self, *, is_first: bool) -> None:
        notes = is_first
        while True:
            worker = await self._start_worker(notes=notes)
            notes = False
            try:
                await self._watch(worker)
            finally:
                was_serving = worker in self._serving
                self._serving.discard(worker)
                seconds = self._options.grace + _MARGIN_SECONDS
                if await worker.stop(seconds) != 0 and was_serving:
                    self._killed.append(worker.process.pid)

    async def _start_worker(self, *, notes: bool) -> Child:
        number = self._listener.fileno()
        arguments = [str(number), json.dumps(asdict(self._options)), *(["notes"] if notes else [])]
        return await Child.start(
            "stillroom.serving.worker",
            arguments,
            folder=Path.cwd(),
            environ=self._environ,
            descriptors=[number],
        )

    async def _watch(self, worker: Child) -> None:
        """Return when a new worker is to be started. Raises StillroomError where none can serve."""
        who = f"Worker {worker.process.pid}"
        if await worker.serving():
            self._serving.add(worker)
            self._say_address()
            code = await worker.process.wait()
            self._serving.discard(worker)
            _say(f"{who} {how_it_ended(code)}. A new one is started.")
            return
        failure = await worker.failure()
        code = await worker.process.wait()
        failure = failure or f"A worker {how_it_ended(code)} before it served."
        if not self._serving:
            raise StillroomError(failure)
        _say(f"{who} did not start, the others go on. {failure}")
        await asyncio.sleep(_PAUSE_SECONDS)

    def _say_address(self) -> None:
        if self._is_said or len(self._serving) < self._options.workers:
            return
        self._is_said = True
        number = self._options.workers
        processes = "1 worker" if number == 1 else f"{number} workers"
        _say(f"Serving {self._options.application} on {self._address()}, {processes}.")

    def _address(self) -> str:
        if self._options.uds is not None:
            return self._options.uds
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
