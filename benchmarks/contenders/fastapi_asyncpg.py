"""FastAPI on a pool of asyncpg, with models of what comes and what goes.

A list goes out as a finished response, which FastAPI documents for speed: it validates no row.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, EmailStr

GET = "SELECT id, email, full_name FROM users WHERE id = $1"
LIST = "SELECT id, email, full_name FROM users ORDER BY id"
CREATE = (
    "INSERT INTO users (id, email, full_name) VALUES ($1, $2, $3) RETURNING id, email, full_name"
)


class UserCreate(BaseModel):
    """Hold what a new user is made of."""

    email: EmailStr
    full_name: str


class User(BaseModel):
    """Show a user, whose address was looked at when it came."""

    id: UUID
    email: str
    full_name: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Keep the pool as long as the application lives."""
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_DSN"], min_size=10, max_size=10)
    yield
    await app.state.pool.close()


app = FastAPI(lifespan=lifespan)


@app.get("/api/user/get-user", response_model=User)
async def get_user(id: UUID, request: Request) -> Any:
    """Return a user."""
    row = await request.app.state.pool.fetchrow(GET, id)
    if row is None:
        raise HTTPException(404)
    return dict(row)


@app.get("/api/user/get-users", response_model=list[User])
async def get_users(request: Request) -> Response:
    """Return all users."""
    rows = [dict(row) for row in await request.app.state.pool.fetch(LIST)]
    return Response(orjson.dumps(rows, default=str), media_type="application/json")


@app.post("/api/user/create-user", response_model=User)
async def create_user(user: UserCreate, request: Request) -> Any:
    """Create a user."""
    row = await request.app.state.pool.fetchrow(CREATE, uuid4(), user.email, user.full_name)
    return dict(row)
