"""Litestar with the plugin, the repository and the service of advanced-alchemy, as documented."""

import os
from collections.abc import AsyncGenerator
from uuid import UUID, uuid4

from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
    base,
    repository,
    service,
)
from litestar import Litestar, get, post
from litestar.di import Provide
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column


class User(base.DefaultBase):
    """A user."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    email: Mapped[str]
    full_name: Mapped[str]


class UserCreate(Struct):
    """Hold what a new user is made of."""

    email: str
    full_name: str


class UserView(UserCreate):
    """Show a user."""

    id: UUID


class UserService(service.SQLAlchemyAsyncRepositoryService[User]):
    """Read and write users."""

    class Repository(repository.SQLAlchemyAsyncRepository[User]):
        """Read and write rows."""

        model_type = User

    repository_type = Repository


async def provide_users(db_session: AsyncSession) -> AsyncGenerator[UserService]:
    """Give the service on the request's session."""
    async with UserService.new(session=db_session) as users:
        yield users


@get("/api/user/get-user")
async def get_user(id: UUID, users: UserService) -> UserView:
    """Return a user."""
    return users.to_schema(await users.get(id), schema_type=UserView)


@get("/api/user/get-users")
async def get_users(users: UserService) -> list[UserView]:
    """Return all users."""
    return list(users.to_schema(await users.list(), schema_type=UserView).items)


@post("/api/user/create-user")
async def create_user(data: UserCreate, users: UserService) -> UserView:
    """Create a user."""
    return users.to_schema(await users.create(data), schema_type=UserView)


alchemy = SQLAlchemyAsyncConfig(
    connection_string=os.environ["DATABASE_DSN"].replace("postgresql://", "postgresql+asyncpg://"),
    engine_config=EngineConfig(pool_size=10, max_overflow=0),
    session_config=AsyncSessionConfig(expire_on_commit=False),
    before_send_handler="autocommit",
)
app = Litestar(
    route_handlers=[get_user, get_users, create_user],
    dependencies={"users": Provide(provide_users)},
    plugins=[SQLAlchemyPlugin(config=alchemy)],
)
