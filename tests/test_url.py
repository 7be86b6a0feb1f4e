"""A database URL, its driver and its parameters."""

import pytest

from stillroom.errors import ConfigurationError
from stillroom.url import parse_url


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [
        ("postgres", "asyncpg"),
        ("postgresql", "asyncpg"),
        ("postgresql+asyncpg", "asyncpg"),
        ("postgresql+psycopg", "psycopg"),
        ("postgresql+psycopg_async", "psycopg"),
    ],
)
def test_a_url_without_a_driver_means_asyncpg(scheme: str, driver: str) -> None:
    """`postgres://` and `postgresql://` mean asyncpg; psycopg is used where it is named."""
    assert parse_url(f"{scheme}://user@host/name").get_driver_name() == driver


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql+psycopg2://h/d", "mysql://h/d"])
def test_another_database_or_driver_is_refused_by_name(url: str) -> None:
    """What Stillroom cannot use is refused, and the message says what to write."""
    with pytest.raises(ConfigurationError, match=r"cannot use. Use postgresql://"):
        parse_url(url)


@pytest.mark.parametrize("url", ["", "no url", "postgresql://u:secret@host:port/name"])
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    """A broken URL may hold a password: the message does not repeat it."""
    with pytest.raises(ConfigurationError, match="cannot be read") as refusal:
        parse_url(url)

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("name", ["hostaddr", "require_auth", "nonsense", "keepalives_idle"])
def test_parameters_that_asyncpg_lacks_are_refused_by_name(name: str) -> None:
    """A parameter of libpq that asyncpg has no word for is not dropped in silence."""
    with pytest.raises(ConfigurationError, match=rf"asyncpg does not know: {name}\."):
        parse_url(f"postgresql://host/name?{name}=1")


def test_channel_binding_is_refused_only_when_it_is_required() -> None:
    """What libpq would do anyway asks for nothing; a demand that cannot be met is refused."""
    parse_url("postgresql://host/name?channel_binding=prefer&gssencmode=disable")

    with pytest.raises(ConfigurationError, match="channel_binding"):
        parse_url("postgresql://host/name?channel_binding=require")


def test_parameters_that_libpq_lacks_are_refused_by_name() -> None:
    """With psycopg the parameters are libpq's own."""
    parse_url("postgresql+psycopg://host/name?keepalives_idle=5&sslmode=require")

    with pytest.raises(ConfigurationError, match='invalid connection option "nonsense"'):
        parse_url("postgresql+psycopg://host/name?nonsense=1")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql+{}://u:p%40s@one:5433,[::1]:5434/name?sslmode=disable",
        "postgresql+{}://u:p%40s@/name?host=one:5433&host=[::1]:5434&sslmode=disable",
        "postgresql+{}://u:p%40s@/name?host=one,::1&port=5433,5434&sslmode=disable",
    ],
)
def test_several_hosts_are_written_in_any_way(driver: str, url: str) -> None:
    """As libpq has them, or SQLAlchemy; each with its port, IPv6 too."""
    parsed = parse_url(url.format(driver))

    assert dict(parsed.query) == {"host": "one,::1", "port": "5433,5434", "sslmode": "disable"}
    assert (parsed.password, parsed.database) == ("p@s", "name")


def test_several_hosts_may_stand_where_one_does() -> None:
    """That is libpq's own form, whose port is 5432 where none is said."""
    parsed = parse_url("postgresql://u:secret@one:5433,[::1],three/name?sslmode=disable")

    assert parsed.query["host"] == "one,::1,three"
    assert parsed.query["port"] == "5433,5432,5432"
    assert parsed.query["sslmode"] == "disable"
    assert (parsed.host, parsed.database) == (None, "name")
    assert parse_url("postgresql://one,two").query["host"] == "one,two"


@pytest.mark.parametrize("hosts", ["one:x,two", "one,", "a:1:2,b"])
def test_hosts_that_are_none_are_refused_without_being_shown(hosts: str) -> None:
    """The message does not repeat the URL, which may hold a password."""
    with pytest.raises(ConfigurationError, match="cannot be read") as refusal:
        parse_url(f"postgresql://u:secret@{hosts}/name")

    assert "secret" not in str(refusal.value)


def test_a_parameter_given_twice_is_refused() -> None:
    """Two values for one parameter are a mistake; several hosts are not."""
    parse_url("postgresql://user@/name?host=one:5432&host=two:5432")

    with pytest.raises(ConfigurationError, match="connect_timeout more than once"):
        parse_url("postgresql://host/name?connect_timeout=1&connect_timeout=2")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sslmode=bogus", "sslmode=bogus; it is one of allow, disable"),
        ("ssl=true", "sslmode=true; it is one of"),
        ("target_session_attrs=any-time", "it is one of any, prefer-standby"),
        ("sslrootcert=/nowhere/root.crt", "there is no such file"),
        ("connect_timeout=0", "which is no number of seconds"),
        ("connect_timeout=nan", "which is no number of seconds"),
    ],
)
def test_a_value_that_could_never_work_is_refused_at_once(query: str, message: str) -> None:
    """It would fail at the first connection only, and look like a database that is away."""
    with pytest.raises(ConfigurationError, match=message):
        parse_url(f"postgresql://host/name?{query}")


@pytest.mark.parametrize("password", ["p@zz", "p@ss/zz", "p@ss?zz", "p@ss/w?zz"])
def test_an_at_sign_in_a_password_is_not_taken_for_the_host(password: str) -> None:
    """What stands behind it may be a part of the password: it is refused, and not shown."""
    with pytest.raises(ConfigurationError, match=r"two @.*%40") as refusal:
        parse_url(f"postgresql://user:{password}@host/name")

    assert "zz" not in str(refusal.value)


def test_a_timeout_that_is_no_number_is_refused() -> None:
    """The message says which parameter and which value."""
    with pytest.raises(ConfigurationError, match="connect_timeout=soon, which is no number"):
        parse_url("postgresql://host/name?connect_timeout=soon")
