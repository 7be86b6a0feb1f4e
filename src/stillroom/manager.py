"""The database sessions of a process: URL to engines to sessions, and who closes them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import URL, MetaData, NullPool, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker

from stillroom.engine import POOL_SIZE, EngineSettings, create_engine, create_read_engine
from stillroom.engine.capacity import fitting_pool_size
from stillroom.engine.pool import retire
from stillroom.errors import DatabaseUnavailableError, LifecycleError
from stillroom.session import READS, TIMEOUT, ServiceSession
from stillroom.url import parse_url, show_url


class DatabaseSessionManager:
    """Own the engines of a process and hand out connections and sessions.

    One object serves the whole application: make it at import, `init` it when the application
    starts, `close` it when it stops, and it may be initialised again. An asyncpg connection lives
    and dies with its event loop, so each loop that uses the manager gets a pool of its own, which
    is closed with the loop; an application in production has one loop, tests often have many.
    """

    def __init__(self, metadata: MetaData | None = None) -> None:
        """Make a manager that is not open; `metadata` is for create_all and drop_all."""
        self.metadata = metadata
        self._opened: _Opened | None = None
        self._closed = False
        self._engines: dict[asyncio.AbstractEventLoop, _Engines] = {}

    def init(
        self,
        url: str | URL,
        *,
        read_url: str | URL | None = None,
        settings: EngineSettings | None = None,
    ) -> None:
        """Take the database URL; nothing is opened and no event loop is needed.

        Reads go to `read_url`, a replica, where one is given. Raises ConfigurationError for a URL
        that cannot be used and LifecycleError when the manager is open already.
        """
        if self._opened is not None:
            msg = (
                f"The session manager is open already, on {show_url(self._opened.url)}. "
                "Await close() before init() is called again."
            )
            raise LifecycleError(msg)
        self._opened = _Opened(
            url=parse_url(url),
            read_url=None if read_url is None else parse_url(read_url),
            settings=settings or EngineSettings(),
        )

    async def share(self, workers: int) -> None:
        """Fit the pools of so many processes like this one into the connections of PostgreSQL.

        It is asked once, before the first use: `lifespan` does so under `stillroom serve`. A size
        that the settings name is kept. Raises ConfigurationError, with the numbers, where it does
        not fit; where PostgreSQL is away that is logged, and the pools are as big as ever.
        """
        opened = self._require_open()
        if self._engines:
            msg = "The pools are in use already: await share() right after init(), before that."
            raise LifecycleError(msg)
        pools = (opened.url, opened.read_url or opened.url)
        size = await fitting_pool_size(pools, opened.settings, workers)
        self._opened = replace(opened, settings=replace(opened.settings, pool_size=size))

    def warm(self) -> None:
        """Begin to make all connections of the running event loop's pools, in the background."""
        engines = self._of_this_loop()
        for engine in (engines.write, engines.read):
            pool: Any = engine.pool
            pool.warm()

    async def close(self) -> None:
        """Close the pools of every event loop; connections in use are closed on their return.

        Raises LifecycleError when the manager is not open.
        """
        self._require_open()
        self._opened = None
        self._closed = True
        engines, self._engines = self._engines, {}
        for loop, of_loop in engines.items():
            if loop is asyncio.get_running_loop():
                await of_loop.close()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(of_loop.close(), loop)
                await asyncio.wrap_future(closing)
            # A loop that stands still closes its pools itself, when it is run again or shut down.

    @property
    def is_open(self) -> bool:
        """Say whether init() was called, and close() not since."""
        return self._opened is not None

    @property
    def settings(self) -> EngineSettings:
        """Return the settings in force; raises LifecycleError when the manager is not open."""
        return self._require_open().settings

    @property
    def engine(self) -> AsyncEngine:
        """Return the write engine of the running event loop."""
        return self._of_this_loop().write

    @property
    def read_engine(self) -> AsyncEngine:
        """Return the read engine of the running event loop, which has a pool of its own."""
        return self._of_this_loop().read

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[AsyncConnection]:
        """Give a connection in a transaction: committed at the end, rolled back by an exception."""
        async with self.engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncGenerator[ServiceSession]:
        """Give a session that is rolled back at the end, unless its user has committed."""
        async with self.new_session(read_only=read_only) as session:
            yield session

    @asynccontextmanager
    async def long_session(self, *, read_only: bool = False) -> AsyncGenerator[ServiceSession]:
        """Give a session for work that takes long, as a stream, an import or an export does.

        All of them together have half of a pool at most, so that others still find a connection.
        Raises sqlalchemy.exc.TimeoutError after `pool_timeout` where that half is in use.
        """
        engines = self._of_this_loop()
        share = engines.long_reads if read_only else engines.long_writes
        try:
            async with asyncio.timeout(self.settings.pool_timeout):
                await share.acquire()
        except TimeoutError:
            msg = (
                "Half of the pool's connections are in use by streams, imports or exports, and no "
                "more of them may have one. Try again later."
            )
            raise PoolTimeoutError(msg) from None
        try:
            async with self.session(read_only=read_only) as session:
                yield session
        finally:
            share.release()

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[ServiceSession]:
        """Give a session that is committed at the end; an exception rolls it back.

        Raises UnknownOutcomeError when the COMMIT is not answered in time.
        """
        async with self.session() as session:
            yield session
            await session.commit()

    def new_session(self, *, read_only: bool = False) -> ServiceSession:
        """Make a session that its user closes; it takes a connection at its first statement.

        A read-only one is held to it by PostgreSQL itself, and only a statement that says SET
        TRANSACTION READ WRITE, first of all, is obeyed. Its SELECTs are transactions by themselves
        where nothing could tell (`create_read_engine`). A closed session refuses work instead of
        beginning anew.
        """
        engines = self._of_this_loop()
        return (engines.read_sessions if read_only else engines.write_sessions)()

    async def ping(self) -> None:
        """Ask PostgreSQL for a sign of life, past the pools.

        Raises DatabaseUnavailableError where there is none within a second.
        """
        opened = self._require_open()
        settings = replace(opened.settings, connect_timeout=_PING)
        engine = create_engine(opened.url, settings, poolclass=NullPool)
        try:
            async with asyncio.timeout(_PING), engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except TimeoutError as error:
            msg = f"PostgreSQL at {show_url(opened.url)} has not answered within {_PING:g} s"
            raise DatabaseUnavailableError(msg) from error

    async def create_all(self, connection: AsyncConnection) -> None:
        """Create the tables of the metadata that are not there."""
        await connection.run_sync(self._require_metadata().create_all)

    async def drop_all(self, connection: AsyncConnection) -> None:
        """Drop the tables of the metadata that are there."""
        await connection.run_sync(self._require_metadata().drop_all)

    def __repr__(self) -> str:
        """Show where the database is, and nothing that may be secret."""
        state = "closed" if self._closed else "not open"
        return f"<DatabaseSessionManager {show_url(self._opened.url) if self._opened else state}>"

    def _require_open(self) -> "_Opened":
        if self._opened is None:
            state = "was closed" if self._closed else "is not open yet"
            msg = (
                f"The session manager {state}. Call sessionmanager.init(url) first, or let the "
                "application's lifespan do it: init_app(init_db=True), and TestClient in a `with`."
            )
            raise LifecycleError(msg)
        return self._opened

    def _require_metadata(self) -> MetaData:
        if self.metadata is None:
            msg = "The session manager has no metadata: DatabaseSessionManager(Base.metadata)"
            raise LifecycleError(msg)
        return self.metadata

    def _of_this_loop(self) -> "_Engines":
        opened = self._require_open()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            msg = "The session manager was used outside of a running event loop; await it in one."
            raise LifecycleError(msg) from None
        if loop not in self._engines:
            for gone in [known for known in self._engines if known.is_closed()]:
                del self._engines[gone]
            self._engines[loop] = _Engines.make(opened)
        return self._engines[loop]


