"""What the suite has found: a table in benchmarks/results, which docs/faults.md includes."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.figure import Figure, Measure

ROOT = Path(__file__).parents[2]
JSON = ROOT / "benchmarks" / "results" / "faults.json"
TABLE = JSON.with_suffix(".md")
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- made by scripts/faults -->\n", "<!-- end -->\n"


def write(figures: Iterable[Figure]) -> None:
    """Write what was found; figures that were not measured now stay what they were."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg()[:2])
    machine = f"{os.cpu_count()} processors, load {load}, Python {platform.python_version()}"
    found = {figure.number: {**asdict(figure), "machine": machine} for figure in figures}
    kept = {one["number"]: one for one in json.loads(JSON.read_text())} if JSON.exists() else {}
    merged = [figure for _, figure in sorted({**kept, **found}.items())]
    JSON.write_text(json.dumps(merged, indent=1) + "\n")
    draw()


def draw() -> None:
    """Write the table, and put it into the page."""
    TABLE.write_text(drawn())
    PAGE.write_text(included(PAGE.read_text()))


def is_drawn() -> bool:
    """Say whether both are what `draw` would write."""
    return TABLE.read_text() == drawn() and PAGE.read_text() == included(PAGE.read_text())


def drawn() -> str:
    """Return the table of what stands in the JSON."""
    return table([_figure(one) for one in json.loads(JSON.read_text())])


def included(page: str) -> str:
    """Return the page with the table in it."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}{drawn()}{END}{rest.partition(END)[2]}"


def table(figures: Sequence[Figure]) -> str:
    """Return the figures for people."""
    lines = ["| | | measured | bound | |", "| --: | --- | --: | --- | --- |"]
    for figure in figures:
        verdict = "kept" if figure.holds else "**missed**"
        lines.append(f"| {figure.number} | **{figure.claim}** | | | {verdict} |")
        lines += [_line(measure) for measure in figure.measures]
    return "\n".join(lines) + "\n"


def _line(measure: Measure) -> str:
    value = f"{measure.value:,.0f}" if measure.value == round(measure.value) else ""
    value = f"{value or format(measure.value, '.3g')} {measure.unit}".strip()
    return f"| | {measure.what} | {value} | {measure.bound} | {'' if measure.holds else 'missed'} |"


def _figure(found: dict[str, Any]) -> Figure:
    measures = [Measure(**measure) for measure in found["measures"]]
    return Figure(found["number"], found["claim"], measures)
