"""The keys of requests that may be sent twice, each with its answer."""

from stillroom.idempotency import IdempotencyKeys

from app.database import Base

IDEMPOTENCY_KEYS = IdempotencyKeys(Base.metadata)