@dataclass(frozen=True)
class _Opened:
    url: URL
    read_url: URL | None
    settings: EngineSettings


@dataclass(frozen=True)
class _Engines:
    write: AsyncEngine
    read: AsyncEngine
    write_sessions: async_sessionmaker[ServiceSession]
    read_sessions: async_sessionmaker[ServiceSession]
    long_writes: asyncio.Semaphore
    long_reads: asyncio.Semaphore
    guard: AsyncGenerator[None]

    @classmethod
    def make(cls, opened: _Opened) -> "_Engines":
        write = create_engine(opened.url, opened.settings)
        read = create_read_engine(opened.read_url or opened.url, opened.settings)
        guard = _dispose_with_loop(write, read)
        info = {TIMEOUT: opened.settings.statement_timeout}
        sessions = _sessions(write, info), _sessions(read, {**info, READS: True})
        half = max(1, (opened.settings.pool_size or POOL_SIZE) // 2)
        return cls(write, read, *sessions, asyncio.Semaphore(half), asyncio.Semaphore(half), guard)

    async def close(self) -> None:
        await self.guard.aclose()


def _sessions(engine: AsyncEngine, info: dict[Any, Any]) -> async_sessionmaker[ServiceSession]:
    return async_sessionmaker(
        engine,
        class_=ServiceSession,
        expire_on_commit=False,
        close_resets_only=False,
        info=info,
    )


def _dispose_with_loop(*engines: AsyncEngine) -> AsyncGenerator[None]:
    async def guard() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            for engine in engines:
                await retire(engine)

    # A loop closes the asynchronous generators that were started in it before it ends
    # (loop.shutdown_asyncgens, which asyncio.run, anyio, uvicorn and pytest-asyncio await): the
    # one moment at which a pool can still say goodbye. Started by hand, as nobody awaits here.
    generator = guard()
    with suppress(StopIteration):
        generator.__anext__().send(None)
    return generator


_PING = 1.0  # seconds
