"""The three requests, on good input."""

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import init_app
from app.database import sessionmanager
from app.models import User
from tests.conftest import NOWHERE
from tests.integration.conftest import WriteUsers

ADA = {"email": "ada@example.com", "full_name": "Ada Lovelace"}


def test_a_user_who_was_created_is_found_and_listed(client: TestClient) -> None:
    """Nobody is there at first; then one user is, with an id, under that id and in the list."""
    assert client.get("/api/user/get-users").json() == []

    created = client.post("/api/user/create-user", json=ADA)
    assert created.status_code == 200
    user = created.json()
    assert user == {"id": user["id"], **ADA}

    found = client.get("/api/user/get-user", params={"id": user["id"]})
    assert (found.status_code, found.json()) == (200, user)

    listed = client.get("/api/user/get-users")
    assert (listed.status_code, listed.json()) == (200, [user])


@pytest.mark.stillroom(isolation="clone")
def test_psycopg_serves_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is a word in the URL."""
    monkeypatch.setenv("DB_CONFIG", NOWHERE.replace("postgresql://", "postgresql+psycopg://"))
    with TestClient(init_app()) as client:
        user = create(client, "ada@example.com")
        found = client.get("/api/user/get-user", params={"id": user["id"]})
        assert (found.json(), client.get("/api/user/get-users").json()) == (user, [user])


def test_an_id_is_a_uuid_of_version_7_read_with_and_without_dashes(client: TestClient) -> None:
    """RFC 9562: ids are in the order of creation; they are written with dashes."""
    users = [create(client, f"user{number}@example.com") for number in range(20)]
    ids = [user["id"] for user in users]
    assert {UUID(id).version for id in ids} == {7}
    assert ids == [str(UUID(id)) for id in ids] == sorted(ids)
    assert client.get("/api/user/get-users").json() == users

    for form in (ids[0], ids[0].replace("-", ""), ids[0].upper()):
        assert client.get("/api/user/get-user", params={"id": form}).json() == users[0]


@pytest.mark.parametrize(
    "name",
    [
        "Zoë 🧪👩🏽‍🔬",
        "مريم ميرزاخاني",
        "רות א׳",
        "O'Brien; DROP TABLE users;--",
        "王小雲",
        "%s {0} \\ \" ' <b>&amp;",
        "x" * 200,
        "🧪" * 200,
    ],
)
def test_a_name_in_any_script_is_kept_as_it_is(client: TestClient, name: str) -> None:
    """Emoji, right-to-left text and what is syntax elsewhere come back as they were sent."""
    user = create(client, "name@example.com", name)
    assert user["full_name"] == name
    assert client.get("/api/user/get-user", params={"id": user["id"]}).json() == user
    assert client.get("/api/user/get-users").json() == [user]


def test_blanks_around_a_name_are_cut_off(client: TestClient) -> None:
    """A name begins and ends with what is seen."""
    assert create(client, "blank@example.com", " \tAda \n")["full_name"] == "Ada"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ada@example.com", "ADA@EXAMPLE.COM"),
        ("Ada@Example.com", "aDa@eXample.com"),
        ("émilie@example.com", "ÉMILIE@example.com"),
        ("Ирина@example.com", "ирина@example.com"),
        ("e\N{COMBINING ACUTE ACCENT}mile@example.com", "Émile@example.com"),
    ],
)
def test_an_email_belongs_to_one_user_in_whatever_case(
    client: TestClient, first: str, second: str
) -> None:
    """The second user is refused with 409, the field is named, and the first one is untouched."""
    user = create(client, first)
    refused = client.post("/api/user/create-user", json={"email": second, "full_name": "B"})
    assert refused.status_code == 409
    assert refused.json()["errors"][0]["field"] == "email"
    assert second not in refused.text
    assert client.get("/api/user/get-users").json() == [user]


@pytest.mark.parametrize("number", [1999, 2000, 2001, 4000, 4001])
def test_a_list_of_several_parts_is_whole_and_in_order(
    client: TestClient, arrange_users: WriteUsers, number: int
) -> None:
    """What is streamed is the same JSON array as a short list."""
    arrange_users(number)
    ids = [user["id"] for user in client.get("/api/user/get-users").json()]
    assert len(ids) == number
    assert ids == sorted(ids)


class TestDatabaseOfTheCaller:
    """`init_app(init_db=False)` leaves the session manager to its caller."""

    @pytest.fixture
    def app(self, database_url: str) -> Iterator[FastAPI]:
        """Open the database as a caller does, before the application starts."""
        sessionmanager.init(database_url)
        yield init_app(init_db=False)
        asyncio.run(sessionmanager.close())

    def test_the_caller_opens_the_database(self, client: TestClient) -> None:
        """The application neither opens nor closes it."""
        user = create(client, "ada@example.com")
        assert client.get("/api/user/get-users").json() == [user]
        assert sessionmanager.is_open

    def test_a_client_without_lifespan_is_served(self, app: FastAPI) -> None:
        """Each request of such a client has an event loop of its own."""
        client = TestClient(app)
        user = create(client, "ada@example.com")
        assert client.get("/api/user/get-users").json() == [user]

    async def test_rows_may_be_written_and_read_beside_requests(self, app: FastAPI) -> None:
        """A test of another kind uses the session manager itself, and sees what was committed."""
        async with sessionmanager.begin() as session:
            user = await User.create(session, **ADA)
        async with sessionmanager.session() as session:
            found = await User.get(session, str(user.id))
            assert found is not None
            assert (found.email, found.full_name) == (ADA["email"], ADA["full_name"])
            assert await User.get(session, "no id") is None
            assert [row.id for row in await User.get_all(session)] == [user.id]


def create(client: TestClient, email: str, name: str = "Ada Lovelace") -> dict[str, str]:
    """Create a user and return it as the service shows it."""
    response = client.post("/api/user/create-user", json={"email": email, "full_name": name})
    assert response.status_code == 200, response.text
    user: dict[str, str] = response.json()
    return user
