"""The command: `python -m tests.simulation`, or `make simulate`.

    python -m tests.simulation --seeds 1000           # seeds 0 to 999
    python -m tests.simulation --seeds 1000 --start 5000 --jobs 2
    python -m tests.simulation --seed 42              # one of them, and what happens in it
    python -m tests.simulation --service --seeds 1000 # several servers that share a registry

Exit status: 0 if all went well, 1 at the first failure, with the command that replays it.
"""

import argparse
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tests.program import run as program

from . import service
from .kernel import Failure
from .show import show
from .wishes import Wish, parse
from .world import Result, run

#: Seeds that one job is given at a time.
PORTION = 50


def outcome(seed: int, world: Callable[[int], Any] = run) -> Any:
    """The result of a seed: its figures, or what went wrong."""
    try:
        return world(seed)
    except (Exception, Failure) as error:
        lines = traceback.format_exception_only(error)
        if not isinstance(error, Failure):
            lines = traceback.format_exception(error)
        return "".join(lines).strip()


def outcomes(seeds: range, jobs: int, world: Callable[[int], Any]) -> Iterator[Any]:
    """The outcomes in the order of the seeds, whatever the number of processes."""
    one = partial(outcome, world=world)
    if jobs == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(one, seeds, chunksize=PORTION)
        finally:
            pool.shutdown(cancel_futures=True)


def replay(seed: int, wishes: list[Wish]) -> int:
    """Runs one seed, with the added events, and prints its trace."""
    trace: list[str] = []
    try:
        result = run(seed, trace, lambda world: [wish.begin(world) for wish in wishes])
    except (Exception, Failure):
        print(*trace, sep="\n", flush=True)
        traceback.print_exc()
        return 1
    print(*trace, sep="\n")
    print(summary([result]))
    return 0


def summary(results: Iterable[Result], seconds: float = float("inf")) -> str:
    """One line of figures about `results`, which took `seconds` of real time."""
    results = list(results)
    turns = sum(result.turns for result in results)
    rate = ""
    if seconds < float("inf"):
        rate = f", {len(results) / seconds:.0f} seeds/s, {turns / seconds:.0f} steps/s"
    return (
        f"{len(results)} seeds, {sum(result.seconds for result in results) / 3600:.2f} simulated"
        f" hours, {turns} steps{rate};"
        f" {sum(result.messages for result in results)} messages,"
        f" {sum(result.clients for result in results)} clients, of which"
        f" {sum(result.undisturbed for result in results)} were not disturbed"
    )


def told(results: list[service.Result], seconds: float) -> str:
    """The same of worlds with several servers."""
    return (
        f"{len(results)} seeds, {len(results) / seconds:.0f} seeds/s;"
        f" {sum(result.sessions for result in results)} sessions in services of several servers,"
        f" {sum(result.messages for result in results)} messages,"
        f" {sum(result.refused for result in results)} refused,"
        f" {sum(result.lost for result in results)} lost with a lease"
    )


def main() -> int:
    """Parses the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Runs the real server in simulated worlds. Exit status: 0 all went well; 1 an"
        " invariant did not hold.",
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many (%(default)s)")
    parser.add_argument("--start", type=int, default=0, help="the first (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--seed", type=int, help="run only this one, and print what happens")
    parser.add_argument(
        "--service", action="store_true", help="several servers that share a registry"
    )
    parser.add_argument("--with", dest="wishes", default="", help="events to add")
    parser.add_argument("--replay", type=Path, help="file for a page that shows it step by step")
    options = parser.parse_args()
    world: Callable[[int], Any] = service.run if options.service else run
    if options.service and (options.wishes or options.replay is not None):
        parser.error("--service has no --with and no --replay")
    if options.service and options.seed is not None:
        options.start, options.seeds, options.seed = options.seed, 1, None
    if options.service:
        logging.getLogger("kv").setLevel(logging.CRITICAL)
    if options.seed is not None:
        try:
            wishes = parse(options.wishes)
            if options.replay is None:
                return replay(options.seed, wishes)
            title = f"seed {options.seed}" + (f" with {options.wishes}" if wishes else "")
            text, wrong = show(options.seed, wishes, title)
        except ValueError as error:
            parser.error(str(error))
        options.replay.write_text(text, encoding="utf-8")
        print(wrong or f"{options.replay} shows {title}")
        return bool(wrong)
    if options.wishes or options.replay is not None:
        parser.error("which history? Name it with --seed")
    seeds = range(options.start, options.start + options.seeds)
    began = time.monotonic()
    results = []
    for seed, result in zip(seeds, outcomes(seeds, options.jobs, world), strict=True):
        if isinstance(result, str):
            more = " ARGS=--service" if options.service else ""
            print(f"seed {seed}: {result}\nto replay it: make simulate SEED={seed}{more}")
            return 1
        results.append(result)
    print((told if options.service else summary)(results, time.monotonic() - began))
    return 0


if __name__ == "__main__":
    program(main)
