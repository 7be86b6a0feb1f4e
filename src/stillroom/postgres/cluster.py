"""A private PostgreSQL cluster: started and stopped by one process, and gone when that process is.

It listens on a unix socket in a folder that only its user can enter, and on nothing else: it needs
no password and no free port. As root the server runs as an unprivileged user (PostgreSQL refuses
root); on Linux it gets its data folder as an open file, so that the folders above may be closed to
that user. No folder's mode is changed. Made for Linux and macOS, tested on Linux alone.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from stillroom.errors import PostgresStartError
from stillroom.postgres.binaries import VARIABLE, Programs, User, executable_by, find_programs
from stillroom.postgres.datafolder import (
    initdb_options,
    is_cluster,
    lock,
    refuse_another_major,
    server_user,
)
from stillroom.postgres.postmaster import PORT, SUPERUSER, Server, find_postmaster, running
from stillroom.postgres.watchdog import Watchdog, how_it_ended

TEMPORARY_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "autovacuum": "off",
    "bgwriter_lru_maxpages": "0",
    "checkpoint_timeout": "1d",
    "max_wal_size": "8GB",
    "wal_recycle": "off",
    "wal_init_zero": "off",
}
"""What a cluster need not do when its data are thrown away: no statement's answer changes."""

_START_SECONDS = 120.0  # a recovery after a crash included
_PREDECESSOR_SECONDS = 20.0
_LONGEST_PARENT = 60  # of a socket's folder; its whole path may have 107 bytes, 103 on macOS
_LONGEST_LOG = 1 << 20
_ROOM_IN_MEMORY = 1 << 30

# What a new server says while what is left of a killed one still ends: true for a moment only.
_STILL_ENDING = ('"postmaster.pid" already exists', "pre-existing shared memory block")


