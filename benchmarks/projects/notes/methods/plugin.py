"""Stillroom: nothing but the application's sessions; the isolation is the plugin's."""

import pytest
from models import Session
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


@pytest.fixture
def sessions() -> async_sessionmaker[AsyncSession]:
    """Give the application's sessions."""
    return Session
