"""How the programs in tests/ end: by themselves, by Ctrl-C, or when nobody reads them any more."""

import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int]) -> NoReturn:
    """Runs `main` and exits with the status that it returns, with 130 after Ctrl-C.

    In `make pitfalls | head`, `head` leaves when it has had enough, and the next write fails with
    EPIPE. That is how a pipeline ends, and no error (32). The exit status is 0, because make
    complains about any other. What is still in the buffer goes nowhere: the interpreter would try
    to write it when it exits, and complain.
    """
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        if not nobody_reads(sys.stdout.fileno()):
            raise  # it is from a socket
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def nobody_reads(descriptor: int) -> bool:
    """Whether the other end of a pipe or socket is gone."""
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLERR and POLLHUP are reported unasked
    return bool(poll.poll(0))
