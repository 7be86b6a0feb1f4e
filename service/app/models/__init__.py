"""The models: one table each."""

from app.models.idempotency_key import IDEMPOTENCY_KEYS
from app.models.user import User

__all__ = ["IDEMPOTENCY_KEYS", "User"]
