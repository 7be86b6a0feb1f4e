"""SQLModel in routes that are no coroutines, on psycopg: the way of FastAPI's official template."""

import os
from collections.abc import Generator
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException
from pydantic import EmailStr
from sqlmodel import Field, Session, SQLModel, create_engine, select

# As many threads as FastAPI has are fed by a pool of half as many.
engine = create_engine(
    os.environ["DATABASE_DSN"].replace("postgresql://", "postgresql+psycopg://"),
    pool_size=20,
    max_overflow=0,
)


class UserCreate(SQLModel):
    """Hold what a new user is made of."""

    email: EmailStr
    full_name: str


class User(UserCreate, table=True):
    """A user."""

    __tablename__ = "users"

    id: UUID = Field(default_factory=uuid4, primary_key=True)


class UserPublic(SQLModel):
    """Show a user, whose address was looked at when it came."""

    id: UUID
    email: str
    full_name: str


def get_db() -> Generator[Session]:
    """Give a session."""
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_db)]

app = FastAPI()


@app.get("/api/user/get-user", response_model=UserPublic)
def get_user(id: UUID, session: SessionDep) -> Any:
    """Return a user."""
    user = session.get(User, id)
    if user is None:
        raise HTTPException(404)
    return user


@app.get("/api/user/get-users", response_model=list[UserPublic])
def get_users(session: SessionDep) -> Any:
    """Return all users."""
    return session.exec(select(User)).all()


@app.post("/api/user/create-user", response_model=UserPublic)
def create_user(given: UserCreate, session: SessionDep) -> Any:
    """Create a user."""
    user = User.model_validate(given)
    session.add(user)
    session.commit()
    session.refresh(user)
    return user
