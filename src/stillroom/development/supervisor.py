"""The development server: a database, its migrations, and the application, reloaded on change.

One supervisor owns everything: the listening socket, the PostgreSQL cluster, and the worker that
serves. The worker is started first: it imports the application while the database starts and
migrates, and serves when that is done. Whichever of their processes is killed, the others end.
"""

import asyncio
import contextlib
import os
import shlex
import socket
import sys
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from stillroom.errors import ConfigurationError, StillroomError
from stillroom.postgres import (
    Cluster,
    database_name,
    development_data,
    given_url,
    project,
    running,
    with_asyncpg,
)
from stillroom.postgres.watchdog import how_it_ended
from stillroom.serving.child import Child, stop_signal
from stillroom.serving.listener import listen

_STOP_SECONDS = 6  # a worker ends itself after four, whatever hangs in it


@dataclass(frozen=True)
class Options:
    """What `stillroom dev` can be told: a service's folder, its application, where to serve it."""

    folder: Path
    application: str = "run:server"
    host: str = "127.0.0.1"
    port: int = 8000
    reload: bool = True
    migrate: bool = True


def develop(options: Options) -> None:
    """Serve a service for its developer until INT, TERM or HUP says stop, then stop it in order.

    The database is the one that DB_CONFIG, or DB_HOST and the others, name, else the service's own
    development cluster. Raises StillroomError when a part cannot be started or has died; everything
    else is stopped first.
    """
    if not (options.folder / "pyproject.toml").is_file():
        raise ConfigurationError(
            f"{options.folder.absolute()} has no pyproject.toml. Run this in a service's folder."
        )
    asyncio.run(_Supervisor(options).run())


