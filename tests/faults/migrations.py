"""Several replicas migrate the same database at once."""

import os
import subprocess
import sys

from tests.faults.figure import Figure, Measure, none
from tests.faults.stage import SERVICE, Stage

REPLICAS = 4
ROUNDS = 5


def migrate_at_once(stage: Stage) -> Figure:
    """Start `alembic upgrade head` so often at once, each round on an empty database."""
    crashed = runs = 0
    revisions = len(list((SERVICE / "migrations" / "versions").glob("*.py")))
    with stage.database() as database:
        for _ in range(ROUNDS):
            replicas = start(database.create())
            said = [replica.communicate(timeout=60)[0] for replica in replicas]
            crashed += sum(replica.returncode != 0 for replica in replicas)
            runs += sum(one.count("Running upgrade") for one in said)
    return Figure(
        16,
        f"{REPLICAS} replicas that migrate at once run each revision once, and none crashes",
        [
            Measure("rounds", ROUNDS),
            none("crashed", crashed),
            Measure("runs of a revision", runs / revisions / ROUNDS, at_most=1, at_least=1),
        ],
    )


def start(url: str) -> "list[subprocess.Popen[str]]":
    """Start all replicas at once."""
    return [
        subprocess.Popen(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=SERVICE,
            env={**os.environ, "DB_CONFIG": url.replace("postgresql:", "postgresql+asyncpg:")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(REPLICAS)
    ]
