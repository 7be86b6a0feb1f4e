"""A pool of a fixed size: its connections are made in the background, and taken back whole."""

import asyncio
import logging
import time
from typing import Any, Self

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.util import await_only, greenlet_spawn

from stillroom.engine.admission import Line, RefusedError
from stillroom.engine.driver import hang_up, is_quiet

logger = logging.getLogger("stillroom")


class ConnectionPool(Pool):
    """Hold up to `pool_size` connections, and hand out only those that are alive.

    Who asks for a connection never makes it: that is done by a task of the pool, which nobody
    cancels, so clients that leave do not keep it cold. A connection that lay idle for longer than
    `ping_after`, is older than `recycle`, or was invalidated is looked after in the same way before
    it is handed out. Who waits does so in a `Line`.
    """

    def __init__(
        self,
        creator: Any,
        pool_size: int,
        timeout: float,
        queue_target: float,
        ping_after: float,
        **options: Any,
    ) -> None:
        """Take the times in seconds, and what every pool of SQLAlchemy takes."""
        super().__init__(creator, **options)
        self.is_retired = False
        self._size = pool_size
        self._timeout = timeout
        self._queue_target = queue_target
        self._ping_after = ping_after
        self._idle: list[tuple[ConnectionPoolEntry, float]] = []  # since when
        self._in_use: dict[ConnectionPoolEntry, float] = {}  # since when
        self._reserved: ConnectionPoolEntry | None = None
        self._connections = 0  # those that are being made count, too
        self._making: set[asyncio.Task[None]] = set()
        self._line: Line[ConnectionPoolEntry] = Line(
            pool_size, longest=timeout, target=queue_target, left_over=self._take_back
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    def warm(self) -> None:
        """Begin to make all connections that there may be."""
        self._attend_loop()
        while self._connections < self._size:
            self._make()

    @property
    def is_ready(self) -> bool:
        """Say whether a connection lies ready, that is handed out at once."""
        if not self._idle:
            return False
        record, since = self._idle[-1]
        return time.monotonic() - since <= self._ping_after and not self._is_stale(record)

    async def reserve(self) -> bool:
        """Wait until a connection is there, and keep it for who asks next: at once, the caller.

        So it is waited for without a greenlet. Says whether it needs none either to be taken: one
        that has grown too old meanwhile is made anew. Raises sqlalchemy.exc.TimeoutError as the
        pool does.
        """
        if self.is_ready:
            return True
        self._reserved = await self._next()
        return not self._is_stale(self._reserved)

    def size(self) -> int:
        """Return how many connections there may be."""
        return self._size

    def checkedin(self) -> int:
        """Return how many connections lie idle."""
        return len(self._idle)

    def checkedout(self) -> int:
        """Return how many connections are in use."""
        return len(self._in_use)

    def overflow(self) -> int:
        """Return how many connections there are above the size: none, ever."""
        return 0

    def timeout(self) -> float:
        """Return how long a request waits for a connection at most, in seconds."""
        return self._timeout

    def status(self) -> str:
        """Return what the pool is doing, for people."""
        return (
            f"Pool size: {self._size}  Connections in pool: {self.checkedin()} "
            f"Current Checked out connections: {self.checkedout()} Waiting: {len(self._line)}"
        )

    def recreate(self) -> Self:
        """Return an empty pool that is like this one."""
        pool = type(self)(
            self._creator,
            self._size,
            self._timeout,
            self._queue_target,
            self._ping_after,
            pre_ping=self._pre_ping,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )
        pool.is_retired = self.is_retired
        return pool

    def dispose(self) -> None:
        """Close the connections that lie idle, and stop making any."""
        for making in self._making:
            making.cancel()
        if self._making:
            await_only(asyncio.wait(self._making))
        while self._idle:
            self._connections -= 1
            self._idle.pop()[0].close()

    def _do_get(self) -> ConnectionPoolEntry:
        if self._reserved is not None:
            record, self._reserved = self._reserved, None
        elif self.is_ready:
            record, _ = self._idle.pop()
        else:
            record = await_only(self._next())
        self._in_use[record] = time.monotonic()
        return record

    async def _next(self) -> ConnectionPoolEntry:
        self._attend_loop()
        if self._idle:
            self._make(self._idle.pop()[0])
        elif self._connections < self._size:
            self._make()
        try:
            return await self._line.wait()
        except RefusedError:
            msg = (
                f"All {self._size} connections of the pool are in use, and {len(self._line)} "
                "others wait for one. Try again later; if that is often so, make transactions "
                "shorter, or the pool larger."
            )
            raise PoolTimeoutError(msg) from None

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._line.note_use(time.monotonic() - self._in_use.pop(record))
        if record.dbapi_connection is None:
            self._drop()
        elif self.is_retired or not is_quiet(record.dbapi_connection):
            # A session that ended while a task of its user still ran a statement leaves a
            # transaction open, in which the next one to use the connection would be stuck.
            try:
                record.invalidate()
            finally:
                self._drop()
        else:
            self._take_back(record)

    def _take_back(self, record: ConnectionPoolEntry) -> None:
        if len(self._line) and self._is_stale(record):
            self._make(record)
        else:
            self._offer(record)

    def _offer(self, record: ConnectionPoolEntry) -> None:
        if not self._line.give(record):
            self._idle.append((record, time.monotonic()))

    def _drop(self) -> None:
        self._connections -= 1
        if len(self._line) > len(self._making):
            self._make()

    def _is_stale(self, record: Any) -> bool:
        made: float = record.last_connect_time
        return self._invalidate_time > made or -1 < self._recycle < time.time() - made

    def _attend_loop(self) -> None:
        # Pools of tests outlive event loops; who waited in one that has ended is gone with it.
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._loop = loop
            self._line.clear()
            self._making.clear()

    def _make(self, record: Any = None) -> None:
        if record is None:
            self._connections += 1
        making = asyncio.ensure_future(self._make_ready(record))
        self._making.add(making)
        making.add_done_callback(self._note_end)

    def _note_end(self, making: "asyncio.Task[None]") -> None:
        self._making.discard(making)
        if making.cancelled():
            self._connections -= 1

    async def _make_ready(self, record: Any) -> None:
        try:
            if record is not None and not self._is_stale(record):
                await self._check(record)
            ready = await greenlet_spawn(self._connect, record)
        except Exception as error:  # noqa: BLE001  (it is that of who waits)
            self._connections -= 1
            if not self._line.fail(error):
                logger.warning("A connection could not be made in advance: %s", error)
            if len(self._line) >= len(self._making):  # this one counts itself
                self._make()
        else:
            self._offer(ready)

    async def _check(self, record: Any) -> None:
        dialect: Any = self._dialect
        connection: Any = record.dbapi_connection
        try:
            async with asyncio.timeout(_PING):
                await greenlet_spawn(dialect.do_ping, connection)
        except (dialect.loaded_dbapi.Error, OSError) as error:
            # One stale connection says that the server was away: none of the pool is trusted.
            self._invalidate_time = time.time()
            hang_up(connection.driver_connection)
            await greenlet_spawn(record.invalidate, error)

    def _connect(self, record: Any) -> ConnectionPoolEntry:
        if record is None:
            return self._create_connection()
        record.get_connection()  # it connects where that is needed
        ready: ConnectionPoolEntry = record
        return ready


async def retire(engine: AsyncEngine) -> None:
    """Close the pool; a connection that is in use is closed on its return."""
    pool: Any = engine.pool
    pool.is_retired = True
    await engine.dispose()


_PING = 2.0  # seconds