class _Supervisor:
    """Wait for what happens next, in one loop over named tasks, and answer it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = options.folder.absolute()
        self._environ = dict(os.environ)
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._cluster: Cluster | None = None
        self._worker: Child | None = None
        self._database_ready = False
        self._addresses_said = False

    async def run(self) -> None:
        self._expect("signal", stop_signal())
        with contextlib.ExitStack() as stack:
            self._listener = stack.enter_context(_listen(self._options))
            if not given_url(os.environ):
                self._cluster = Cluster(_prepare_data(self._folder))
                stack.callback(self._cluster.stop)
                self._cluster.launch()
                for name in [it for it in self._environ if it.startswith(("PG", "DB_"))]:
                    del self._environ[name]  # PGSSLMODE, DB_DIRECT and the like mean another server
                self._environ["DB_CONFIG"] = with_asyncpg(self._cluster.url(self._name))
            try:
                await self._supervise()
            finally:
                await self._end()

    @property
    def _name(self) -> str:
        return database_name(self._folder)

    async def _supervise(self) -> None:
        await self._start_worker()
        self._expect("database", self._prepare_database())
        if self._options.reload:
            from stillroom.development.changes import changes  # noqa: PLC0415  (the worker starts meanwhile)

            self._changes = changes(self._folder)
            self._expect("change", anext(self._changes))
        while True:
            match await self._next():
                case "signal", _:
                    return
                case "database", _:
                    self._serve()
                case "cluster", end:
                    raise StillroomError(f"{end}: everything else was stopped.")
                case "worker", code:
                    self._note_end_of_worker(code)
                case "serving", True:
                    self._say_addresses()
                case "change", files:
                    await self._restart_worker(files)
                case _:
                    pass

    async def _next(self) -> tuple[str, Any]:
        """Return what happened first, and its result; a signal comes before everything else."""
        await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        name = next(name for name, task in self._tasks.items() if task.done())
        return name, self._tasks.pop(name).result()

    def _expect(self, name: str, event: Coroutine[Any, Any, Any]) -> None:
        self._tasks[name] = asyncio.ensure_future(event)

    async def _withdraw(self, *names: str) -> None:
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_worker(self) -> None:
        number = self._listener.fileno()
        arguments = ["serve", self._options.application, str(number)]
        self._worker = await self._start(arguments, [number])
        self._expect("worker", self._worker.process.wait())
        self._expect("serving", self._worker.serving())
        if self._database_ready:
            self._worker.permit()

    async def _stop_worker(self) -> None:
        await self._withdraw("worker", "serving")
        if self._worker:
            await self._worker.stop(_STOP_SECONDS)
        self._worker = None

    async def _restart_worker(self, files: list[Path]) -> None:
        names = ", ".join(str(file.relative_to(self._folder)) for file in files)
        _say(f"Changed: {names}. Starting anew.")
        if any(file.parent.name == "versions" for file in files):
            _say("The database stays as it is; to apply a revision: alembic upgrade head")
        self._expect("change", anext(self._changes))
        await self._stop_worker()
        await self._start_worker()

    async def _prepare_database(self) -> None:
        if self._cluster:
            while not self._cluster.ready():  # noqa: ASYNC110  (another process' state)
                await asyncio.sleep(0.005)
            await asyncio.to_thread(self._cluster.create_database, self._name)
        if self._options.migrate and "alembic" in project(self._folder).get("tool", {}):
            await self._migrate()

    async def _migrate(self) -> None:
        child = await self._start(["migrate"])
        try:
            code = await child.process.wait()
        finally:
            await child.stop(_STOP_SECONDS)
        if code != 0:
            raise StillroomError(
                f"The migrations did not reach head: alembic upgrade head {how_it_ended(code)}; "
                "what it said stands above. Everything was stopped."
            )

    async def _start(self, arguments: list[str], descriptors: list[int] | None = None) -> Child:
        return await Child.start(
            "stillroom.development.worker",
            arguments,
            folder=self._folder,
            environ=self._environ,
            descriptors=descriptors,
        )

    def _serve(self) -> None:
        self._database_ready = True
        if self._worker:
            self._worker.permit()
        if self._cluster:
            self._expect("cluster", _end_of(self._cluster))

    def _note_end_of_worker(self, code: int) -> None:
        """Keep the developer's errors apart from accidents: only those go with a change."""
        if code < 0 or not self._options.reload:
            raise StillroomError(f"The worker {how_it_ended(code)}: everything else was stopped.")
        _say(f"The application {how_it_ended(code)}. Waiting for a change.")

    def _say_addresses(self) -> None:
        if self._addresses_said:
            return
        self._addresses_said = True
        host, port = self._listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        _say(f"API       {address}")
        _say(f"Docs      {address}/docs")
        if self._cluster:
            _say(f"Database  {self._cluster.url(self._name)}")
            _say(f"psql      {shlex.join(self._cluster.psql_command(self._name))}")
        else:
            _say(f"Database  {_without_secrets(given_url(os.environ) or '')}")

    async def _end(self) -> None:
        await self._withdraw("database", "change")
        await self._stop_worker()
        await self._withdraw(*self._tasks)


async def _end_of(cluster: Cluster) -> str:
    while not (end := cluster.ended()):  # noqa: ASYNC110  (another process' state)
        await asyncio.sleep(0.1)
    return end


@contextlib.contextmanager
def _listen(options: Options) -> Generator[socket.socket]:
    """Listen before anything serves: who comes early, or while the application reloads, waits."""
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(listen(options.host, options.port))
        except ConfigurationError as error:
            data = development_data(options.folder)
            with contextlib.suppress(PermissionError):
                if server := running(data):
                    raise ConfigurationError(
                        f"{options.host}:{options.port} is taken, and a development database (pid "
                        f"{server.pid}) runs in {data}: `stillroom dev` serves this folder already."
                    ) from error
            raise
        yield listener


def _prepare_data(folder: Path) -> Path:
    data = development_data(folder)
    data.parent.mkdir(exist_ok=True)
    (data.parent / ".gitignore").write_text("*\n")
    return data


def _without_secrets(url: str) -> str:
    """Return a URL without its password, however it was written, and with host and port alone."""
    address, _, query = url.partition("?")
    scheme, _, rest = address.partition("://")
    credentials, at, place = rest.rpartition("@")
    kept = [(name, value) for name, value in parse_qsl(query) if name in {"host", "port"}]
    user = credentials.partition(":")[0]
    return f"{scheme}://{user}{at}{place}" + (f"?{urlencode(kept)}" if kept else "")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
