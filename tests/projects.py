"""Whole projects that are tested with the plugin, each in a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SETTINGS = """
[pytest]
stillroom = true
stillroom_metadata = models:Base.metadata
stillroom_app = {app}
stillroom_manager = {manager}
asyncio_mode = {mode}
filterwarnings = error
"""

MODELS = """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)


# It leads nowhere: a connection to what the URL names would be an error.
engine = create_async_engine("postgresql+asyncpg://production:secret@database.invalid/production")
Session = async_sessionmaker(engine, expire_on_commit=False)
"""

APPLICATION = """
from fastapi import Depends, FastAPI
from models import Session, User
from sqlalchemy import select

app = FastAPI()


async def get_session():
    async with Session() as session:
        yield session


@app.post("/users/{email}")
async def add(email: str, session=Depends(get_session)):
    user = User(email=email)
    session.add(user)
    await session.commit()
    return user.id


@app.get("/users")
async def get_all(session=Depends(get_session)):
    return list(await session.scalars(select(User.email).order_by(User.id)))
"""

SERVICE = """
from fastapi import APIRouter, Depends, FastAPI
from models import Base, User
from sqlalchemy import select
from stillroom.fastapi import SessionDependency, UnitOfWorkRoute, install, lifespan
from stillroom.manager import DatabaseSessionManager

sessionmanager = DatabaseSessionManager(Base.metadata)
get_db = SessionDependency(sessionmanager)
router = APIRouter(route_class=UnitOfWorkRoute)


@router.post("/users/{email}")
async def add(email: str, db=Depends(get_db)):
    db.add(user := User(email=email))
    await db.flush()
    return user.id


@router.get("/users")
async def get_all(db=Depends(get_db)):
    return list(await db.scalars(select(User.email).order_by(User.id)))


def init_app():
    url = "postgresql://production:secret@database.invalid/production"
    server = FastAPI(lifespan=lifespan(sessionmanager, lambda: url))
    install(server, sessionmanager)
    server.include_router(router)
    server.state.made = True
    return server
"""
"""An application on the library, made by a factory."""


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest has said."""

    counts: str
    """The last line, without the time: 2 failed, 1 passed."""
    output: str
    code: int


@dataclass(frozen=True)
class Project:
    """A folder with models, an application, and settings that make the plugin active."""

    folder: Path
    cache: Path
    """Where the plugin keeps what the next run may use."""

    def write(self, **files: str) -> None:
        """Write files, each under its name and .py; two underscores stand for a slash."""
        for name, text in files.items():
            path = self.folder / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def set(
        self,
        mode: str = "strict",
        more: str = "",
        *,
        app: str = "application:app",
        manager: str = "",
    ) -> None:
        """Write the settings of pytest."""
        settings = SETTINGS.format(mode=mode, app=app, manager=manager)
        (self.folder / "pytest.ini").write_text(settings + more)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of pytest; tests run in their order unless it says otherwise."""
        left_out = ["-p", "no:randomly"]
        if not any("hypothesis" in it.read_text() for it in self.folder.rglob("*.py")):
            # For its part in the report it imports all of Hypothesis, in some hundred runs.
            left_out += ["-p", "no:hypothesispytest"]
        return [sys.executable, "-m", "pytest", "-q", *left_out, *arguments]

    def environ(self, **variables: str) -> dict[str, str]:
        """Return the environment of a run: nothing of pytest or of a database is inherited."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "DB_", "PG", "STILLROOM_TEST_", "PYTHONDONT"))
        }
        return {**kept, "XDG_CACHE_HOME": str(self.cache), **variables}

    def run(self, *arguments: str, **variables: str) -> Outcome:
        """Run pytest to its end."""
        answer = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environ(**variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        last = (answer.stdout.strip().splitlines() or [""])[-1]
        counts = last.strip("= ").partition(" in ")[0]
        return Outcome(counts, answer.stdout + answer.stderr, answer.returncode)
