"""How long the tests wait for what has to come. All is well if nobody ever waits that long.

What is broken need not be waited for by every test that uses it: the first wait that is in vain
makes all later ones of its run short. PATIENCE in the environment is another bound, in seconds, for
a machine that is slow.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SHORT = 2.0


def patience(times: float = 1) -> float:
    """Seconds until a wait gives up, or `times` as many, for what takes longer than most."""
    return times * float(os.environ.get("PATIENCE", "20"))


def lose_patience() -> None:
    """From now on, waits are short."""
    os.environ["PATIENCE"] = str(min(SHORT, patience()))


@contextlib.contextmanager
def bounded(
    seconds: float, interrupt: Callable[[int, FrameType | None], NoReturn]
) -> Iterator[None]:
    """Interrupts code that hangs, also in a system call that blocks.

    `interrupt` is a signal handler that raises. A bound may stand inside another.
    """
    before = signal.signal(signal.SIGALRM, interrupt)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)
