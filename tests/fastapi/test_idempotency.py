"""A request with an Idempotency-Key may be sent twice, and is done once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx2
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel
from sqlalchemy import String, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.errors import ConfigurationError
from stillroom.fastapi import (
    Idempotency,
    InsertResponse,
    SessionDependency,
    UnitOfWorkRoute,
    install,
    unit_of_work,
)
from stillroom.idempotency import IdempotencyKeys
from stillroom.json import JSONInsert
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model


class Base(Model, DeclarativeBase):
    """The base of these tests."""


class Note(Base):
    """A row whose text is unique."""

    __tablename__ = "notes"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    text: Mapped[str] = mapped_column(String(40), unique=True)


class NoteSchema(BaseModel):
    """Show a note."""

    model_config = {"from_attributes": True}

    id: UUID
    text: str


KEYS = IdempotencyKeys(Base.metadata)
NEW_NOTE = JSONInsert(Note, NoteSchema)
manager = DatabaseSessionManager(Base.metadata)
get_db = SessionDependency(manager)


router = APIRouter(route_class=UnitOfWorkRoute)


class Gate:
    """Hold a view until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()


gates: list[Gate] = []


def user(request: Request) -> str:
    """Say who the user is."""
    return request.headers.get("x-user", "")


def refuse(request: Request) -> None:
    """Let nobody in who has no password."""
    if "x-password" not in request.headers:
        raise HTTPException(401)


@router.post("/model", response_model=NoteSchema, status_code=201)
async def model(request: Request, response: Response, db: AsyncSession = Depends(get_db)) -> Note:
    """Return the row itself, with headers."""
    response.headers["X-Kept"] = "this"
    response.headers["X-Other"] = "not this"
    return await Note.create(db, text=request.query_params["text"])


@router.post("/response")
async def response(text: str, status: int = 200, db: AsyncSession = Depends(get_db)) -> Response:
    """Return a finished response of any status."""
    await Note.create(db, text=text)
    return JSONResponse({"text": text}, status)


@router.post("/inserted", response_model=NoteSchema)
async def inserted(text: str, db: AsyncSession = Depends(get_db)) -> InsertResponse:
    """Return the row that is inserted when the work commits."""
    return InsertResponse(NEW_NOTE, db, {"text": text})


@router.post("/redirect")
async def redirect(text: str, db: AsyncSession = Depends(get_db)) -> Response:
    """Send the client elsewhere."""
    await Note.create(db, text=text)
    return RedirectResponse(f"/notes?text={text}", 303)


@router.post("/raised-redirect")
async def raised_redirect(text: str, db: AsyncSession = Depends(get_db)) -> None:
    """Do so by an exception."""
    await Note.create(db, text=text)
    raise HTTPException(303, headers={"Location": f"/notes?text={text}"})


@router.post("/raw")
async def raw(request: Request, db: AsyncSession = Depends(get_db)) -> str:
    """Read the body by itself."""
    body = b"".join([part async for part in request.stream()])
    return (await Note.create(db, text=body.decode())).text


@router.post("/body")
async def body(text: Annotated[str, Body(embed=True)], db: AsyncSession = Depends(get_db)) -> str:
    """Take a body of JSON."""
    return (await Note.create(db, text=text)).text


@router.post("/thread")
def thread(text: str) -> str:
    """Run in a thread, and write nothing."""
    return f"{text} {uuid4()}"


@router.delete("/note", status_code=204)
async def delete(text: str, db: AsyncSession = Depends(get_db)) -> None:
    """Answer nothing."""
    await Note.create(db, text=text)


@router.post("/stream")
async def stream(text: str, db: AsyncSession = Depends(get_db)) -> StreamingResponse:
    """Return a stream."""
    await Note.create(db, text=text)
    return StreamingResponse(iter([b"parts"]))


@router.post("/generator")
async def generator(db: AsyncSession = Depends(get_db)) -> AsyncIterator[int]:
    """Be one."""
    yield 1


@router.post("/slow")
async def slow(text: str, db: AsyncSession = Depends(get_db)) -> str:
    """Stay under way until the test has seen it."""
    note = await Note.create(db, text=text)
    gates[-1].reached.set()
    await gates[-1].opened.wait()
    return note.text


