"""What the logs and the answers tell of all that was sent."""

from tests.faults.figure import Figure, Measure, none
from tests.faults.stage import PASSWORD, Stage


def tell_nothing(stage: Stage) -> Figure:
    """Look for what was sent in all logs and all errors so far."""
    logged = stage.logged()
    return Figure(
        20,
        "No log and no error repeats what was sent, or the password of the database",
        [
            Measure("answers looked at", stage.answers, at_least=1),
            none("errors that repeat it", stage.tales),
            Measure("lines of logs looked at", logged.count("\n"), at_least=1),
            none("times in the logs", logged.count(stage.secret) + logged.count(PASSWORD)),
        ],
    )
