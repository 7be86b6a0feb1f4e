"""`stillroom dev` serves a service, reloads it, and leaves no process behind."""

import contextlib
import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillroom.postgres import Cluster, development_data, running, temporary_cluster
from tests.commands import Command, end_all
from tests.processes import children, eventually

APPLICATION = """
    import asyncio, os, time
    import asyncpg
    from answer import ANSWER

    async def server(scope, receive, send):
        if scope["type"] != "http":
            return
        body = str(await ROUTES[scope["path"]]()).encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    async def answer():
        return ANSWER

    async def connect():
        return await asyncpg.connect(os.environ["DB_CONFIG"].replace("+asyncpg", ""))

    async def count():
        connection = await connect()
        await connection.execute("CREATE TABLE IF NOT EXISTS visit()")
        await connection.execute("INSERT INTO visit DEFAULT VALUES")
        return await connection.fetchval("SELECT count(*) FROM visit")

    async def revision():
        return await (await connect()).fetchval("SELECT version_num FROM alembic_version")

    async def block():
        time.sleep(60)

    async def wait():
        await asyncio.sleep(60)

    async def pid():
        return os.getpid()

    ROUTES = {f"/{route.__name__}": route for route in (answer, count, revision, block, wait, pid)}
"""

ENVIRONMENT = """
    import os
    from alembic import context
    from sqlalchemy import create_engine

    url = os.environ["DB_CONFIG"].replace("+asyncpg", "+psycopg")
    with create_engine(url).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""

REVISION = """
    import time
    from alembic import op

    revision, down_revision = "first", None

    def upgrade():
        {upgrade}
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Give a small service below a folder of mode 0700."""
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "larder"\n')
    (folder / "run.py").write_text(textwrap.dedent(APPLICATION))
    (folder / "answer.py").write_text("ANSWER = 'quince'\n")
    return folder


def add_migrations(service: Path, upgrade: str) -> None:
    """Give the service a migration."""
    versions = service / "migrations" / "versions"
    versions.mkdir(parents=True)
    with (service / "pyproject.toml").open("a") as file:
        file.write('[tool.alembic]\nscript_location = "migrations"\n')
    (service / "migrations" / "env.py").write_text(textwrap.dedent(ENVIRONMENT))
    (versions / "first.py").write_text(textwrap.dedent(REVISION).format(upgrade=upgrade))


class Dev(Command):
    """A running `stillroom dev`."""

    def __init__(self, service: Path, *arguments: str, **environ: str) -> None:
        super().__init__(service, "dev", *arguments, **environ)

    def port(self) -> int:
        """Wait until it serves, and return its port."""
        return int(self.says(r"API +http://127\.0\.0\.1:(\d+)\n")[1])

    def get(self, path: str, timeout: float = 20) -> str:
        """Return the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read().decode()


DevFactory = Callable[..., Dev]


@pytest.fixture
def dev(service: Path) -> Iterator[DevFactory]:
    """Give a function that starts the development server on a free port."""
    started: list[Dev] = []

    def start(*arguments: str, port: int = 0, **environ: str) -> Dev:
        started.append(Dev(service, "--port", str(port), *arguments, **environ))
        return started[-1]

    yield start
    end_all(started)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_until_a_signal_and_the_next_start_finds_the_data(
    dev: DevFactory, number: signal.Signals
) -> None:
    """A signal to the whole terminal, or to one process, ends all in order, with exit code 0."""
    first = dev()
    assert first.get("/count") == "1"
    assert first.stop(number) == 0, first.output
    assert "Traceback" not in first.output
    second = dev()
    assert second.get("/count") == "2"
    second.process.send_signal(number)
    assert second.ends() == 0, second.output


