"""What drivers are told instead of what an engine, the environment and files say."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from stillroom.errors import ConfigurationError
from stillroom.testing.engines import DatabaseTarget, direct_to, install, take_strays, uninstall
from stillroom.testing.engines.places import Place
from stillroom.testing.sandbox import Sandbox
from tests.testing.conftest import TRAP, RunningSandbox
from tests.testing.trap import Trap, set_trap

KINDS = ["asyncpg", "asyncpg by a wire", "psycopg", "psycopg async"]
WHERE = text(
    "SELECT current_database(), current_user::text, current_setting('application_name'), "
    "current_setting('work_mem')"
)


@pytest.fixture
def trap() -> Iterator[Trap]:
    """Set a trap, which must be empty at the end."""
    with set_trap() as trap:
        yield trap


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    """Undo what the test has hooked."""
    install()
    yield
    uninstall()
    assert take_strays() == []


@pytest.fixture
def hostile(trap: Trap, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the environment and files of libpq's name the trap, and ask for what no test has."""
    services, passwords = tmp_path / "services", tmp_path / "passwords"
    services.write_text(
        f"[production]\nhost=127.0.0.1\nhostaddr=127.0.0.1\nport={trap.port}\nuser=nobody\n"
        "dbname=production\nsslmode=verify-full\nrequirepeer=nobody\ntarget_session_attrs=standby\n"
    )
    passwords.write_text("*:*:*:*:secret\n")
    passwords.chmod(0o600)
    for name, value in {
        "HOST": "127.0.0.1",
        "HOSTADDR": "127.0.0.1",
        "PORT": str(trap.port),
        "USER": "nobody",
        "PASSWORD": "secret",
        "DATABASE": "production",
        "SERVICE": "production",
        "SERVICEFILE": str(services),
        "PASSFILE": str(passwords),
        "SSLMODE": "verify-full",
        "SSLNEGOTIATION": "direct",
        "SSLROOTCERT": "system",
        "SSLCERT": "/nowhere/certificate",
        "SSLKEY": "/nowhere/key",
        "SSLCERTMODE": "require",
        "GSSENCMODE": "require",
        "CHANNELBINDING": "require",
        "REQUIREAUTH": "scram-sha-256",
        "REQUIREPEER": "nobody",
        "TARGETSESSIONATTRS": "standby",
        "LOADBALANCEHOSTS": "random",
    }.items():
        monkeypatch.setenv(f"PG{name}", value)
    for name in ("HOST", "USER", "PASSWORD", "NAME", "CONFIG"):
        monkeypatch.setenv(f"DB_{name}", trap.url())


async def read(kind: str, url: str, **options: Any) -> tuple[Any, ...]:
    """Return database, user, the name of the application and a setting of a new connection."""
    driver = "psycopg" if kind.startswith("psycopg") else "asyncpg"
    url = url.replace("+asyncpg", f"+{driver}")
    if kind == "psycopg":
        engine = create_engine(url, **options)
        with engine.connect() as plain:
            row = tuple(plain.execute(WHERE).one())
        engine.dispose()
        return row
    async_engine = create_async_engine(url, **options)
    async with async_engine.connect() as connection:
        row = tuple((await connection.execute(WHERE)).one())
    await async_engine.dispose()
    return row


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, schema_url: str) -> str:
    """Direct engines of a driver to the database with the schema, or into the sandbox on it."""
    if request.param != "asyncpg by a wire":
        direct_to(DatabaseTarget(schema_url))
        return str(request.param)
    request.getfixturevalue("sandbox")
    running: RunningSandbox = request.getfixturevalue("running_sandbox")
    direct_to(running.target)
    return "asyncpg by a wire"


@pytest.mark.parametrize("url", [TRAP, "postgresql+asyncpg://"])
async def test_the_environment_leads_nowhere_else(
    sandbox: Sandbox, hostile: None, kind: str, url: str, schema_url: str
) -> None:
    """Neither to another server nor to another user, and it keeps nobody from connecting."""
    database, user, *_ = await read(kind, url)

    assert (database, user) == (Place.of_url(schema_url).database, "postgres")


