"""Write the table of the README from what `throughput.py` has found.

`python benchmarks/readme.py` writes it; with --check it changes nothing, and fails where the README
says something else.
"""

import sys
from pathlib import Path

from report import RESULTS, Report, read

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- made by benchmarks/readme.py -->\n", "<!-- end -->\n"


def main() -> None:
    """Write the table, or look at it."""
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = before + BEGIN + _table(read(RESULTS / "throughput.json")) + END + after
    if "--check" not in sys.argv:
        README.write_text(wanted)
    elif text != wanted:
        sys.exit("Run python benchmarks/readme.py: the README's figures are not the measured ones")


def _table(report: Report) -> str:
    works = [table for table in report.tables if table.unit == "requests/s"]
    names = [row.name for row in works[0].rows]
    head = ["requests/s", *(work.title for work in works)]
    lines = [_line(head), _line(["---", *("--:" for _ in works)])]
    for name in names:
        medians = [row.median for work in works for row in work.rows if row.name == name]
        lines.append(_line([name, *(f"{median:,.0f}" for median in medians)]))
    return "".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    main()
