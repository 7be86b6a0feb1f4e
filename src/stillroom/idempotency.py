"""Requests that may be sent twice and are done once: their keys, each with its answer, in a table.

The row of a key is written in the transaction of the work, so it is there when the work is, and
not otherwise. https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    CTE,
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    Select,
    SmallInteger,
    Table,
    Text,
    delete,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.errors import IdempotencyKeyError


@dataclass(frozen=True)
class Answer:
    """Hold what a request was answered, as it is sent again."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Request:
    """Say which request it is: whose, under which key, and what it asks for.

    Two are the same when `content` is, which stands for all that matters to the answer.
    """

    scope: str
    key: str
    route: str
    content: bytes

    @property
    def fingerprint(self) -> bytes:
        """Return the digest of the route and the content."""
        return sha256(self.route.encode() + b"\0" + self.content).digest()

    @property
    def lock(self) -> int:
        """Return the number of its advisory lock."""
        digest = sha256(f"{self.scope}\0{self.key}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


class IdempotencyKeys:
    """Keep the answers to requests with a key: ``KEYS = IdempotencyKeys(Base.metadata)``.

    The table belongs to the metadata, so a migration makes it like any other. An answer is kept for
    as long as `keep` says; whoever keeps another one removes some that are older, so the table
    grows no further than what is kept, and needs no job beside the service.
    """

    def __init__(
        self,
        metadata: MetaData,
        *,
        table: str = "idempotency_keys",
        keep: timedelta = timedelta(hours=24),
    ) -> None:
        """Add the table to the metadata."""
        self.table = Table(
            table,
            metadata,
            Column("scope", Text, primary_key=True),
            Column("key", Text, primary_key=True),
            Column("route", Text, nullable=False),
            Column("fingerprint", LargeBinary, nullable=False),
            Column("status", SmallInteger, nullable=False),
            Column("headers", JSONB, nullable=False),
            Column("body", LargeBinary, nullable=False),
            Column("created_at", _TIME, nullable=False, server_default=func.clock_timestamp()),
            Column("expires_at", _TIME, nullable=False),
        )
        Index(None, self.table.c.expires_at)
        self._keep = keep

    async def claim(self, session: AsyncSession, request: Request) -> Answer | None:
        """Return the answer that the request has had, or None when it is to be done now.

        From then on until the end of the transaction no other request can claim the key. Raises
        IdempotencyKeyError while another one has it, without a wait, and for a key that came with
        another request before.
        """
        # First the lock, then the look, in a statement of its own: its snapshot has to be newer.
        lock = select(func.pg_try_advisory_xact_lock(request.lock))
        if not await session.scalar(lock):
            raise IdempotencyKeyError("in_use", _IN_USE)
        row = (await session.execute(self._find(request))).first()
        if row is None:
            return None
        if row.fingerprint != request.fingerprint:
            raise IdempotencyKeyError("reused", _REUSED)
        headers = [(name, value) for name, value in row.headers]
        return Answer(row.status, headers, row.body)

    async def keep(self, session: AsyncSession, request: Request, answer: Answer) -> None:
        """Keep the answer to a request that was claimed; it is committed with the work."""
        columns = self.table.c
        values = {
            "scope": request.scope,
            "key": request.key,
            "route": request.route,
            "fingerprint": request.fingerprint,
            "status": answer.status,
            "headers": [list(header) for header in answer.headers],
            "body": answer.body,
            "created_at": func.clock_timestamp(),
            "expires_at": func.clock_timestamp() + self._keep,
        }
        changed = {name: value for name, value in values.items() if name not in ("scope", "key")}
        statement = insert(self.table).values(values)
        # What is there already has expired, and nobody has removed it yet.
        statement = statement.on_conflict_do_update(
            index_elements=[columns.scope, columns.key], set_=changed
        )
        await session.execute(statement.add_cte(self._few_expired(request)))

    def _find(self, request: Request) -> Select[bytes, int, Any, bytes]:
        columns = self.table.c
        return select(columns.fingerprint, columns.status, columns.headers, columns.body).where(
            columns.scope == request.scope,
            columns.key == request.key,
            columns.expires_at > func.clock_timestamp(),
        )

    def _few_expired(self, request: Request) -> CTE:
        """Remove a few, and wait for nobody: more than come, so they get fewer."""
        columns = self.table.c
        key = tuple_(columns.scope, columns.key)
        few = (
            select(columns.scope, columns.key)
            .where(columns.expires_at < func.clock_timestamp())
            .where(key != tuple_(request.scope, request.key))
            .order_by(columns.expires_at)
            .limit(_FEW)
            .with_for_update(skip_locked=True)
        )
        return delete(self.table).where(key.in_(few)).cte("expired")


_TIME = DateTime(timezone=True)
_FEW = 2
_IN_USE = (
    "Another request with this Idempotency-Key is under way. Send this one again when that one has "
    "ended."
)
_REUSED = "This Idempotency-Key came with another request before. Make a new key for this one."