@router.post("/requires")
@unit_of_work(requires_key=True)
async def requires(text: str, db: AsyncSession = Depends(get_db)) -> str:
    """Take no request without a key."""
    return (await Note.create(db, text=text)).text


@router.post("/only-reads")
@unit_of_work(read_only=True)
async def only_reads(db: AsyncSession = Depends(get_db)) -> str:
    """Read."""
    return str(uuid4())


@router.post("/guarded", dependencies=[Depends(refuse)])
async def guarded(db: AsyncSession = Depends(get_db)) -> str:
    """Let in who has a password."""
    return str(uuid4())


@router.get("/random")
async def random() -> str:
    """Answer something else each time."""
    return str(uuid4())


@pytest.fixture
def gate() -> Gate:
    """Give the gate of the test."""
    gates.append(Gate())
    return gates[-1]


@pytest.fixture
async def app(driver_url: str) -> AsyncIterator[FastAPI]:
    """Give an application with views of every shape, its manager open and its tables made."""
    app = FastAPI()
    install(app, manager, idempotency=Idempotency(KEYS, scope=user, headers=["X-Kept"]))
    app.include_router(router)
    manager.init(driver_url)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    yield app
    await manager.close()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client that talks to the application in process."""
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def key(value: str = '"one"', **headers: str) -> dict[str, str]:
    """Return the headers of a request with a key."""
    return {"Idempotency-Key": value, **headers}


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/model", {"params": {"text": "a"}}),
    ("/response", {"params": {"text": "a"}}),
    ("/response", {"params": {"text": "a", "status": 202}}),
    ("/inserted", {"params": {"text": "a"}}),
    ("/redirect", {"params": {"text": "a"}}),
    ("/raised-redirect", {"params": {"text": "a"}}),
    ("/raw", {"content": b"a"}),
    ("/body", {"json": {"text": "a"}}),
    ("/thread", {"params": {"text": "a"}}),
]


@pytest.mark.parametrize(("path", "request_"), REQUESTS)
async def test_the_second_of_two_gets_the_first_answer(
    client: httpx2.AsyncClient, path: str, request_: dict[str, Any]
) -> None:
    """Status, chosen headers and body are those of the first, from a view of any shape."""
    first = await client.post(path, headers=key(), **request_)
    second = await client.post(path, headers=key(), **request_)

    assert first.status_code < 400
    assert (second.status_code, second.content) == (first.status_code, first.content)
    for name in ("content-type", "content-length", "location", "x-kept"):
        assert second.headers.get(name) == first.headers.get(name)
    assert "x-other" not in second.headers
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert await count() == (0 if path == "/thread" else 1)


async def test_an_answer_without_a_body_is_kept_too(client: httpx2.AsyncClient) -> None:
    """A 204 stays one; DELETE is an unsafe method like POST."""
    answers = [await client.delete("/note", params={"text": "a"}, headers=key()) for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 2
    assert await count() == 1


async def test_a_request_without_a_key_is_done_each_time(client: httpx2.AsyncClient) -> None:
    """Nothing is kept of it."""
    answers = [await client.post("/model", params={"text": "a"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 409]
    assert await count(KEYS.table) == 0


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/response", {"params": {"text": "b"}}),
        ("/body", {"json": {"text": "a"}}),
        ("/body", {"json": {"text": "b"}}),
        ("/inserted", {"params": {"text": "a"}}),
    ],
)
async def test_a_key_of_another_request_is_refused(
    client: httpx2.AsyncClient, path: str, request_: dict[str, Any]
) -> None:
    """Another body, another query, another route: 422, and nothing is done."""
    await client.post("/response", params={"text": "a"}, headers=key())
    if path == "/body":
        await client.post("/body", json={"text": "c"}, headers=key('"body"'))
    answer = await client.post(
        path, headers=key('"body"' if path == "/body" else '"one"'), **request_
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert await count() == (2 if path == "/body" else 1)


async def test_the_twin_of_a_request_under_way_is_told_to_come_back(
    client: httpx2.AsyncClient, gate: Gate
) -> None:
    """409 with Retry-After at once, no connection waits; the first ends as if it were alone."""
    first = asyncio.create_task(client.post("/slow", params={"text": "a"}, headers=key()))
    await gate.reached.wait()

    twins = [
        await client.post("/slow", params={"text": "a"}, headers=key(), timeout=5) for _ in range(4)
    ]
    gate.opened.set()

    assert {(it.status_code, it.headers["retry-after"]) for it in twins} == {(409, "1")}
    assert twins[0].json()["code"] == "idempotency_key_in_use"
    assert (await first).status_code == 200
    again = await client.post("/slow", params={"text": "a"}, headers=key())
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")


async def test_many_at_once_are_done_once(client: httpx2.AsyncClient) -> None:
    """However many race, one is done, the others get its answer or are told to come back."""
    answers = await asyncio.gather(
        *(client.post("/model", params={"text": "a"}, headers=key()) for _ in range(30))
    )

    statuses = {answer.status_code for answer in answers}
    assert statuses <= {201, 409}
    assert {it.json()["code"] for it in answers if it.status_code == 409} <= {
        "idempotency_key_in_use"
    }
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert await count() == 1


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_an_answer_that_was_not_committed_is_not_kept(
    client: httpx2.AsyncClient, status: int
) -> None:
    """An error may be corrected: the same key is free for the next try."""
    refused = await client.post("/response", params={"text": "a", "status": status}, headers=key())
    assert (refused.status_code, await count(KEYS.table)) == (status, 0)

    answer = await client.post("/response", params={"text": "a"}, headers=key())

    assert (answer.status_code, await count(KEYS.table)) == (200, 1)


async def test_an_insert_that_is_refused_keeps_nothing(client: httpx2.AsyncClient) -> None:
    """A duplicate is a 409 of its own, also where an InsertResponse finds it at the end."""
    await client.post("/inserted", params={"text": "a"}, headers=key())
    refused = await client.post("/inserted", params={"text": "a"}, headers=key('"two"'))

    assert (refused.status_code, refused.json()["code"]) == (409, "already_exists")
    assert await count(KEYS.table) == 1


@pytest.mark.parametrize("path", ["/model", "/inserted", "/raised-redirect"])
async def test_the_work_is_not_there_without_its_key(client: httpx2.AsyncClient, path: str) -> None:
    """They are one transaction: when the answer cannot be kept nothing was done."""
    async with manager.connect() as connection:
        check = "ALTER TABLE idempotency_keys ADD CONSTRAINT never CHECK (false)"
        await connection.execute(text(check))
    answer = await client.post(path, params={"text": "a"}, headers=key())

    assert (answer.status_code, await count()) == (422, 0)


async def test_what_is_sent_again_is_not_kept_again(client: httpx2.AsyncClient) -> None:
    """The time runs from the first answer on, and a replay writes nothing."""
    await client.post("/model", params={"text": "a"}, headers=key())
    async with manager.session() as session:
        kept = (await session.execute(select(KEYS.table))).one()
    await client.post("/model", params={"text": "a"}, headers=key())
    async with manager.session() as session:
        assert (await session.execute(select(KEYS.table))).one() == kept


@pytest.mark.parametrize("path", ["/stream", "/generator"])
async def test_a_stream_refuses_a_key(client: httpx2.AsyncClient, path: str) -> None:
    """It cannot be kept, so nothing is done; without a key it streams."""
    refused = await client.post(path, params={"text": "a"}, headers=key())

    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency_key_not_supported")
    assert await count() == 0
    assert (await client.post(path, params={"text": "a"})).status_code == 200


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('"8e03978e-40d5-43e8-bc93-6894a57f9324"', "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        (r'"a \"quoted\" \\ key"', r'  "a \"quoted\" \\ key" '),
        ('"' + "k" * 255 + '"', "k" * 255),
    ],
)
async def test_a_key_is_a_string_quoted_or_not(
    client: httpx2.AsyncClient, one: str, other: str
) -> None:
    """A String of structured fields, and the same without quotes: it is one key."""
    await client.post("/model", params={"text": "a"}, headers=key(one))
    second = await client.post("/model", params={"text": "a"}, headers=key(other))

    assert second.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    "bad",
    ["", '""', '"open', "two words", "k" * 256, '"' + "k" * 256 + '"', '"a";b=1', r'"\a"', "ä"],
)
async def test_a_key_that_is_none_is_refused(client: httpx2.AsyncClient, bad: str) -> None:
    """400, and no connection is taken."""
    headers = [(b"Idempotency-Key", bad.encode())]
    answer = await client.post("/model", params={"text": "a"}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_malformed")
    assert await count() == 0


async def test_two_keys_are_none(client: httpx2.AsyncClient) -> None:
    """A request has one key."""
    headers = [("Idempotency-Key", '"a"'), ("Idempotency-Key", '"a"')]
    answer = await client.post("/model", params={"text": "a"}, headers=headers)

    assert answer.json()["code"] == "idempotency_key_malformed"


async def test_a_route_may_require_a_key(client: httpx2.AsyncClient) -> None:
    """Where it does, a request without one is a 400."""
    refused = await client.post("/requires", params={"text": "a"})
    answer = await client.post("/requires", params={"text": "a"}, headers=key())

    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency_key_missing")
    assert answer.status_code == 200
    with pytest.raises(ConfigurationError, match="can keep no answer"):
        unit_of_work(read_only=True, requires_key=True)


@pytest.mark.parametrize(("method", "path"), [("GET", "/random"), ("POST", "/only-reads")])
async def test_what_only_reads_has_no_use_for_a_key(
    client: httpx2.AsyncClient, method: str, path: str
) -> None:
    """It may be done again at any time: its key is passed over."""
    answers = [await client.request(method, path, headers=key()) for _ in range(2)]

    assert answers[0].content != answers[1].content


async def test_who_may_not_ask_is_not_shown_what_was_answered(client: httpx2.AsyncClient) -> None:
    """The key is looked up after the dependencies: it is no password."""
    await client.post("/guarded", headers=key(**{"X-Password": "yes"}))

    assert (await client.post("/guarded", headers=key())).status_code == 401


async def test_the_keys_of_two_scopes_are_two(client: httpx2.AsyncClient) -> None:
    """Whose keys they are says the application."""
    answers = [
        await client.post("/thread", params={"text": "a"}, headers=key(**{"X-User": name}))
        for name in ("ann", "bob", "ann")
    ]

    assert answers[0].content == answers[2].content != answers[1].content


async def test_an_answer_expires_and_is_removed(client: httpx2.AsyncClient) -> None:
    """After its time the key is new; each that is kept removes a few others that are old."""
    for number in range(5):
        await client.post("/thread", params={"text": "a"}, headers=key(f'"{number}"'))
    async with manager.begin() as session:
        past = func.clock_timestamp() - timedelta(seconds=1)
        await session.execute(update(KEYS.table).values(expires_at=past))

    answers = [
        await client.post("/thread", params={"text": "b"}, headers=key(value))
        for value in ('"0"', '"0"', '"5"')
    ]

    assert "idempotency-replayed" not in answers[0].headers
    assert answers[1].headers["idempotency-replayed"] == "true"
    async with manager.session() as session:
        left = (await session.scalars(select(KEYS.table.c.key))).all()
        hours = await session.scalar(
            select(func.min(KEYS.table.c.expires_at - KEYS.table.c.created_at))
        )
    assert sorted(left) == ["0", "5"]
    assert hours == timedelta(hours=24)


async def test_an_application_that_keeps_no_keys_passes_them_over(driver_url: str) -> None:
    """It is a choice of the application, for it needs a table; a route cannot require it alone."""
    app = FastAPI()
    install(app, manager)
    app.router.route_class = UnitOfWorkRoute

    @app.post("/thread")
    async def view() -> str:
        return str(uuid4())

    @app.post("/requires")
    @unit_of_work(requires_key=True)
    async def requires() -> None:
        """Never run."""

    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = [await client.post("/thread", headers=key()) for _ in range(2)]
        refused = await client.post("/requires", headers=key())

    assert answers[0].content != answers[1].content
    assert refused.status_code == 500


async def count(table: Any = Note.__table__) -> int:
    """Count the rows of a table that are committed, and see that no connection is in use."""
    async with manager.session() as session:
        number = await session.scalar(select(func.count()).select_from(table))
        waiting = await session.scalar(
            text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        )
    pool: Any = manager.engine.pool
    assert (waiting, pool.checkedout()) == (0, 0)
    return number or 0
