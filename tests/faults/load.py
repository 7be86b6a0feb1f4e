"""Load, made by a process of its own: ``python -m tests.faults.load``, which `loading` starts."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from uuid import uuid4

import uvloop

from tests.faults.answer import Answer, dump, parse
from tests.faults.client import Client

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Load:
    """Say what is asked of whom: so many requests a second, or so many clients without a pause.

    With `rate` the load is open: requests come when they come, however slow the answers are, and
    the time of an answer counts from when its request was due. In a path, {n} is a number that no
    other request has.
    """

    ports: Sequence[int]
    method: str = "GET"
    path: str
    seconds: float
    rate: float = 0.0
    clients: int = 0
    patience: float = 60.0
    pause: float = 0.0
    """How long a client waits after an answer that is no success, in a closed load."""
    keyed: bool = False
    secret: str = ""

    async def make(self) -> list[Answer]:
        """Make the load, and return all answers."""
        numbers = count()
        if self.rate:
            return await self._make_open(numbers)
        ends = time.monotonic() + self.seconds
        made = await asyncio.gather(*(self._ask_on(numbers, ends) for _ in range(self.clients)))
        return [answer for answers in made for answer in answers]

    async def _make_open(self, numbers: "count[int]") -> list[Answer]:
        idle: list[Client] = []
        asking: list[asyncio.Task[Answer]] = []

        async def ask(due: float) -> Answer:
            client = idle.pop() if idle else Client(self.ports, self.secret)
            answer = await self._ask(client, next(numbers), due)
            idle.append(client)
            return answer

        begin = time.monotonic()
        for number in range(round(self.rate * self.seconds)):
            due = begin + number / self.rate
            await asyncio.sleep(max(due - time.monotonic(), 0))
            asking.append(asyncio.create_task(ask(due)))
        return await asyncio.gather(*asking)

    async def _ask_on(self, numbers: "count[int]", ends: float) -> list[Answer]:
        client, answers = Client(self.ports, self.secret), list[Answer]()
        while time.monotonic() < ends:
            answers.append(await self._ask(client, next(numbers), None))
            if not answers[-1].is_good and not answers[-1].has_left:
                await asyncio.sleep(self.pause)
        return answers

    async def _ask(self, client: Client, number: int, due: float | None) -> Answer:
        path = self.path.replace("{n}", str(number))
        key = uuid4().hex if self.keyed else ""
        return await client.ask(self.method, path, key=key, due=due, patience=self.patience)


class Loading:
    """A load that is being made."""

    def __init__(self, load: Load) -> None:
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115  (the process writes on)
        command = [sys.executable, "-m", "tests.faults.load", json.dumps(asdict(load))]
        self._process = subprocess.Popen(command, stdout=self._output, cwd=ROOT)

    def answers(self) -> list[Answer]:
        """Wait until it is over, and return all answers."""
        assert self._process.wait() == 0, "the load was not made"
        self._output.seek(0)
        return parse(self._output.read())

    def end(self) -> None:
        """End it, whatever it has come to."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._output.close()


@contextmanager
def loading(*loads: Load) -> Generator[list[Loading]]:
    """Make loads beside what the block does."""
    under_way = [Loading(load) for load in loads]
    try:
        yield under_way
    finally:
        for one in under_way:
            one.end()


def answers_to(*loads: Load) -> list[Answer]:
    """Make loads, and return what all of them were answered."""
    with loading(*loads) as under_way:
        return [answer for one in under_way for answer in one.answers()]


def main() -> None:
    """Make the load that the argument describes."""
    load = Load(**json.loads(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.write(dump(runner.run(load.make())))


if __name__ == "__main__":
    main()
