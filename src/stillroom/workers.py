"""How many processes serve beside this one, as the environment says."""

import os

from stillroom.errors import ConfigurationError

VARIABLE = "STILLROOM_WORKERS"
"""The variable: the number of processes like this one that use its database, this one included.

`stillroom serve` sets it, to its own --workers where it is not more already; under another server,
or for several machines on one database, whoever starts them may.
"""


def workers() -> int | None:
    """Return the number, or None where nobody has said. Raises ConfigurationError for no number."""
    number = os.environ.get(VARIABLE)
    if not number:
        return None
    if not number.isdecimal() or int(number) < 1:
        raise ConfigurationError(
            f"{VARIABLE} is {number!r}; it is a number of processes, 1 or more"
        )
    return int(number)