class Cluster:
    """Own a cluster in a data folder, from `start()` to `stop()` or the end of this process.

    `durable` keeps PostgreSQL's own settings, under which committed data survive every crash; one
    that is not durable is stopped without a checkpoint. `settings` go on the command line and win
    over the files in the data folder. `remove` are folders that go with the cluster. The log is
    `<data>.log`.
    """

    def __init__(
        self,
        data: Path,
        *,
        durable: bool = True,
        bin_folder: Path | None = None,
        settings: Mapping[str, str] | None = None,
        remove: Sequence[Path] = (),
    ) -> None:
        self.data = data.absolute()
        self.log = self.data.with_name(f"{self.data.name}.log")
        self.durable = durable
        self.is_left = False
        self._bin_folder = bin_folder
        self._settings = dict(settings or {})
        self._remove = list(remove)
        self._held = contextlib.ExitStack()
        self._launched: _Launched | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it accepts connections; make the cluster first if new.

        Raises PostgresNotFoundError without programs. Raises PostgresStartError, with the end of
        the log, when the server does not start, and when one runs on the folder already, or the
        folder is of another major version.
        """
        self.launch()
        with self._stopped_on_failure():
            while not self.ready():
                time.sleep(0.005)

    def launch(self) -> None:
        """Do the first half of `start()`: `url()` is known, connections are not accepted yet."""
        if self._launched is not None:
            raise RuntimeError(f"The cluster in {self.data} is started already.")
        programs = find_programs(self._bin_folder)
        with self._stopped_on_failure():
            try:
                self._launch(programs)
            except OSError as error:
                raise PostgresStartError(
                    f"PostgreSQL cannot start in {self.data}: {error}. The folder must belong to "
                    "the user who runs this, or to the one that root ran it as."
                ) from error

    def ready(self) -> bool:
        """Say whether connections are accepted. Raises PostgresStartError when they never will be.

        A server that refuses to start because what is left of a killed one still ends is started
        again.
        """
        parts = self._parts
        waited = time.monotonic() - parts.start
        if not parts.server.pid:
            self._follow_predecessor(waited)
        elif end := parts.watchdog.poll():
            still_ending = any(text in self._log_tail() for text in _STILL_ENDING)
            if waited > _PREDECESSOR_SECONDS or not still_ending:
                raise self._failure(end)
            self._spawn_server()
        elif running(self.data) == parts.server:
            return True
        elif waited > _START_SECONDS:
            raise self._failure(f"it accepts no connections after {_START_SECONDS:.0f} s")
        return False

    def stop(self) -> None:
        """Stop the server, wait for its end, and remove its folders; a durable one's data stay.

        Connections are cut, transactions in progress are rolled back. A second call does nothing.
        """
        self._held.close()
        self._launched = None

    def leave(self) -> None:
        """Let the server run on after `stop()` and the end of this process.

        When somebody stops it (`kill -INT` with its pid), what goes with it is removed.
        """
        self._parts.watchdog.leave()
        self.is_left = True

    def ended(self) -> str | None:
        """Say what has ended by itself, server or watchdog, and how; None while both run."""
        return self._parts.watchdog.poll()

    @property
    def version(self) -> str:
        """Return the server's version, such as 18.6."""
        return self._parts.programs.version

    @property
    def origin(self) -> str:
        """Say where the server's programs were found."""
        return self._parts.programs.origin

    @property
    def pids(self) -> tuple[int, int]:
        """Return the process ids of the server and of its watchdog."""
        return self._parts.watchdog.pids

    def url(self, database: str) -> str:
        """Return the URL of a database of this cluster, as `Server.url()` does."""
        return self._parts.server.url(database)

    def psql_command(self, database: str) -> list[str]:
        """Return the command line of psql on a database of this cluster."""
        return [self._parts.programs.psql, self.url(database)]

    def create_database(self, name: str) -> None:
        """Create a database if it does not exist. Raises PostgresStartError with what psql said."""
        # Where nothing is synced two checkpoints cost less than all pages in the WAL.
        statement = (
            "SELECT format('CREATE DATABASE %I', :'name') || CASE"
            " WHEN NOT :durable AND :SERVER_VERSION_NUM >= 150000 THEN ' STRATEGY file_copy'"
            " ELSE '' END"
            " WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \\gexec\n"
        )
        variables = [f"--set=name={name}", f"--set=durable={self.durable}", "--set=ON_ERROR_STOP=1"]
        answer = subprocess.run(
            [*self.psql_command(SUPERUSER), "--no-psqlrc", "--quiet", *variables],
            input=statement,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise PostgresStartError(f"The database {name!r} was not created: {answer.stderr}")

    @property
    def _parts(self) -> "_Launched":
        if self._launched is None:
            raise RuntimeError(f"The cluster in {self.data} is not started.")
        return self._launched

    @contextlib.contextmanager
    def _stopped_on_failure(self) -> Generator[None]:
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def _launch(self, programs: Programs) -> None:
        self.data.parent.mkdir(parents=True, exist_ok=True)
        new_cluster = not is_cluster(self.data)
        user = server_user(self.data)
        if user:
            programs = executable_by(programs, user)
        socket_folder = _new_folder(_socket_parent())
        new = [_new_folder(self.data.parent)] if new_cluster else []
        watchdog = Watchdog(
            self.data,
            signal="INT" if self.durable else "QUIT",
            remove=[socket_folder, *new, *self._remove],
        )
        locked = self._held.enter_context(contextlib.ExitStack())  # until the watchdog has ended
        self._held.callback(watchdog.close)
        for folder in (socket_folder, *new):  # now that somebody removes them, whatever happens
            _make_folder(folder, user)
        server = Server(0, socket_folder, int(self._settings.get("port", PORT)))
        self._launched = _Launched(programs, user, watchdog, server)
        for folder in new:
            self._initialise(folder)
        refuse_another_major(self.data, programs)
        locked.callback(os.close, lock(self.data))
        self._follow_predecessor(0)

    def _initialise(self, new: Path) -> None:
        """Make a cluster under another name and rename it when it is whole: never half a one."""
        programs = str(self._parts.programs.folder)
        if unquotable := sorted(set('"$`\\') & set(programs)):
            raise PostgresStartError(
                f"initdb runs its server through a shell, which would not leave the "
                f"{' '.join(unquotable)} in {programs} alone. Move the folder, or name other "
                f"programs: {VARIABLE}=/usr/lib/postgresql/18/bin"
            )
        # Small segments of the log, for a cluster that is copied as often as it is made.
        sync = [] if self.durable else ["--no-sync", "--wal-segsize=1"]
        code = 0
        for options in initdb_options(self._parts.programs.major):
            self._spawn("initdb", new, [*options, *sync])
            if (code := self._parts.watchdog.wait()) == 0:
                break
        if code != 0:
            raise self._failure(f"initdb {how_it_ended(code)}")
        try:
            new.rename(self.data)  # onto nothing, or an empty folder
        except OSError:
            if not is_cluster(self.data):  # else another process was faster
                raise

    def _follow_predecessor(self, waited: float) -> None:
        """Start the server as soon as that of an owner that was killed has ended."""
        pid = find_postmaster(self.data)
        if pid is None:
            self._spawn_server()
        elif waited > _PREDECESSOR_SECONDS:
            raise PostgresStartError(
                f"A PostgreSQL server (pid {pid}) that nobody watches runs on {self.data} already. "
                f"Stop it first: kill -INT {pid}"
            )

    def _spawn_server(self) -> None:
        parts = self._parts
        settings = {
            "listen_addresses": "",
            "port": str(parts.server.port),
            "unix_socket_directories": str(parts.server.socket_folder),
            "unix_socket_permissions": "0700",
            **_notice_lost_clients(parts.programs.major),
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        parts.server = replace(parts.server, pid=self._spawn("postgres", self.data, options).pid)

    def _spawn(self, program: str, data: Path, options: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start a program under watch; log and data are opened here, whoever it will run as."""
        parts = self._parts
        with contextlib.ExitStack() as opened:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            opened.callback(os.close, log)
            folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, folder)
            if os.fstat(log).st_size > _LONGEST_LOG:
                os.ftruncate(log, 0)
            parts.log_start = os.fstat(log).st_size
            as_file = parts.user is not None and sys.platform == "linux"
            place = f"/proc/self/fd/{folder}" if as_file else str(data)
            return parts.watchdog.spawn(
                [parts.programs.path(program), "-D", place, *options],
                log=log,
                environ=_environment(),
                user=parts.user,
                pass_fds=[folder] if as_file else [],
            )

    def _failure(self, what: str) -> PostgresStartError:
        return PostgresStartError(
            f"PostgreSQL did not start in {self.data}: {what}. "
            f"The end of {self.log}:\n{self._log_tail()}"
        )

    def _log_tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._parts.log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-20:])


@contextlib.contextmanager
def temporary_cluster(
    *,
    bin_folder: Path | None = None,
    settings: Mapping[str, str] | None = None,
    copy_of: Path | None = None,
) -> Generator[Cluster]:
    """Run a cluster whose data are thrown away at the end, and when this process is killed.

    It is in memory where /dev/shm has a GiB of room, and writes nothing that only a crash needs.
    It begins as a copy of a data folder, where one is given that no server runs on: that is five
    times faster than initdb.
    """
    folder = Path(tempfile.mkdtemp(prefix="stillroom-", dir=_roomy_folder()))
    if copy_of is not None:
        _copy(copy_of, folder / "data")
    cluster = Cluster(
        folder / "data",
        durable=False,
        bin_folder=bin_folder,
        settings={**TEMPORARY_SETTINGS, **(settings or {})},
        remove=[folder],
    )
    try:
        with cluster:
            yield cluster
    finally:
        if not cluster.is_left:
            shutil.rmtree(folder, ignore_errors=True)  # still there if no watchdog was started


@dataclass
class _Launched:
    """Hold what exists between launch and stop; the server's pid is 0 until it is started."""

    programs: Programs
    user: User | None
    watchdog: Watchdog
    server: Server
    start: float = field(default_factory=time.monotonic)
    log_start: int = 0


def _copy(data: Path, target: Path) -> None:
    """Copy a data folder, owners and modes included; what fails leaves nothing, not a half."""
    copy = subprocess.run(["cp", "-a", data, target], capture_output=True, check=False)
    if copy.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)


def _new_folder(parent: Path) -> Path:
    """Return a name that nobody has."""
    return parent / f".stillroom-{secrets.token_hex(4)}"


def _make_folder(folder: Path, user: User | None) -> None:
    folder.mkdir(mode=0o700)
    if user:
        os.chown(folder, user.uid, user.gid)


def _socket_parent() -> Path:
    """Return the folder for temporary files, or /tmp where that is too deep or closed to others."""
    folder = Path(tempfile.gettempdir())
    too_deep = len(os.fsencode(folder)) > _LONGEST_PARENT
    if too_deep or os.geteuid() == 0:
        return Path("/tmp")  # noqa: S108  (for a folder of mode 0700)
    return folder


def _roomy_folder() -> Path:
    memory = Path("/dev/shm")  # noqa: S108  (for a folder of mode 0700)
    if os.access(memory, os.W_OK | os.X_OK) and shutil.disk_usage(memory).free >= _ROOM_IN_MEMORY:
        return memory
    return Path(tempfile.gettempdir())


def _notice_lost_clients(major: int) -> Mapping[str, str]:
    """Let a long statement end soon after its client was killed (14 can tell on Linux alone)."""
    seconds = {"client_connection_check_interval": "1s"}
    return seconds if sys.platform == "linux" or major > 14 else {}


def _environment() -> dict[str, str]:
    """Return an environment without PGPORT and the like, and with messages in English."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "LC_", "LANG")) and name != "TZ"
    }
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
