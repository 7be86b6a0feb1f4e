"""A database URL: which driver it means, and what that driver makes of its parameters."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from stillroom.errors import ConfigurationError

ADDRESS = frozenset({"host", "port"})
"""What SQLAlchemy itself reads from the query part of a URL, several hosts included."""


LED_TO = "stillroom.target"
"""Where `record_info` of a pool's entry says where a run of tests leads it, whatever its URL says.
"""


def parse_url(url: str | URL) -> URL:
    """Return the URL with the driver that will be used, asyncpg unless it names psycopg.

    Several hosts are written as libpq has them (``one:5432,two:5432``) or SQLAlchemy
    (``?host=one:5432&host=two:5432``). Raises ConfigurationError, without the password, for what is
    no URL of PostgreSQL and for parameters that the driver does not have.
    """
    try:
        parsed = _with_several_hosts(make_url(_with_hosts_apart(url)))
    except (ArgumentError, ValueError):
        msg = (
            "The database URL cannot be read (it is not shown here: it may hold a password). "
            "Write postgresql://user:password@host:5432/database, with special characters "
            "percent-encoded."
        )
        raise ConfigurationError(msg) from None
    drivername = _DRIVERS.get(parsed.drivername)
    if drivername is None:
        msg = (
            f"The database URL starts with {parsed.drivername}://, which Stillroom cannot use. "
            "Use postgresql:// (the driver is then asyncpg) or postgresql+psycopg://."
        )
        raise ConfigurationError(msg)
    if any("@" in part for part in (parsed.host or "", parsed.database or "", *_names(url))):
        msg = (
            "The database URL has two @ (it is not shown here: what stands before the last one may "
            "be a part of the password). Write an @ of the password as %40."
        )
        raise ConfigurationError(msg)
    parsed = parsed.set(drivername=drivername)
    connect_arguments(parsed)
    return parsed


def show_url(url: URL) -> str:
    """Return driver, host and database for a person to read, and nothing that may be secret."""
    host = url.host or url.query.get("host") or "the default host"
    return f"{url.drivername}://{host}/{url.database or ''}"


def connect_arguments(url: URL) -> dict[str, Any]:
    """Return the driver's arguments for the parameters in the URL, host and port apart.

    Raises ConfigurationError for a parameter that the driver does not have, by name: dropped in
    silence it might have been the one that asked for TLS.
    """
    query: dict[str, str] = {}
    for name, value in url.query.items():
        if name in ADDRESS:
            continue
        if not isinstance(value, str):
            msg = f"The database URL gives the parameter {name} more than once; give it once."
            raise ConfigurationError(msg)
        query[name] = value
    if url.get_driver_name() == "asyncpg":
        return _asyncpg_arguments(query)
    return _psycopg_arguments(query)


def _with_hosts_apart(url: str | URL) -> str | URL:
    """Move several hosts to where SQLAlchemy looks for them; it reads the port of one alone."""
    match = None if isinstance(url, URL) else _AUTHORITY.match(url)
    if match is None or "," not in match["hosts"]:
        return url
    named = match["hosts"].split(",")
    if not all(named):
        raise ValueError(named)
    hosts = urlencode([("host", host) for host in named])
    rest, _, query = match["rest"].partition("?")
    return f"{match['before']}{rest or '/'}?{hosts}{'&' if query else ''}{query}"


def _with_several_hosts(url: URL) -> URL:
    """Write several hosts and their ports in the one way that fits both drivers and IPv6."""
    named = url.query.get("host", ())
    hosts = named.split(",") if isinstance(named, str) else list(named)
    if len(hosts) < 2 or "port" in url.query:
        return url
    pairs = [_HOST.fullmatch(host) for host in hosts]
    if not all(pairs):
        raise ValueError(hosts)
    found = [(it["six"] or it["name"], it["port"] or "5432") for it in pairs if it]
    names, ports = (",".join(parts) for parts in zip(*found, strict=True))
    return url.update_query_dict({"host": names, "port": ports})


# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS
_AUTHORITY = re.compile(
    r"(?P<before>[\w+]+://(?:[^/?]*@)?)(?P<hosts>[^/?@]*)(?P<rest>.*)", re.DOTALL
)
_HOST = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<name>/.*?|[^:]+))(?::(?P<port>\d{1,5}))?")

_DRIVERS: Mapping[str, str] = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+psycopg",
    "postgresql+psycopg_async": "postgresql+psycopg",
}

# libpq's parameters that asyncpg understands in a DSN; the rest of libpq's has no counterpart.
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_ASYNCPG_DSN = frozenset({
    "gsslib", "krbsrvname", "passfile", "service", "ssl_max_protocol_version",
    "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslpassword", "sslrootcert", "target_session_attrs",
})  # fmt: skip

# Where a parameter has few values: any other would be found out at the first connection only.
_VALUES = {
    "sslmode": {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
    "target_session_attrs": {
        "any", "primary", "standby", "read-write", "read-only", "prefer-standby",
    },
}  # fmt: skip
_FILES = frozenset({"passfile", "sslcert", "sslcrl", "sslkey", "sslrootcert"})

# What libpq would do anyway where nothing is said, so saying it asks nothing of asyncpg.
_HARMLESS = {
    "channel_binding": {"disable", "prefer"},
    "client_encoding": {"utf8", "utf-8"},
    "gssencmode": {"disable", "prefer"},
    "keepalives": {"1"},
}


def _names(url: str | URL) -> list[str]:
    # Read here, for SQLAlchemy passes over a parameter without a value.
    query = url.partition("?")[2] if isinstance(url, str) else ""
    return [pair.partition("=")[0] for pair in query.split("&")]


def _asyncpg_arguments(query: Mapping[str, str]) -> dict[str, Any]:
    parameters: dict[str, str] = {}
    arguments: dict[str, Any] = {"server_settings": parameters}
    dsn: dict[str, str] = {}
    refused: list[str] = []
    for name, value in query.items():
        if name in _ASYNCPG_DSN or name == "ssl":
            known = "sslmode" if name == "ssl" else name
            dsn[known] = _checked(known, value)
        elif name == "connect_timeout":
            arguments["timeout"] = _seconds(name, value)
        elif name in {"application_name", "options"}:
            parameters[name] = value
        elif value.lower() not in _HARMLESS.get(name, ()):
            refused.append(name)
    if refused:
        msg = (
            f"The database URL has parameters that asyncpg does not know: {', '.join(refused)}. "
            "Remove them, or use libpq's driver: postgresql+psycopg://"
        )
        raise ConfigurationError(msg)
    if dsn:
        arguments["dsn"] = "postgresql:///?" + urlencode(dsn)
    return arguments


def _psycopg_arguments(query: Mapping[str, str]) -> dict[str, Any]:
    try:
        from psycopg import ProgrammingError  # noqa: PLC0415 - an extra: only its users have it
        from psycopg.conninfo import make_conninfo  # noqa: PLC0415
    except ImportError as error:
        msg = "The database URL asks for psycopg: pip install 'stillroom[psycopg]'"
        raise ConfigurationError(msg) from error
    try:
        make_conninfo(**query)
    except ProgrammingError as error:
        msg = f"The database URL has a parameter that libpq refuses: {error}. Remove it."
        raise ConfigurationError(msg) from error
    return dict(query)


def _checked(name: str, value: str) -> str:
    values = _VALUES.get(name, {value})
    if value not in values:
        msg = f"The database URL gives {name}={value}; it is one of {', '.join(sorted(values))}."
        raise ConfigurationError(msg)
    if name in _FILES and not Path(value).expanduser().is_file():
        msg = f"The database URL gives {name}={value}, and there is no such file."
        raise ConfigurationError(msg)
    return value


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        msg = f"The database URL gives {name}={value}, which is no number of seconds."
        raise ConfigurationError(msg)
    return seconds
