"""FastAPI on async SQLAlchemy 2, with migrations and pytest on a real PostgreSQL.

The public names are loaded when they are first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillroom.engine import EngineSettings as EngineSettings
    from stillroom.errors import StillroomError as StillroomError
    from stillroom.fastapi import SessionDependency as SessionDependency
    from stillroom.fastapi import UnitOfWorkRoute as UnitOfWorkRoute
    from stillroom.fastapi import install as install
    from stillroom.fastapi import lifespan as lifespan
    from stillroom.fastapi import unit_of_work as unit_of_work
    from stillroom.manager import DatabaseSessionManager as DatabaseSessionManager
    from stillroom.model import Model as Model

_MODULES = {
    "DatabaseSessionManager": "stillroom.manager",
    "EngineSettings": "stillroom.engine",
    "Model": "stillroom.model",
    "SessionDependency": "stillroom.fastapi",
    "StillroomError": "stillroom.errors",
    "UnitOfWorkRoute": "stillroom.fastapi",
    "install": "stillroom.fastapi",
    "lifespan": "stillroom.fastapi",
    "unit_of_work": "stillroom.fastapi",
}

__all__ = [
    "DatabaseSessionManager",
    "EngineSettings",
    "Model",
    "SessionDependency",
    "StillroomError",
    "UnitOfWorkRoute",
    "install",
    "lifespan",
    "unit_of_work",
]


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
