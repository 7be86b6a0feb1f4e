"""The hosts of a database: one, or several of which one is what is asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import MissingGreenlet

from stillroom.errors import DatabaseUnavailableError

Connect = Callable[[Mapping[str, Any]], DBAPIConnection]
"""Open a connection by the arguments of a driver."""


class Host(NamedTuple):
    """A host and its port, as a driver takes them; None is the driver's own."""

    name: str | None
    port: int | str | None

    def __str__(self) -> str:
        """Show both as far as they are known."""
        return f"{self.name or _DEFAULT}:{self.port}" if self.port else self.name or _DEFAULT


@dataclass
class Hosts:
    """Try each host of a URL in turn, each for as long as a connection may take.

    `session` is libpq's target_session_attrs, None where the URL has none. The host that answered
    last comes first, so that a dead one is not waited for by each new connection. The drivers' own
    ways are not taken: asyncpg has one timeout for all hosts, which a silent one uses up.
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS
    """

    session: str | None
    _last: Host | None = field(default=None, init=False)

    def connect(self, open_by: Connect, arguments: Mapping[str, Any]) -> DBAPIConnection:
        """Open a connection to the first host that answers and is what is asked for.

        Raises DatabaseUnavailableError, which says of each host what was wrong.
        """
        hosts = _hosts(arguments)
        refusals: dict[Host, Exception] = {}
        # The drivers disagree: asyncpg lets OSError through, libpq gives no SQLSTATE.
        for host, session in self._attempts(hosts):
            chosen: dict[str, Any] = {} if session is None else {_SESSION: session}
            chosen |= {"host": host.name, "port": host.port} if len(hosts) > 1 else {}
            try:
                connection = open_by({**arguments, **chosen})
            except MissingGreenlet:
                raise  # it was called where it cannot wait, and no host has been asked
            except Exception as error:  # noqa: BLE001  (raised below)
                refusals[host] = error
            else:
                self._last = host
                return connection
        database = arguments.get("database") or arguments.get("dbname") or _DEFAULT
        where = f"host {', '.join(str(host) for host in hosts)}, database {database}"
        said = [
            f"{type(it).__name__}: {_without_secrets(str(it), arguments)}"
            for it in refusals.values()
        ]
        if len(hosts) > 1:
            said = [f"{host}: {it}" for host, it in zip(refusals, said, strict=True)]
        msg = f"No connection to PostgreSQL, {where}: {'; '.join(said)}"
        raise DatabaseUnavailableError(msg) from [*refusals.values()][-1]

    def _attempts(self, hosts: Sequence[Host]) -> list[tuple[Host, str | None]]:
        ordered = sorted(hosts, key=lambda host: host != self._last)
        if self.session == "prefer-standby" and len(hosts) > 1:
            return [(host, session) for session in ("standby", "any") for host in ordered]
        return [(host, self.session) for host in ordered]


def _hosts(arguments: Mapping[str, Any]) -> list[Host]:
    """Return the hosts, which asyncpg has in lists and libpq between commas."""
    names, ports = (_listed(arguments.get(name)) for name in ("host", "port"))
    if len(names) == 1:
        return [Host(names[0], None)]
    if len(ports) < len(names):
        ports = [ports[0]] * len(names)
    return [Host(name, port) for name, port in zip(names, ports, strict=True)]


def _without_secrets(text: str, arguments: Mapping[str, Any]) -> str:
    for name in ("password", "sslpassword"):
        if secret := arguments.get(name):
            text = text.replace(str(secret), "***")
    return text


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return value.split(",")
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else [value]


_DEFAULT = "libpq's default"
_SESSION = "target_session_attrs"
