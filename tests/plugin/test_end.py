"""The end of a run that is stopped or killed in the middle of a test."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.plugin import styles
from tests.processes import MARK, eventually, mark, nothing_is_left
from tests.projects import Project

WAITING = """
import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from checks import check
from models import Session
from sqlalchemy import make_url, text


async def look():
    await check()
    async with Session() as session:
        return await session.scalar(text("SELECT pg_backend_pid()"))


@pytest.mark.parametrize(
    "isolation",
    [
        pytest.param(name, marks=pytest.mark.stillroom(isolation=name))
        for name in ("sandbox", "clone")
    ],
)
def test_it_waits(stillroom_url, isolation):
    data = os.readlink(f"/proc/{asyncio.run(look())}/cwd")
    folders = [data, make_url(stillroom_url).query["host"]]
    Path(f"{isolation}.part").write_text(json.dumps(folders))
    Path(f"{isolation}.part").rename(f"{isolation}.json")
    if isolation == os.environ["WAIT_IN"]:
        time.sleep(60)
"""


@pytest.mark.parametrize("isolation", ["sandbox", "clone"])
def test_ctrl_c_in_a_test(project: Project, isolation: str) -> None:
    """The run ends as pytest does, and leaves no process and no folder."""
    run, marked = _start(project, isolation)

    os.killpg(run.pid, signal.SIGINT)
    output = run.communicate(timeout=60)[0]

    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "KeyboardInterrupt" in output
    assert "Traceback" not in output, output
    assert _nothing_is_left(project, isolation, marked)


def test_ctrl_c_with_two_processes(project: Project) -> None:
    """Also the processes of pytest-xdist end, and what they use."""
    run, marked = _start(project, "sandbox", "-n", "2")

    os.killpg(run.pid, signal.SIGINT)
    output = run.communicate(timeout=60)[0]

    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert _nothing_is_left(project, "sandbox", marked)


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_run_that_is_killed(project: Project, options: list[str]) -> None:
    """Nothing of it is left within moments, though nobody could clean up."""
    run, marked = _start(project, "sandbox", *options)

    run.kill()
    run.communicate(timeout=60)

    assert _nothing_is_left(project, "sandbox", marked)


def _start(project: Project, isolation: str, *options: str) -> "tuple[subprocess.Popen[str], str]":
    """Start a run, and return in the middle of its test, with the mark of its processes."""
    project.write(checks=styles.CHECKS, test_waiting=WAITING)
    marked = mark()
    run = subprocess.Popen(
        project.command(*options),
        cwd=project.folder,
        env=project.environ(**{MARK: marked, "WAIT_IN": isolation}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    there = project.folder / f"{isolation}.json"
    eventually(lambda: there.exists() or run.poll() is not None, 60)
    assert there.exists(), run.communicate()[0]
    return run, marked


def _nothing_is_left(project: Project, isolation: str, marked: str) -> bool:
    data, socket = map(Path, json.loads((project.folder / f"{isolation}.json").read_text()))
    assert data.name == "data"
    assert nothing_is_left(marked, data.parent)
    return eventually(lambda: not data.parent.exists() and not socket.exists(), 5)


DYING = """
import asyncio
import os
import signal
import time
from pathlib import Path

from checks import check
from models import Session
from sqlalchemy import text


async def find_backend():
    async with Session() as session:
        return await session.scalar(text("SELECT pg_backend_pid()"))


def test_the_server_dies():
    asyncio.run(check())
    process = Path(f"/proc/{asyncio.run(find_backend())}")
    Path("data").write_text(str((process / "cwd").readlink()))
    server = (process / "stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(server), signal.SIGQUIT)
    deadline = time.monotonic() + 30
    while process.exists():
        assert time.monotonic() < deadline, "the server lives"
        time.sleep(0.01)


def test_after_it():
    pass
"""


@pytest.mark.parametrize("isolation", ["sandbox", "clone"])
def test_a_server_that_dies(project: Project, isolation: str) -> None:
    """All that is the run's ends; in the sandbox the test that finds it dead is the last.

    With clones pytest ends with the error of their removal, which happens behind the tests.
    """
    project.write(checks=styles.CHECKS, test_dying=DYING)

    outcome = project.run(f"--stillroom-isolation={isolation}")

    assert "INTERNALERROR" not in outcome.output, outcome.output
    assert outcome.code != 0
    assert not Path((project.folder / "data").read_text()).exists()
    if isolation == "sandbox":
        assert "stopping at a test whose work could not be undone" in outcome.output
        assert "1 error" in outcome.output


INTERRUPTING = """
import os
import signal
from pathlib import Path

import pytest
from stillroom.testing.sandbox.levels import Levels

leave = Levels.leave


def leave_and_interrupt(self, count):
    left = leave(self, count)
    if Path("armed").exists():
        Path("armed").unlink()
        signal.raise_signal(signal.Signals[os.environ["SIGNAL"]])
    return left


def fail(number, frame):
    pytest.fail("too slow")


signal.signal(signal.SIGALRM, fail)
Levels.leave = leave_and_interrupt
"""

INTERRUPTED = """
import asyncio
from pathlib import Path

import pytest
from checks import add
from models import Session, User, engine
from sqlalchemy import select


async def emails():
    async with Session() as session:
        return list(await session.scalars(select(User.email)))


@pytest.fixture(scope="session")
def lasting():
    asyncio.run(add(engine, "lasting"))
    yield
    Path("found").write_text(" ".join(asyncio.run(emails())))


def test_one(lasting):
    asyncio.run(add(engine, "one"))
    Path("armed").touch()


def test_two(lasting):
    pass
"""


def test_an_interrupt_leaves_no_test_half_undone(project: Project) -> None:
    """A Ctrl-C that comes while a test is being undone is heard when it is."""
    project.write(checks=styles.CHECKS, conftest=INTERRUPTING, test_interrupted=INTERRUPTED)

    outcome = project.run(SIGNAL="SIGINT")

    assert outcome.code == pytest.ExitCode.INTERRUPTED, outcome.output
    assert (project.folder / "found").read_text() == "lasting"


def test_an_alarm_leaves_no_test_half_undone(project: Project) -> None:
    """A limit of time that ends while a test is being undone fails this test, and no other."""
    project.write(checks=styles.CHECKS, conftest=INTERRUPTING, test_interrupted=INTERRUPTED)

    outcome = project.run(SIGNAL="SIGALRM")

    assert "2 passed, 1 error" in outcome.output, outcome.output
    assert "too slow" in outcome.output
    assert (project.folder / "found").read_text() == "lasting"
