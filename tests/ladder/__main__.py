"""Prints the grid, one step of it, or how a program of your own does: `make ladder`."""

import argparse
import difflib
import shlex
import sys
import textwrap
from collections.abc import Iterator

from tests.program import run

from .grid import LEGEND, STEPS, WIDTH, Cell, expected, tried_by_all
from .server import ROOT
from .troupe import Peer

COLUMN = 8  # of the grid
GREEN, RED, PLAIN = ("\x1b[32m", "\x1b[31m", "\x1b[m") if sys.stdout.isatty() else ("",) * 3


def coloured(word: str) -> str:
    """A cell of the grid."""
    return f"{GREEN if word == 'ok' else RED}{word:{COLUMN}}{PLAIN}"


def whole() -> int:
    """Prints the grid; 1 if a cell is not what it should be."""
    wrong = []
    print(" " * WIDTH + "".join(f"{step.number:<{COLUMN}}" for step in STEPS).rstrip())
    for peer, row in tried_by_all([step.program for step in STEPS]):
        shown = "".join(coloured(cell.word) for cell in row).rstrip()
        print(f"{peer.name:{WIDTH}}{shown}", flush=True)
        wrong += [
            f"step {step.number}, {peer.name}: {cell.word}: {cell.told}"
            for step, cell in zip(STEPS, row, strict=True)
            if cell.word != expected(step)[peer.name]
        ]
    print()
    for step in STEPS:
        print(f"{step.number}  {step.name:16}{step.length:4} lines")
    print("(lines of code; imports are not counted)\n")
    for word, meaning in LEGEND.items():
        print(f"{word:{COLUMN}}{meaning}")
    print("\nmake ladder STEP=4 shows one step, and what happens to each peer")
    for line in wrong:
        print(f"not what it should be: {line}", file=sys.stderr)
    return bool(wrong)


def outcomes(rows: list[tuple[Peer, Cell]]) -> Iterator[str]:
    """What became of each peer, and where to read more about it."""
    for peer, cell in rows:
        yield f"{coloured(cell.word)}{peer.name}: {cell.told}"
        if cell.word != "ok":
            yield from textwrap.wrap(
                peer.does, 91, initial_indent="        ", subsequent_indent=" " * 8
            )
            for number, title in peer.titles:
                yield f"        pitfall {number}: {title}"


def told(number: int) -> int:
    """Prints one step: its code, what it adds to the last, and whom it survives."""
    step = STEPS[number - 1]
    code = step.path.read_text()
    path = step.path.relative_to(ROOT)
    print(*textwrap.wrap(f"Step {number}. {step.sentences}", 100), f"\n{path}:\n\n{code}", sep="\n")
    before: dict[str, str] = {}
    if number > 1:
        last = STEPS[number - 2]
        before = expected(last)
        print(f"What it adds to step {number - 1}:\n")
        lines = (last.path.read_text().splitlines(), code.splitlines())
        print(*list(difflib.unified_diff(*lines, lineterm="", n=1))[2:], sep="\n", end="\n\n")
    rows = [(peer, row[0]) for peer, row in tried_by_all([step.program])]
    new = [row for row in rows if row[1].word == "ok" and before.get(row[0].name) != "ok"]
    old = [row for row in rows if row[1].word == "ok" and before.get(row[0].name) == "ok"]
    not_yet = [row for row in rows if row[1].word != "ok"]
    for title, some in (
        ("It survives" if number == 1 else "It now survives", new),
        ("As the last one, it survives", old),
        ("It does not survive", not_yet),
    ):
        if some:
            print(f"{title}:\n", *outcomes(some), sep="\n", end="\n\n")
    print(f"To run it yourself: .venv/bin/python -m {step.module} 4242, and nc 127.0.0.1 4242")
    return 0


def try_out(name: str) -> int:
    """Prints what becomes of a program that is no step; 1 if it does not survive everybody."""
    failed = False
    for peer, (cell,) in tried_by_all([(shlex.quote(name), {})]):
        print(*outcomes([(peer, cell)]), sep="\n", flush=True)
        failed = failed or cell.word != "ok"
    return int(failed)


def main() -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="make ladder", description=__doc__)
    parser.add_argument(
        "--step", type=int, choices=range(1, len(STEPS) + 1), help="the step to show in full"
    )
    parser.add_argument(
        "--try",
        dest="name",
        metavar="FILE",
        help="a program of your own, which every peer tries; its arguments are a port, 0, and"
        " perhaps seconds for a silent client; it prints a line that ends with its real port",
    )
    options = parser.parse_args()
    if options.name:
        return try_out(options.name)
    return told(options.step) if options.step else whole()


if __name__ == "__main__":
    run(main)
