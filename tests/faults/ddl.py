"""The schema changes under load, as an expand and contract migration does it."""

import time

from tests.faults.figure import Figure, Measure, none
from tests.faults.load import loading
from tests.faults.restarts import reads_and_writes
from tests.faults.stage import Stage, connect

CHANGES = [
    "ALTER TABLE items ADD COLUMN note text DEFAULT ''",
    "ALTER TABLE items ALTER COLUMN name TYPE varchar(80)",
    "ALTER TABLE items ALTER COLUMN name TYPE text",
    "ALTER TABLE items ALTER COLUMN size TYPE bigint",
    "CREATE INDEX CONCURRENTLY items_note ON items (note)",
    "ALTER TABLE items ALTER COLUMN size TYPE integer",
    "ALTER TABLE items DROP COLUMN note",
]


def alter_under_load(stage: Stage) -> Figure:
    """Make all changes again and again while rows are read and written."""
    with (
        stage.service() as (url, server),
        connect(url) as database,
        loading(*reads_and_writes(stage, server, seconds=8)) as under_way,
    ):
        time.sleep(1)
        made = 0
        ends = time.monotonic() + 6
        while time.monotonic() < ends:
            database.execute(CHANGES[made % len(CHANGES)].encode())
            made += 1
            time.sleep(0.1)
        answers = [a for one in under_way for a in stage.note(one.answers())]
    return Figure(
        19,
        "A change of the schema under load fails no request",
        [
            Measure("requests", len(answers)),
            Measure("changes", made, at_least=len(CHANGES)),
            none("not served", sum(not answer.is_good for answer in answers)),
        ],
    )
