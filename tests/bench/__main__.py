"""The command line: measures everything, says how far it is, and prints the table."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict

from tests.program import run as program

from . import several
from .caller import Use, use
from .crowd import Crowd, gather
from .growth import Cost, grow
from .plain import compare, report
from .report import document, table
from .rows import FULL, QUICK, Prepared, Result, Row, Scale, Side, measure, rows
from .servers import OURS, UVLOOP, Process, names
from .tls import Inside, look_inside


class Progress:
    """Says on standard error what is being done, with a dot for each step of it."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def begin(self, what: str) -> None:
        """The next thing."""
        seconds = time.perf_counter() - self._start
        print(f"{seconds:6.1f} s  {what} ", end="", file=sys.stderr, flush=True)

    def step(self) -> None:
        """A part of it is done."""
        print(".", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """All of it is done."""
        print(file=sys.stderr)


def run(
    scale: Scale, chosen: Callable[[Row], bool] = lambda _: True, crowd: bool = True
) -> tuple[list[Result], Crowd | None, list[Cost], list[Use], Inside]:
    """Measures the chosen rows, with every server that can run here."""
    progress = Progress()
    progress.begin("sealing lines")
    prepared = Prepared(scale)
    progress.end()
    results: list[Result] = []
    with ExitStack() as stack:
        progress.begin("starting servers")
        sides: dict[str, Side] = {}
        for name in names():
            server = stack.enter_context(Process(name))
            side = sides[name] = Side.of(server, prepared)
            stack.callback(side.close)
            progress.step()
        progress.end()
        for row in filter(chosen, rows(prepared)):
            progress.begin(row.title)
            results.append(measure(row, sides, scale, progress.step))
            progress.end()
        progress.begin("one caller")
        uses = use(sides[OURS].server.port, scale.rounds, scale.calls, progress.step)
        progress.end()
    inside = look_inside(prepared, progress.begin, progress.step, progress.end)
    progress.begin("longer texts, larger keys")
    costs = grow(scale.keys, scale.seconds / 3, progress.step)
    progress.end()
    found = None
    if crowd:
        progress.begin(f"{scale.sessions:,} sessions")
        found = gather(prepared, progress.step)
        progress.end()
    return results, found, costs, uses, inside


def main() -> int:
    """Parses the command line, measures, prints; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures the server next to the same protocol core behind asyncio, threads"
        " and, where it is installed, uvloop.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the servers would live on
    scale = QUICK if options.quick else FULL
    results, *others = run(scale)
    gains = compare(scale, lambda: None)
    together = several.measure(Prepared(scale), lambda: None)
    if options.quick:
        print("A quick run: good for seeing that it works, too short for good figures.\n")
    print(table(scale, results, *others))
    if gains:
        print(f"\n{report(gains)}")
    if together is not None:
        print(f"\n{several.report(together)}")
    else:
        print("\nSeveral servers were left out: redis-server or haproxy is not installed here.")
    if UVLOOP not in results[0].samples:
        print("\nuvloop is not installed here, and was left out.")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            found = document(results, *others)
            found["gains"] = [vars(gain) for gain in gains]
            found["several"] = asdict(together) if together is not None else None
            json.dump(found, file, indent=2)
    return 0


if __name__ == "__main__":
    program(main)
