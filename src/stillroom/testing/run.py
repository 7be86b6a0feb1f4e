"""The databases of one run of tests: its server, its template, its sandbox, its clones."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import asyncpg
from sqlalchemy import Dialect

from stillroom.postgres import Cluster, temporary_cluster
from stillroom.testing.engines import DatabaseTarget, SandboxTarget, direct_to, install, routed
from stillroom.testing.queries import QueryLog
from stillroom.testing.refusal import Refusal
from stillroom.testing.relay import Relay
from stillroom.testing.sandbox import Sandbox
from stillroom.testing.transport import AnyLoop

TEMPLATE = "stillroom_template"
SANDBOX = "stillroom_sandbox"


class Run:
    """Own what a run of tests connects to; everything is made when it is first needed.

    `build` is called once, with every engine of the process directed to an empty database, and
    makes the tables there.
    """

    def __init__(self, build: Callable[[str], None]) -> None:
        self.queries = QueryLog()
        self._build = build
        self._stack = ExitStack()
        self._cluster: Future[Cluster] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, daemon=True, name="stillroom"
        )
        self._lock = threading.RLock()
        self._template_is_built = False
        self._opened: tuple[Sandbox, SandboxTarget] | None = None
        self._levels: tuple[str, ...] = ()
        self._clones = 0
        self._relay: Relay | None = None

    def launch(self) -> None:
        """Start the server in the background, and send every engine of the process to it."""
        install()
        direct_to(self)
        self.queries.install()
        self._thread.start()
        executor = ThreadPoolExecutor(1)
        self._cluster = executor.submit(self._stack.enter_context, temporary_cluster())
        executor.shutdown(wait=False)

    def close(self) -> None:
        """End all of it."""
        direct_to(None)
        if self._opened is not None:
            self._call(self._opened[0].close())
        if self._cluster is not None:
            self._cluster.result()
        self._stack.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def version(self) -> str:
        """Return the version of PostgreSQL."""
        return self._server().version

    def direct(self, dialect: Dialect, arguments: dict[str, Any]) -> None:
        """Send an engine into the sandbox, which is opened when it is first needed."""
        with self._lock:
            self._sandbox()[1].direct(dialect, arguments)

    def stand_at(self, levels: Sequence[str]) -> None:
        """Leave the scopes that are not named: what was done in them is rolled back."""
        self._levels = tuple(levels)
        if self._opened is not None:
            self._call(self._opened[0].stand_at(levels))

    def take_refusals(self) -> list[Refusal]:
        """Return what the sandbox has refused since the last call."""
        if self._opened is None:
            return []
        refusals = self._opened[0].refusals
        taken = list(refusals)
        refusals.clear()
        return taken

    def clone(self) -> str:
        """Make a database of a test's own, and send every engine there; return its URL."""
        with self._lock:
            self._template()
            self._clones += 1
            name = f"stillroom_clone_{self._clones}"
            self._administer(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        url = self._server().url(name)
        self._relay = Relay({"dsn": url})
        direct_to(DatabaseTarget(url, AnyLoop(self._loop, self._relay.accept)))
        return url

    def drop_clone(self) -> None:
        """Send engines to the sandbox again, and drop the database of the test."""
        direct_to(self)
        if self._relay is not None:
            self._call(self._relay.close())
        self._administer(f"DROP DATABASE stillroom_clone_{self._clones} WITH (FORCE)")

    def _server(self) -> Cluster:
        if self._cluster is None:
            msg = "The run of tests has not been launched."
            raise RuntimeError(msg)
        return self._cluster.result()

    def _sandbox(self) -> tuple[Sandbox, SandboxTarget]:
        if self._opened is None:
            self._template()
            self._administer(f"CREATE DATABASE {SANDBOX} TEMPLATE {TEMPLATE} STRATEGY file_copy")
            sandbox = self._call(self._open(self._server().url(SANDBOX)))
            self._opened = sandbox, SandboxTarget(AnyLoop(self._loop, sandbox.accept))
        return self._opened

    async def _open(self, url: str) -> Sandbox:
        sandbox = Sandbox({"dsn": url})
        await sandbox.open()
        await sandbox.stand_at(self._levels)
        return sandbox

    def _template(self) -> None:
        if self._template_is_built:
            return
        self._server().create_database(TEMPLATE)
        url = self._server().url(TEMPLATE)
        with routed(url):
            self._build(url)
        self.queries.clear()  # they are not the test's
        self._template_is_built = True

    def _administer(self, sql: str) -> None:
        self._call(_administer(self._server().url("postgres"), sql))

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _administer(url: str, sql: str) -> None:
    connection = await cast("Any", asyncpg).connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
