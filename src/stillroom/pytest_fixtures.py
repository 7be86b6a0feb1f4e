"""The fixtures of a project whose settings say `stillroom = true`, by the names that one guesses.

A fixture of the same name in a conftest.py takes the place of one of these; `app` is the one that
most projects want to replace.
"""

import asyncio
import inspect
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from stillroom.errors import ConfigurationError

if TYPE_CHECKING:
    from httpx2 import AsyncClient
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from starlette.testclient import TestClient

    from stillroom.manager import DatabaseSessionManager
    from stillroom.testing.queries import QueryLog


@pytest.fixture(scope="session")
def app(pytestconfig: pytest.Config) -> Any:
    """Give the application that the setting `stillroom_app` names, made once in a run.

    Where the name is that of a function, this is called.
    """
    from stillroom.testing.named import find  # noqa: PLC0415

    if not (name := str(pytestconfig.getini("stillroom_app"))):
        msg = (
            "The fixture app does not know your application. Name it in the settings of pytest, as "
            "in stillroom_app = run:server, or write a fixture of that name in conftest.py"
        )
        raise ConfigurationError(msg)
    found: Any = find("stillroom_app", name, object)
    return found() if inspect.isfunction(found) else found


@pytest.fixture
def client(app: Any) -> "Iterator[TestClient]":
    """Give a client of the application, whose lifespan runs as long as the test."""
    from starlette.testclient import TestClient  # noqa: PLC0415

    with TestClient(app) as client:
        yield client


@pytest.fixture
def async_client(client: "TestClient") -> "AsyncClient":
    """Give an asynchronous client of the same application, for a test in any event loop."""
    from stillroom.testing.client import asynchronous  # noqa: PLC0415

    return asynchronous(client)


@pytest.fixture
def database_url(stillroom_url: str) -> str:
    """Give the URL of the test's database, for asyncpg; see `stillroom_url`."""
    from stillroom.postgres import with_asyncpg  # noqa: PLC0415

    return with_asyncpg(stillroom_url)


@pytest.fixture
def session(_stillroom_engine: "AsyncEngine") -> "Iterator[AsyncSession]":
    """Give a session to arrange data with; what it commits the application sees."""
    from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415

    session = AsyncSession(_stillroom_engine, expire_on_commit=False)
    yield session
    _complete(session.close())


@pytest.fixture
def sessionmanager(
    request: pytest.FixtureRequest, database_url: str
) -> "Iterator[DatabaseSessionManager]":
    """Give the session manager that the setting `stillroom_manager` names, open; or a new one.

    Where the test uses a client too, the application's lifespan opens it.
    """
    if "client" in request.fixturenames:
        request.getfixturevalue("client")
    manager = _manager(request.config)
    if manager.is_open:
        yield manager
        return
    manager.init(database_url)
    yield manager
    _complete(manager.close())


@pytest.fixture
def queries(stillroom_queries: "QueryLog") -> "QueryLog":
    """Give what the test has sent: `with queries.at_most(3): ...` bounds the queries of a block."""
    return stillroom_queries


@pytest.fixture(scope="session")
def _stillroom_engine() -> "Iterator[AsyncEngine]":
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    engine = create_async_engine("postgresql+asyncpg://stillroom/stillroom")
    yield engine
    _complete(engine.dispose())


def _manager(config: pytest.Config) -> "DatabaseSessionManager":
    from stillroom.manager import DatabaseSessionManager  # noqa: PLC0415
    from stillroom.testing.named import find  # noqa: PLC0415

    if name := str(config.getini("stillroom_manager")):
        return find("stillroom_manager", name, DatabaseSessionManager)
    return DatabaseSessionManager()


def _complete(work: Coroutine[Any, Any, None]) -> None:
    """Run what a fixture ends with in a loop of its own: the test's one may be gone."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()
