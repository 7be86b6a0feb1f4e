"""The database: the base of the models, the sessions, and the session of a request."""

from sqlalchemy.orm import DeclarativeBase
from stillroom.fastapi import SessionDependency
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model


class Base(Model, DeclarativeBase):
    """The base of every model."""


sessionmanager = DatabaseSessionManager(Base.metadata)

get_db = SessionDependency(sessionmanager)
"""Hand out the session of the request: ``db: AsyncSession = Depends(get_db)``."""
