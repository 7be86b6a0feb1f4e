"""What a client got for a request."""

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, or that there was none: its status is 0 then; times are in seconds."""

    path: str
    at: float
    """When the request was to be sent, by the machine's monotonic clock."""
    seconds: float
    status: int
    says_when: bool = False
    """Whether it has Retry-After."""
    says_unknown: bool = False
    """Whether it says that nobody knows what has become of the work."""
    tells: bool = False
    """Whether it is an error that repeats what was sent."""
    is_there: bool = False
    """Whether it says so."""
    has_left: bool = False
    """Whether the client had lost its patience."""

    @property
    def is_good(self) -> bool:
        """Say whether it is a success."""
        return 200 <= self.status < 400

    @property
    def is_refusal(self) -> bool:
        """Say whether the client is told to come back."""
        return self.status == 503

    @property
    def has_failed(self) -> bool:
        """Say whether it is neither: an error, or no answer."""
        return not (self.is_good or self.is_refusal or self.has_left)


def dump(answers: Iterable[Answer]) -> str:
    """Write answers down, for another process."""
    return json.dumps([astuple(answer) for answer in answers])


def parse(text: str) -> list[Answer]:
    """Read what `dump` wrote."""
    return [Answer(*fields) for fields in json.loads(text)]