def test_it_says_where_everything_is(dev: DevFactory, service: Path) -> None:
    """The line of psql works as it stands, in a shell."""
    running_dev = dev()
    port = running_dev.port()
    running_dev.says(rf"\nDocs +http://127\.0\.0\.1:{port}/docs\n")
    url = running_dev.says(r"\nDatabase +(postgresql://postgres@/larder\?host=\S+)\n")[1]
    psql = running_dev.says(r"\npsql +(.*)\n")[1]
    assert shlex.split(psql)[-1] == url
    told = subprocess.run(
        ["sh", "-c", f"{psql} -XAtc 'SELECT current_database()'"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "larder\n"
    assert (service / ".stillroom" / ".gitignore").read_text() == "*\n"


def test_a_change_is_served_without_refusing_anyone(dev: DevFactory, service: Path) -> None:
    """While the application starts anew, requests wait."""
    running_dev = dev()
    assert running_dev.get("/answer") == "quince"
    answers: list[str] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            answers.append(running_dev.get("/answer"))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        (service / "answer.py").write_text("ANSWER = 'medlar'\n")
        assert eventually(lambda: "medlar" in answers), running_dev.output
    finally:
        enough.set()
        asking.join()
    assert set(answers) == {"quince", "medlar"}
    running_dev.says(r"Changed: answer\.py")


def test_a_new_package_is_watched(dev: DevFactory, service: Path) -> None:
    """A folder made while it runs counts from then on."""
    running_dev = dev()
    assert running_dev.get("/answer") == "quince"
    (service / "fruit").mkdir()
    running_dev.says("Changed: fruit")
    (service / "answer.py").write_text("from fruit.medlar import ANSWER\n")
    (service / "fruit" / "medlar.py").write_text("ANSWER = 'medlar'\n")
    assert eventually(lambda: running_dev.get("/answer") == "medlar"), running_dev.output
    (service / "fruit" / "medlar.py").write_text("ANSWER = 'damson'\n")
    assert eventually(lambda: running_dev.get("/answer") == "damson"), running_dev.output


def test_a_syntax_error_waits_for_its_repair(dev: DevFactory, service: Path) -> None:
    """The database stays; the error is shown."""
    running_dev = dev()
    assert running_dev.get("/count") == "1"
    (service / "answer.py").write_text("ANSWER = 'medlar\n")
    running_dev.says(r"SyntaxError[^$]*ended with exit code 1\. Waiting for a change\.")
    (service / "answer.py").write_text("ANSWER = 'damson'\n")
    assert running_dev.get("/answer") == "damson"
    assert running_dev.get("/count") == "2"


def test_an_error_at_the_first_start_waits_for_its_repair(dev: DevFactory, service: Path) -> None:
    """The addresses are said when it really serves."""
    (service / "answer.py").write_text("import nothing_like_this\n")
    running_dev = dev()
    running_dev.says(r"ModuleNotFoundError[^$]*Waiting for a change\.")
    assert "API" not in running_dev.output
    (service / "answer.py").write_text("ANSWER = 'damson'\n")
    assert running_dev.get("/answer") == "damson"


@pytest.mark.parametrize("victim", ["supervisor", "worker", "postgres", "watchdog"])
def test_whatever_is_killed_nothing_is_left_and_the_data_are_there(
    dev: DevFactory, service: Path, victim: str
) -> None:
    """The others end, the supervisor says what happened, the next start has what was committed."""
    first = dev()
    assert first.get("/count") == "1"
    titles = {
        "worker": "stillroom.development.worker",
        "postgres": "postgres",
        "watchdog": "watchdog",
    }
    pid = next(
        (pid for pid, title in children(first.process.pid) if titles.get(victim, "?") in title),
        first.process.pid,
    )
    assert (pid == first.process.pid) == (victim == "supervisor")
    os.kill(pid, signal.SIGKILL)
    code = first.ends()
    if victim == "supervisor":
        assert code == -signal.SIGKILL
    else:
        assert code == 1
        assert re.search(r"stillroom: .*was killed by signal 9: everything else", first.output)
    assert running(development_data(service)) is None
    assert dev().get("/count") == "2"


def test_a_worker_that_hangs_does_not_outlive_its_supervisor(dev: DevFactory) -> None:
    """A request that blocks the event loop ends with it, after a few seconds."""
    running_dev = dev()
    assert running_dev.get("/answer") == "quince"
    with pytest.raises(TimeoutError):
        running_dev.get("/block", timeout=0.2)
    running_dev.process.kill()
    start = time.monotonic()
    running_dev.ends()
    assert time.monotonic() - start < 8


def test_a_request_that_takes_long_does_not_hold_up_the_end(dev: DevFactory) -> None:
    """It may take its grace, then it is cancelled."""
    running_dev = dev()
    assert running_dev.get("/answer") == "quince"
    with pytest.raises(TimeoutError):
        running_dev.get("/wait", timeout=0.2)
    start = time.monotonic()
    assert running_dev.stop() == 0
    assert time.monotonic() - start < 8


def test_a_taken_port_is_said(dev: DevFactory, service: Path) -> None:
    """A second one in the same folder is told that the first runs; nothing of it stays."""
    first = dev()
    port = first.port()
    second = dev(port=port)
    assert second.process.wait(10) == 1
    second.says(rf"127\.0\.0\.1:{port} is taken, .* serves this folder already")
    third = dev()
    assert third.process.wait(10) == 1
    third.says(r"PostgreSQL server \(pid \d+\) runs on .* already")
    assert first.get("/answer") == "quince"
    assert first.stop() == 0
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd=service,
    ) as other:
        try:
            eventually(lambda: _listens(port))
            fourth = dev(port=port)
            assert fourth.process.wait(10) == 1
            fourth.says(rf"Nothing can listen on 127\.0\.0\.1:{port}: Address already in use")
        finally:
            other.kill()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_given_database_is_used_and_none_is_started(dev: DevFactory, service: Path) -> None:
    """Its URL is said without the password."""
    with temporary_cluster() as given:
        url = given.url("postgres").replace("postgres@", "postgres:se@cret/x@", 1)
        config = given.url("postgres").replace("postgres@", "postgres:se%40cret%2Fx@", 1)
        running_dev = dev(DB_CONFIG=config)
        assert running_dev.get("/count") == "1"
        said = running_dev.says(r"\nDatabase +(\S+)\n")[1]
        assert said.startswith("postgresql://postgres@/postgres?host=")
        assert "cret" not in running_dev.output
        assert url not in running_dev.output
        assert running_dev.stop() == 0
        assert not (service / ".stillroom").exists()


def test_it_migrates_before_it_serves(dev: DevFactory, service: Path) -> None:
    """The first answer finds the schema at head."""
    add_migrations(service, 'op.execute("CREATE TABLE jam()")')
    first = dev()
    assert first.get("/revision") == "first"
    assert first.stop() == 0
    without = dev("--no-migrate")
    assert without.get("/revision") == "first"


def test_variables_of_libpq_mean_another_server(dev: DevFactory, service: Path) -> None:
    """What the shell says of its own PostgreSQL does not reach the development database."""
    add_migrations(service, 'op.execute("CREATE TABLE jam()")')
    trapped = dev(
        PGOPTIONS="-c default_transaction_read_only=on", PGSSLMODE="require", PGSERVICE="nowhere"
    )

    assert trapped.get("/revision") == "first"
    assert trapped.stop() == 0


@pytest.mark.parametrize("seconds", [0.25, 0.4, 0.6, 0.8])
def test_a_stop_during_the_start_is_quiet(dev: DevFactory, seconds: float) -> None:
    """Ctrl-C reaches every process of the terminal, at any moment; none of them complains."""
    starting = dev()
    time.sleep(seconds)  # the moments are what is tested
    os.killpg(starting.process.pid, signal.SIGINT)
    code = starting.ends()

    assert "worker.py" not in starting.output
    assert code in {0, -signal.SIGINT, 130}


def test_a_port_that_is_none_is_refused(dev: DevFactory) -> None:
    """A usage error, in a sentence."""
    refused = dev("--port", "99999")

    assert refused.ends() == 2
    assert "Traceback" not in refused.output


def test_a_migration_that_fails_stops_everything(dev: DevFactory, service: Path) -> None:
    """What Alembic said is shown; nothing is served on the wrong schema."""
    add_migrations(service, 'op.execute("CREATE TABEL jam()")')
    failing = dev()
    assert failing.ends() == 1
    assert "syntax error" in failing.output
    assert "stillroom: The migrations did not reach head" in failing.output
    assert "API" not in failing.output


def test_a_migration_does_not_outlive_its_supervisor(dev: DevFactory, service: Path) -> None:
    """It ends at once, and PostgreSQL rolls it back."""
    add_migrations(service, 'op.execute("CREATE TABLE jam()"); print("begun", flush=True)')
    revision = service / "migrations" / "versions" / "first.py"
    revision.write_text(f"{revision.read_text()}    time.sleep(60)\n")
    slow = dev()
    slow.says("begun")
    slow.process.kill()
    slow.ends()
    with Cluster(development_data(service)) as cluster:
        answer = subprocess.run(
            [*cluster.psql_command("larder"), "-XAtc", "SELECT to_regclass('jam') IS NULL"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert answer.stdout == "t\n"


def test_without_reload_an_error_is_the_end(dev: DevFactory, service: Path) -> None:
    """Nothing waits for a change that nobody looks for."""
    (service / "answer.py").write_text("import nothing_like_this\n")
    failing = dev("--no-reload")
    assert failing.ends() == 1
    failing.says(r"stillroom: The worker ended with exit code 1")


def test_a_folder_without_a_service_is_refused(dev: DevFactory, service: Path) -> None:
    """Nothing is created where no service is."""
    (service / "pyproject.toml").unlink()
    assert dev().ends() == 1
    assert not (service / ".stillroom").exists()
