"""The users over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Response
from pydantic import BaseModel, ConfigDict, EmailStr, Field, StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession
from stillroom.fastapi import InsertResponse, JSONArrayResponse, UnitOfWorkRoute
from stillroom.json import JSONInsert, JSONRow, JSONSelect

from app.database import get_db, sessionmanager
from app.models import User as UserModel

router = APIRouter(prefix="/user", tags=["user"], route_class=UnitOfWorkRoute)

# No control character (\p{Cc}): PostgreSQL cannot store NUL, others spoil a log or a terminal. And
# something that is seen: a letter, a number, a mark of punctuation or a symbol.
Name = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        min_length=1,
        max_length=200,
        pattern=r"^\P{Cc}*[\p{L}\p{N}\p{P}\p{S}]\P{Cc}*$",
    ),
    Field(examples=["Ada Lovelace"]),
]


class UserSchemaCreate(BaseModel):
    """Hold what a new user is made of."""

    model_config = ConfigDict(extra="forbid")

    email: EmailStr
    full_name: Name


class UserSchema(BaseModel):
    """Show a user."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str
    full_name: str


NEW_USER = JSONInsert(UserModel, UserSchema)
ONE_USER = JSONRow(UserModel, UserSchema)
EVERY_USER = JSONSelect(UserModel.every_row(), UserSchema)


@router.get(
    "/get-user", response_model=UserSchema, responses={404: {"description": "No such user"}}
)
async def get_user(id: str, db: AsyncSession = Depends(get_db)) -> Response:
    """Return the user with this id, which may be written with or without dashes."""
    user = await ONE_USER.get(db, id)
    if user is None:
        raise HTTPException(404, "There is no user with this id.")
    return Response(user, media_type="application/json")


@router.get("/get-users", response_model=list[UserSchema])
async def get_users() -> JSONArrayResponse:
    """Return all users, the oldest first; a long list is streamed."""
    return JSONArrayResponse(sessionmanager, EVERY_USER.in_parts)


@router.post("/create-user", response_model=UserSchema)
async def create_user(user: UserSchemaCreate, db: AsyncSession = Depends(get_db)) -> InsertResponse:
    """Create a user; an e-mail address belongs to one user, however it is capitalised."""
    return InsertResponse(NEW_USER, db, user.model_dump())
