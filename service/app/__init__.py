"""The users service."""

from fastapi import FastAPI
from stillroom.engine import EngineSettings
from stillroom.fastapi import Idempotency, health, install, lifespan
from stillroom.fastapi.docs import serve_docs

from app.config import config
from app.database import sessionmanager
from app.models import IDEMPOTENCY_KEYS
from app.views.user import router as user_router

__all__ = ["init_app"]

MAX_BODY_SIZE = 64 * 1024
"""The largest request body, in bytes."""


def init_app(init_db: bool = True) -> FastAPI:
    """Make the application; its lifespan opens and closes the database.

    With `init_db=False` that is left to the caller, who calls `sessionmanager.init(url)`.
    """
    settings = EngineSettings(pgbouncer=config.DB_PGBOUNCER)
    opened = lifespan(sessionmanager, lambda: config.DB_CONFIG, settings=settings)
    server = FastAPI(
        title="larder",
        lifespan=opened if init_db else None,
        docs_url=None,
        redoc_url=None,
    )
    install(
        server,
        sessionmanager,
        max_body_size=MAX_BODY_SIZE,
        idempotency=Idempotency(IDEMPOTENCY_KEYS),
    )
    serve_docs(server)
    server.include_router(user_router, prefix="/api")
    server.include_router(health(sessionmanager))
    return server
