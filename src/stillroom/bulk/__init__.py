"""Many rows of a model at once, and rows that may be there already."""

from stillroom.bulk.copying import create_many
from stillroom.bulk.rows import Row, Rows
from stillroom.bulk.upserting import On, upsert, upsert_many

__all__ = ["On", "Row", "Rows", "create_many", "upsert", "upsert_many"]
