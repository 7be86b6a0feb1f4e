"""What a driver gets in place of the arguments that an engine has for it.

They say all that a driver would otherwise take from the environment or from files (PGHOST,
PGHOSTADDR, PGSSLMODE, a service) and that would lead it elsewhere, make it another user or keep it
from connecting. What the application says of how it works with a connection is kept.
"""

from importlib import import_module
from typing import Any

from sqlalchemy import URL, Dialect

from stillroom.testing.engines.places import Place
from stillroom.testing.wire.transport import WIRE, AnyLoop
from stillroom.url import ADDRESS, connect_arguments


def to_wire(arguments: dict[str, Any], loop: AnyLoop) -> None:
    """Let asyncpg connect by a wire."""
    _keep(arguments, _OF_ASYNCPG)
    # The password keeps asyncpg from looking for one in files.
    arguments.update(_PLAIN, user="wire", password="-", database="wire")  # noqa: S106
    arguments.update(host=WIRE, port=5432, loop=loop)


def to_database(dialect: Dialect, arguments: dict[str, Any], url: URL) -> None:
    """Let a driver connect to a database; the URL's own parameters say how, TLS included."""
    url = url.set(drivername=f"postgresql+{dialect.driver}")
    if dialect.driver == "asyncpg":
        _to_database_by_asyncpg(dialect, arguments, url)
        return
    version = _libpq_version(dialect.driver)
    plain = {name: it for name, it in _OF_LIBPQ_PLAIN.items() if version >= _SINCE.get(name, 0)}
    _keep(arguments, _OF_LIBPQ)
    named = dialect.create_connect_args(url)[1]
    arguments.update({**plain, **named, **arguments})


def _to_database_by_asyncpg(dialect: Dialect, arguments: dict[str, Any], url: URL) -> None:
    named = connect_arguments(url)
    settings = {**named.pop("server_settings"), **arguments.get("server_settings", {})}
    if "dsn" not in named:
        has_socket = Place.of_url(url).host.startswith("/")
        named |= {**_PLAIN, "ssl": False if has_socket else "prefer"}
    address = url.set(query={name: url.query[name] for name in url.query if name in ADDRESS})
    named |= dialect.create_connect_args(address)[1]
    _keep(arguments, _OF_ASYNCPG)
    arguments.update({**named, **arguments, "server_settings": settings})


def _keep(arguments: dict[str, Any], names: frozenset[str]) -> None:
    for name in arguments.keys() - names:
        del arguments[name]


def _libpq_version(driver: str) -> int:
    module, function = _LIBPQ_VERSIONS[driver]
    version: int = getattr(import_module(module), function)()
    return version


_PLAIN = {"ssl": False, "direct_tls": False, "target_session_attrs": "any"}

# What does not say where to connect to, and as whom.
_OF_ASYNCPG = frozenset({
    "command_timeout", "connection_class", "max_cacheable_statement_size",
    "max_cached_statement_lifetime", "prepared_statement_cache_size",
    "prepared_statement_name_func", "record_class", "server_settings", "statement_cache_size",
    "timeout",
})  # fmt: skip
_OF_LIBPQ = frozenset({
    "application_name", "autocommit", "client_encoding", "connect_timeout", "connection_factory",
    "context", "cursor_factory", "fallback_application_name", "keepalives", "keepalives_count",
    "keepalives_idle", "keepalives_interval", "options", "prepare_threshold", "row_factory",
    "tcp_user_timeout",
})  # fmt: skip

# https://www.postgresql.org/docs/current/libpq-envars.html; an empty value keeps a variable out.
_OF_LIBPQ_PLAIN = {
    "channel_binding": "prefer",
    "gssencmode": "disable",
    "hostaddr": "",
    "load_balance_hosts": "disable",
    "port": 5432,
    "require_auth": "",
    "requirepeer": "",
    "sslcert": "",
    "sslcertmode": "allow",
    "sslcrl": "",
    "sslcrldir": "",
    "sslkey": "",
    "sslmode": "prefer",
    "sslnegotiation": "postgres",
    "sslrootcert": "",
    "target_session_attrs": "any",
}
_SINCE = {
    "channel_binding": 130000,
    "gssencmode": 120000,
    "load_balance_hosts": 160000,
    "require_auth": 160000,
    "sslcertmode": 160000,
    "sslcrldir": 140000,
    "sslnegotiation": 170000,
}
_LIBPQ_VERSIONS = {
    "psycopg": ("psycopg.pq", "version"),
    "psycopg2": ("psycopg2.extensions", "libpq_version"),
}
