"""The users, and the application around them."""

from typing import Annotated
from uuid import uuid4

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import String, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from accounts.database import Base, get_db


class User(Base):
    """A user with an e-mail address that nobody else has."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String, primary_key=True, default=lambda: uuid4().hex)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    full_name: Mapped[str] = mapped_column(String(200))


class UserIn(BaseModel):
    """What a user is made of."""

    email: str
    full_name: str


class UserOut(UserIn):
    """What is shown of a user."""

    model_config = ConfigDict(from_attributes=True)

    id: str


Database = Annotated[AsyncSession, Depends(get_db)]

app = FastAPI()


@app.get("/health")
async def health() -> str:
    """Answer without a database."""
    return "well"


@app.get("/api/user/get-user", response_model=UserOut)
async def get_user(id: str, db: Database) -> User:
    """Return one user."""
    if (user := await db.get(User, id)) is None:
        raise HTTPException(404)
    return user


@app.get("/api/user/get-users", response_model=list[UserOut])
async def get_users(db: Database) -> list[User]:
    """Return all users."""
    return list(await db.scalars(select(User)))


@app.post("/api/user/create-user", response_model=UserOut)
async def create_user(user: UserIn, db: Database) -> User:
    """Create a user."""
    created = User(**user.model_dump())
    db.add(created)
    await db.commit()
    return created