@pytest.mark.parametrize("kind", ["psycopg", "psycopg async"])
@pytest.mark.parametrize(
    "query",
    [
        "host=127.0.0.1:{port}&host=127.0.0.1:{port}",
        "host=127.0.0.1&port={port}&hostaddr=127.0.0.1",
        "service=production",
        "sslmode=verify-full&sslrootcert=/nowhere&target_session_attrs=standby&passfile=/nowhere",
        "require_auth=scram-sha-256&channel_binding=require&krbsrvname=production",
    ],
)
async def test_libpq_forgets_where_production_is(
    trap: Trap, kind: str, query: str, schema_url: str
) -> None:
    """What the URL and `connect_args` say of that is dropped; what they say of work is kept."""
    direct_to(DatabaseTarget(schema_url))
    query = query.format(port=trap.port)
    name, _, value = query.rpartition("&")[-1].partition("=")
    row = await read(
        kind,
        f"postgresql+asyncpg:///production?{query}",
        connect_args={
            name: value,
            "application_name": "larder",
            "options": "-c work_mem=5MB",
            "prepare_threshold": None,
        },
    )

    assert row == (Place.of_url(schema_url).database, "postgres", "larder", "5MB")


@pytest.mark.parametrize(
    "arguments",
    [
        {"ssl": ssl.create_default_context()},
        {"ssl": "verify-full", "direct_tls": True},
        {"dsn": "postgresql://nobody@127.0.0.1:{port}/production"},
        {"host": ["127.0.0.1", "127.0.0.1"], "port": [1, 2]},
        {"passfile": "/nowhere", "service": "production", "servicefile": "/nowhere"},
        {"krbsrvname": "production", "target_session_attrs": "standby", "gsslib": "sspi"},
        {"password": lambda: 1 / 0, "user": "nobody", "database": "production"},
    ],
)
@pytest.mark.parametrize("kind", ["asyncpg", "asyncpg by a wire"], indirect=True)
async def test_asyncpg_forgets_where_production_is(
    sandbox: Sandbox, trap: Trap, kind: str, arguments: dict[str, Any], schema_url: str
) -> None:
    """What `connect_args` say of that is dropped; what they say of work is kept."""
    settings = {"application_name": "larder", "work_mem": "5MB"}
    kept = {"server_settings": settings, "timeout": 5, "statement_cache_size": 0}
    row = await read(kind, trap.url("+asyncpg"), connect_args={**arguments, **kept})

    assert row == (Place.of_url(schema_url).database, "postgres", "larder", "5MB")


async def test_psycopg_keeps_how_it_prepares(schema_url: str) -> None:
    """`prepare_threshold` is no setting of the server's."""
    direct_to(DatabaseTarget(schema_url))
    engine = create_engine(
        TRAP.replace("asyncpg", "psycopg"), connect_args={"prepare_threshold": 17}
    )
    with engine.connect() as connection:
        driver_connection: Any = connection.connection.driver_connection
        assert driver_connection.prepare_threshold == 17
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:p@h/d", Place("h", "5432", "d")),
        ("postgresql://u@h:1/d?sslmode=require", Place("h", "1", "d")),
        ("postgresql://u@/d?host=%2Ftmp&port=2", Place("/tmp", "2", "d")),
    ],
)
def test_a_url_names_a_place(url: str, place: Place) -> None:
    """However it is written."""
    assert Place.of_url(url) == place
    assert "p@" not in str(place)


@pytest.mark.parametrize(
    "url", ["postgresql:///d", "postgresql://u@h", "postgresql:///d?host=a&host=b"]
)
def test_a_url_that_leaves_the_place_open_is_none(url: str) -> None:
    """The environment would say the rest, and may mean production."""
    with pytest.raises(ConfigurationError, match="names one host and one database"):
        Place.of_url(url)
