"""One small application in each of the patterns that tutorials and templates recommend."""

from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from models import Base, Event, User, engine, new_session, sign_up
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from stillroom.fastapi import SessionDependency, UnitOfWorkRoute, install, lifespan
from stillroom.manager import DatabaseSessionManager

GetSession = Callable[..., AsyncIterator[AsyncSession] | Awaitable[AsyncSession]]
Make = Callable[[AsyncSession, str], Awaitable[User]]


def add_routes(
    app: FastAPI,
    get_session: GetSession,
    make: Make = sign_up,
    *,
    function_scope: bool = False,
    route_class: type[UnitOfWorkRoute] | None = None,
) -> FastAPI:
    """Put the same three routes on each application."""
    router = APIRouter(**({"route_class": route_class} if route_class else {}))
    depends = Depends(get_session, scope="function") if function_scope else Depends(get_session)

    @router.post("/users/{email}", status_code=201)
    async def add(email: str, session: AsyncSession = depends) -> int:
        return (await make(session, email)).id

    @router.post("/refused/{email}")
    async def refuse(email: str, session: AsyncSession = depends) -> None:
        await make(session, email)
        raise HTTPException(403, "You may not sign up.")

    @router.get("/users")
    async def get_all(session: AsyncSession = depends) -> list[str]:
        return list(await session.scalars(select(User.email).order_by(User.id)))

    app.include_router(router)
    return app


async def commit_in_teardown() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise


def teardown() -> FastAPI:
    return add_routes(FastAPI(), commit_in_teardown)


def function_scope() -> FastAPI:
    return add_routes(FastAPI(), commit_in_teardown, function_scope=True)


async def give_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


new_expiring_session = async_sessionmaker(engine)


async def give_expiring_session() -> AsyncIterator[AsyncSession]:
    async with new_expiring_session() as session:
        yield session


async def commit_and_refresh(session: AsyncSession, email: str) -> User:
    user = await sign_up(session, email)
    await session.commit()
    await session.refresh(user)
    return user


def in_the_view() -> FastAPI:
    return add_routes(FastAPI(), give_expiring_session, commit_and_refresh)


async def create(session: AsyncSession, row: User | Event) -> None:
    session.add(row)
    await session.commit()


async def create_both(session: AsyncSession, email: str) -> User:
    user = User(email=email)
    await create(session, user)
    await create(session, Event(user_id=user.id, what="signed up"))
    return user


def in_the_model() -> FastAPI:
    return add_routes(FastAPI(), give_session, create_both)


async def session_of_request(request: Request) -> AsyncSession:
    session: AsyncSession = request.state.session
    return session


def middleware() -> FastAPI:
    app = add_routes(FastAPI(), session_of_request)

    @app.middleware("http")
    async def open_session(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        async with new_session() as session:
            request.state.session = session
            response = await call_next(request)
            await session.commit()
            return response

    return app


sessionmanager = DatabaseSessionManager(Base.metadata)
get_db = SessionDependency(sessionmanager)


def stillroom() -> FastAPI:
    app = FastAPI(lifespan=lifespan(sessionmanager, lambda: "postgresql://database.invalid/app"))
    install(app, sessionmanager)
    return add_routes(app, get_db, route_class=UnitOfWorkRoute)
