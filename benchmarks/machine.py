"""Where the figures come from: the machine, its load, the versions of all that was measured."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from stillroom.postgres.binaries import find_programs

PACKAGES = (
    "sqlalchemy",
    "asyncpg",
    "psycopg",
    "fastapi",
    "starlette",
    "httpx2",
    "pytest",
    "pytest-asyncio",
    "pytest-postgresql",
)


def load() -> str:
    """Return how many processes wanted to run in the last one and five minutes."""
    one, five, _ = os.getloadavg()
    return f"{one:.1f}, {five:.1f}"


def is_busy() -> bool:
    """Say whether the last five minutes had more to do than one benchmark gives."""
    return os.getloadavg()[1] > 1.5 * (os.cpu_count() or 1)


def describe(load_before: str) -> dict[str, str]:
    """Return what to know of the machine, after the run."""
    return {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "load (1 min, 5 min)": f"before {load_before}; after {load()}",
        "Stillroom": _revision(),
        "Python": platform.python_version(),
        "PostgreSQL": find_programs().version,
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _revision() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or version("stillroom")
