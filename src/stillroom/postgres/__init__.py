"""A reachable PostgreSQL: a database that the environment names, or a private cluster.

`database_url()` is how an application finds its database, `Cluster` and `temporary_cluster()` run
one. Nothing here imports SQLAlchemy or a driver.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stillroom.errors import ConfigurationError
from stillroom.postgres.cluster import Cluster, temporary_cluster
from stillroom.postgres.postmaster import Server, running

__all__ = [
    "Cluster",
    "Server",
    "database_name",
    "database_url",
    "development_data",
    "direct_url",
    "given_url",
    "project",
    "running",
    "temporary_cluster",
    "through_pgbouncer",
    "with_asyncpg",
]


def database_url(environ: Mapping[str, str], folder: Path) -> str:
    """Return the URL of the database that the service in this folder uses.

    It is the one that `given_url()` finds in the environment, else the development cluster that
    `stillroom dev` runs for the folder. Raises ConfigurationError, which names the ways to get a
    database, when there is neither.
    """
    if url := given_url(environ):
        return url
    data = development_data(folder)
    try:
        server = running(data)
    except PermissionError as error:
        raise ConfigurationError(
            f"The development database in {data} belongs to another user ({error}). "
            "Run this as the user who started it."
        ) from error
    if server is None:
        raise ConfigurationError(
            "No database: neither DB_CONFIG nor DB_HOST, DB_USER, DB_PASSWORD or DB_NAME is set, "
            f"and no development database runs in {data}. Start one with scripts/run, or "
            f"`stillroom dev` in {folder.absolute()}; or set DB_CONFIG to a URL such as "
            "postgresql+asyncpg://user:password@host:5432/name; or set DB_HOST and the others."
        )
    return with_asyncpg(server.url(database_name(folder)))


def given_url(environ: Mapping[str, str]) -> str | None:
    """Return the URL of the database that the environment names, None when it names none.

    DB_CONFIG is a whole URL and is returned as it is. Else DB_HOST, DB_USER, DB_PASSWORD and
    DB_NAME make one for asyncpg; what is not set, or empty, is left to libpq's customs, which
    asyncpg and psycopg follow: the user of the operating system, the local server's socket or
    localhost, a database named after the user. DB_HOST may carry a port (`host:5432`,
    `[::1]:5432`), or be the folder of a socket (`/run/postgresql`).

    Raises ConfigurationError for a DB_HOST that is none of these.
    """
    if environ.get("DB_CONFIG"):
        return environ["DB_CONFIG"]
    parts = {name: environ.get(f"DB_{name}", "") for name in ("USER", "PASSWORD", "HOST", "NAME")}
    if not any(parts.values()):
        return None
    user, password, name = (quote(parts[key], safe="") for key in ("USER", "PASSWORD", "NAME"))
    credentials = f"{user}:{password}@" if password else f"{user}@" if user else ""
    if parts["HOST"].startswith("/"):
        return f"postgresql+asyncpg://{credentials}/{name}?host={quote(parts['HOST'], safe='')}"
    return f"postgresql+asyncpg://{credentials}{_authority(parts['HOST'])}/{name}"


def direct_url(environ: Mapping[str, str], folder: Path) -> str:
    """Return the URL that leads to PostgreSQL itself, past PgBouncer: DB_DIRECT where it is set.

    Migrations take it. Else it is that of `database_url()`, whose errors it raises.
    """
    return environ.get("DB_DIRECT") or database_url(environ, folder)


def through_pgbouncer(environ: Mapping[str, str]) -> bool | None:
    """Return what DB_PGBOUNCER says: 1 or 0, None where it says nothing, so that it is found out.

    Raises ConfigurationError for anything else.
    """
    said = environ.get("DB_PGBOUNCER", "")
    if said not in {"", "0", "1"}:
        raise ConfigurationError(
            f"DB_PGBOUNCER is {said!r}. It is 1 where DB_CONFIG leads to PgBouncer, 0 where it "
            "does not, and not set where the first connection may find it out."
        )
    return bool(int(said)) if said else None


def with_asyncpg(url: str) -> str:
    """Return a plain `postgresql://` URL as one that names the driver asyncpg."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


def development_data(folder: Path) -> Path:
    """Return the data folder of the development cluster of a service."""
    return folder.absolute() / ".stillroom" / "postgres"


def database_name(folder: Path) -> str:
    """Return the name of a service's development database, one that needs no quotes in SQL.

    The name is `project.name` in pyproject.toml, else the folder's. PostgreSQL's names have at most
    63 bytes.
    """
    name = str(project(folder).get("project", {}).get("name") or folder.absolute().name)
    identifier = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if (
        not identifier
        or identifier[0].isdigit()
        or identifier in {"postgres", "template0", "template1"}
    ):
        identifier = f"app_{identifier}".rstrip("_")
    return identifier[:63]


def project(folder: Path) -> dict[str, Any]:
    """Return what pyproject.toml of a folder says; nothing where there is none."""
    import tomllib  # noqa: PLC0415  (only development needs it)

    file = folder / "pyproject.toml"
    return tomllib.loads(file.read_text()) if file.exists() else {}


def _authority(host: str) -> str:
    """Return host and port as a URL has them: an IPv6 address stands in brackets."""
    pattern = r"(?:\[(?P<six>[^\]]*)\]|[^\s,:/@?#\[\]]*)(?::(?P<port>\d{1,5}))?"
    match = re.fullmatch(pattern, host)
    if match is None and _is_ipv6(host):
        return f"[{host}]"
    six, port = match.group("six", "port") if match else (None, None)
    if match is None or (six is not None and not _is_ipv6(six)) or not 0 < int(port or 1) < 65536:
        raise ConfigurationError(
            f"DB_HOST is {host!r}. It must be a host, with a port or without, or the folder of a "
            "socket: db.example.com, db.example.com:5432, [::1]:5432, /run/postgresql."
        )
    return host


def _is_ipv6(address: str) -> bool:
    from ipaddress import IPv6Address  # noqa: PLC0415  (few have one)

    try:
        IPv6Address(address)
    except ValueError:
        return False
    return True
