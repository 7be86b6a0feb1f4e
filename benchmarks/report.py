"""What a benchmark has found: JSON, and the table and the plot that are made from it.

`python benchmarks/report.py` makes all tables and plots anew; with --check it changes nothing, and
fails when one of them is not what the JSON says. What `scripts/faults` has found is its own.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Row:
    """A method, and one figure of it for each round."""

    name: str
    rounds: Sequence[float]
    _: KW_ONLY
    target: float | None = None
    """What the median must not exceed."""
    at_least: float | None = None
    """What the median must not fall short of."""
    undisturbed: float | None = None
    """The figure as the fastest tenth has it, where the machine did nothing else for a moment."""

    @property
    def median(self) -> float:
        """Return the figure that stands for the method."""
        return median(self.rounds)


@dataclass(frozen=True)
class Table:
    """Methods that were measured in one run, beside each other; the first is compared with."""

    title: str
    unit: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Report:
    """A question, how it was asked, and what came of it."""

    name: str
    question: str
    method: str
    machine: dict[str, str]
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    is_busy: bool = False
    """Whether the machine had more to do: then no target is said to be reached or missed."""

    def write(self) -> None:
        """Write all three files."""
        RESULTS.mkdir(exist_ok=True)
        self._path("json").write_text(json.dumps(asdict(self), indent=1) + "\n")
        self.draw()

    def draw(self) -> None:
        """Write the table and the plot."""
        for path, text in self._drawings().items():
            path.write_text(text)

    def is_drawn(self) -> bool:
        """Say whether table and plot are what draw() would write."""
        return all(path.read_text() == text for path, text in self._drawings().items())

    def _drawings(self) -> Mapping[Path, str]:
        return {self._path("md"): _markdown(self), self._path("svg"): _svg(self)}

    def _path(self, suffix: str) -> Path:
        return RESULTS / f"{self.name}.{suffix}"


def read(path: Path) -> Report:
    """Read what write() wrote."""
    found: dict[str, Any] = json.loads(path.read_text())
    tables = [
        Table(table["title"], table["unit"], [Row(**row) for row in table["rows"]])
        for table in found.pop("tables")
    ]
    return Report(**found, tables=tables)


def _markdown(report: Report) -> str:
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {report.question}"
    yield ""
    yield report.method
    for table in report.tables:
        yield ""
        yield f"## {table.title} ({table.unit})"
        yield ""
        yield "| | median | min | max | ratio | undisturbed | target |"
        yield "| --- | --: | --: | --: | --: | --: | --- |"
        first = table.rows[0].median
        for row in table.rows:
            ratio = f"{row.median / first:.2g}" if first > 0 else ""
            figures = " | ".join(_number(x) for x in (row.median, min(row.rounds), max(row.rounds)))
            undisturbed = "" if row.undisturbed is None else _number(row.undisturbed)
            yield f"| {row.name} | {figures} | {ratio} | {undisturbed} | {_verdict(row, report)} |"
    yield ""
    yield f"![The same as a plot]({report.name}.svg)"
    if report.is_busy:
        yield ""
        yield "The machine was busy with other work: these figures are its own, and decide nothing."
    for note in report.notes:
        yield ""
        yield note
    yield ""
    yield "## Where"
    yield ""
    for name, value in report.machine.items():
        yield f"- {name}: {value}"


def _verdict(row: Row, report: Report) -> str:
    if row.target is not None:
        bound, is_reached = f"at most {row.target:g}", row.median <= row.target
    elif row.at_least is not None:
        bound, is_reached = f"at least {row.at_least:g}", row.median >= row.at_least
    else:
        return ""
    word = "reached" if is_reached else "missed"
    return f"{bound}: {'undecided' if report.is_busy else word}"


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


# The plot: a bar for the median, a line from the lowest to the highest round, a logarithmic axis.

_WIDTH, _LABEL, _BAR, _STEP = 900, 330, 14, 22


def _svg(report: Report) -> str:
    parts: list[str] = []
    top = 10
    for table in report.tables:
        top = _panel(table, top, parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}"'
    return "\n".join(
        [
            f'{head} font-family="sans-serif" font-size="13">',
            f'<rect width="{_WIDTH}" height="{top}" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(table: Table, top: int, parts: list[str]) -> int:
    """Draw one table; return where the next one begins."""
    figures = [figure for row in table.rows for figure in row.rounds if figure > 0] or [1]
    low = math.floor(math.log10(min(figures)))
    high = max(math.ceil(math.log10(max(figures))), low + 1)

    def x(value: float) -> float:
        decades = math.log10(max(value, 10**low)) - low
        return _LABEL + (_WIDTH - _LABEL - 90) * decades / (high - low)

    parts.append(_text(10, top + 14, f"{table.title} ({table.unit})", weight="bold"))
    bottom = top + 26 + _STEP * len(table.rows)
    for power in range(low, high + 1):
        at = x(10**power)
        parts.append(_line(at, top + 24, at, bottom, "#ddd"))
        parts.append(_text(at, bottom + 14, f"{10.0**power:g}", anchor="middle", fill="#777"))
    for number, row in enumerate(table.rows):
        parts += _bar(row, top + 28 + _STEP * number, x, is_ours=row.name.startswith("Stillroom"))
    return bottom + 34


def _bar(row: Row, y: float, x: Any, *, is_ours: bool) -> Iterator[str]:
    start, end, middle = x(0), x(row.median), y + _BAR / 2
    fill = "#2a7f62" if is_ours else "#9aa7b1"
    yield _text(_LABEL - 8, y + 11, row.name, anchor="end")
    yield f'<rect x="{start:.1f}" y="{y}" width="{end - start:.1f}" height="{_BAR}" fill="{fill}"/>'
    yield _line(x(min(row.rounds)), middle, x(max(row.rounds)), middle, "#222")
    if (bound := row.at_least if row.target is None else row.target) is not None:
        at = x(bound)
        yield _line(at, y - 3, at, y + _BAR + 3, "#c0392b")
    label = max(end, x(max(row.rounds))) + 6
    yield _text(label, y + 11, _number(row.median))


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{stroke}" stroke-width="1.5"/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "", fill: str = "#111"
) -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{bold}>'
        f"{escape(text)}</text>"
    )


def main() -> None:
    """Draw all reports, or look at them."""
    reports = [read(path) for path in sorted(RESULTS.glob("*.json")) if path.stem != "faults"]
    if "--check" in sys.argv:
        stale = [report.name for report in reports if not report.is_drawn()]
        sys.exit(f"Run python benchmarks/report.py: {', '.join(stale)}" if stale else 0)
    for report in reports:
        report.draw()


if __name__ == "__main__":
    main()
