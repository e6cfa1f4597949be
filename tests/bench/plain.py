"""The same with gmpy2 and without it, in one run. Nothing where gmpy2 is not installed.

What is compared is processor time: of the server for the rows, of the client for a script of
commands that are all new.
"""

import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from kv.protocol.cipher import ARITHMETIC

from .rows import Prepared, Scale, Side, measure, rows
from .servers import OURS, ROOT, Process, plainly

ASYNCIO = "asyncio.Protocol"
TITLES = {"GET cold, 16 in flight": ASYNCIO, "GET of values never asked for before": OURS}


@dataclass
class Gain:
    """How many times the rate without gmpy2 our rate is with it."""

    title: str
    rate: float  # per second of processor time, with gmpy2
    other: str  # what it is compared with
    times: float


def compare(scale: Scale, progress: Callable[[], None]) -> list[Gain]:
    """Measures the rows above, and the client; an empty list without gmpy2."""
    if not ARITHMETIC.startswith("gmpy2"):
        return []
    prepared = Prepared(scale)
    gains = []
    with ExitStack() as stack:
        server = stack.enter_context(Process(OURS))
        ours = Side.of(server, prepared)
        stack.callback(ours.close)
        for row in rows(prepared):
            if row.title not in TITLES:
                continue
            name = TITLES[row.title]
            with Process(name, plain=True) as plain:
                other = Side.of(plain, prepared)
                result = measure(row, {"with": ours, "without": other}, scale, progress)
                other.close()
            times = result.ratio("with", "without", "cpu_rate")
            gains.append(Gain(row.title, result.median("with", "cpu_rate"), name, times))
        fast, slow = (
            script(server.port, scale.puts // 2, plain, progress) for plain in (False, True)
        )
        gains.append(Gain("a script of new commands", 1 / fast, "the client", slow / fast))
    return gains


def script(port: int, count: int, plain: bool, progress: Callable[[], None]) -> float:
    """Seconds of the client's processor time for each command, its start not counted."""
    lines = "".join(f"PUT key {i}\nvalue {i}\n" for i in range(count))
    start, whole = [], []
    for _ in range(3):
        start.append(client(port, plain, ""))
        whole.append(client(port, plain, lines))
        progress()
    # A difference of two figures is worth no more than the worse of them. What disturbs a process
    # only ever makes it take longer, so the least of each is the best.
    return (min(whole) - min(start)) / count


def client(port: int, plain: bool, text: str) -> float:
    """Seconds of processor time that a client takes for a script."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = plainly(["kv", "client", "--port", str(port)], plain)
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, input=text, text=True, capture_output=True
    ).check_returncode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(gains: list[Gain]) -> str:
    """As text."""
    lines = (
        f"  {gain.title:36}{gain.rate:8,.0f} per CPU s,"
        f" x{gain.times:.1f} of {gain.other} without gmpy2"
        for gain in gains
    )
    return "\n".join([f"with {ARITHMETIC}", *lines])
