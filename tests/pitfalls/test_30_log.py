"""The log goes to a pipe that is full, or to a peer

Standard error may be a pipe, which holds 64 KiB on Linux. When its reader
pauses (`2>&1 | less`), the write that finds it full waits. The whole loop waits with it, until a
person presses a key. Developers watch their logs, so theirs never fills.

Standard error may also be closed: programs that put themselves into the background used to do that.
The next descriptor gets the lowest free number, which is then 2, and may be a connection. What the
usual handler logs is then sent to a stranger.

What you see: the server stands still until somebody scrolls, or a client receives log lines. What
a bystander sees: no reply, or a line of log in the middle of its replies.
"""

import contextlib
import logging
import os
from collections.abc import Iterator

from house import Guest, house

from kv.net import stdio
from kv.net.log import LogHandler
from kv.net.stdio import open_missing

from .moments import never
from .pitfall import Failure, Pitfall


@contextlib.contextmanager
def logging_to(descriptor: int) -> Iterator[None]:
    """The server logs there, as `python -m kv server` does to 2."""
    log, handler = logging.getLogger("kv"), LogHandler(descriptor)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(logging.NOTSET)
        log.removeHandler(handler)


def emit(self: LogHandler, record: logging.LogRecord) -> None:
    """What `logging.StreamHandler` does."""
    os.write(self._descriptor, (self.format(record) + "\n").encode())


class TestFull(Pitfall):
    """The log is a full pipe that nobody reads; one client breaks the protocol, another asks."""

    usually = "the whole server waits for the reader of the log"
    wrong = never("^#1 message GET")
    handled = LogHandler.emit
    naive = {"kv.net.log.LogHandler.emit": emit}
    patience = 0.3

    def scenario(self) -> str:
        source, sink = os.pipe()
        with open(source, "rb"), open(sink, "wb"), house() as h:
            os.set_blocking(sink, False)
            with contextlib.suppress(BlockingIOError):
                while os.write(sink, b"." * 4096):
                    pass
            os.set_blocking(sink, True)
            good, bad = h.guest().connect(), h.guest()
            with logging_to(sink):
                bad.send_raw(b"nonsense\n")
                assert h.server.drops["violation"] == 1
                replies = good.ask("GET k")
            return f"one is dropped, the other has its reply: {replies[0]}"


def open_missing_naively() -> None:
    """What is usually written: nothing."""


class TestClosed(Pitfall):
    """Standard error is closed when a client connects, and breaks the protocol."""

    usually = "the log goes to the connection that has descriptor 2"
    unseen = "it is about which descriptor the log goes to"
    handled = open_missing
    naive = {"kv.net.stdio.open_missing": open_missing_naively}

    def scenario(self) -> str:
        kept = os.dup(2)
        try:
            with house() as h:
                h.guests.append(guest := Guest(h))  # connected; not accepted yet
                os.close(2)
                stdio.open_missing()
                with logging_to(2):
                    guest.send_raw(b"nonsense\n")
                assert guest.ended
                if guest.received:
                    raise Failure(f"the client receives {bytes(guest.received[24:])!r}")
                return "the client receives nothing but the end"
        finally:
            os.dup2(kept, 2)
            os.close(kept)
