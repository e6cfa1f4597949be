"""Signals: what a process inherits from its parent

A new program starts with the signals of its parent. A blocked one stays blocked, and an ignored one
ignored: only handlers are taken away by `exec`. Some supervisors and thread pools block signals and
forget that. Then SIGTERM waits for ever, and only SIGKILL ends the server. The other way round,
`nohup` has SIGHUP ignored, and a shell without job control has SIGINT ignored for what it starts
with `&`. The usual `signal.signal(SIGINT, stop)` undoes that, and a Ctrl-C for another program ends
the server, too.

And SIGHUP, which comes when the terminal goes, ends a process at once if nobody handles it.

What you see: `kill` does nothing; or a background server ends at a Ctrl-C or a closed terminal,
with its clients cut off. What a bystander sees: that its connection is cut off, or that the server
is still there after it was told to end.
"""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from signal import SIG_IGN, SIGHUP, SIGINT, SIGTERM, SIGUSR1, getsignal, pthread_sigmask
from typing import Any
from unittest import mock

from house import SERVER_KEY

from kv.net.reactor import Reactor
from kv.process import ENDING, serve, take_signals
from kv.protocol.messages import Wire
from kv.protocol.store import Store
from kv.server import Server, Settings

from .moments import never
from .pitfall import Failure, Pitfall

#: What comes, in this order, as soon as the loop runs.
COMING: list[int] = []


class Signalled(Server):
    """Each of `COMING` comes in a turn of its own."""

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        for number, coming in enumerate(COMING):
            self.reactor.call_later(
                0.01 * number, lambda coming=coming: signal.raise_signal(coming)
            )


@contextlib.contextmanager
def inherited(blocked: set[int], ignored: set[int], coming: list[int]) -> Iterator[None]:
    """This process is as if it had been started so."""
    handlers = {number: getsignal(number) for number in (SIGHUP, SIGINT, SIGTERM, SIGUSR1)}
    mask = pthread_sigmask(signal.SIG_BLOCK, blocked)
    for number in ignored:
        signal.signal(number, SIG_IGN)
    COMING[:] = coming
    try:
        yield
    finally:
        for number in blocked:  # what has not come yet is forgotten
            signal.signal(number, SIG_IGN)
        pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def ended_by() -> str:
    """Serves until a signal comes; the name of that signal."""
    said: list[str] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        mock.patch("kv.process.listen", lambda *_: [listener]),
        mock.patch("kv.process.PrivateKey.generate", lambda _: SERVER_KEY),
        mock.patch("kv.process.Server", Signalled),
        mock.patch("kv.process.log.info", lambda text, *rest: said.append(text % rest)),
    ):
        serve("", 0, Wire(), Settings(), Store(1 << 20), 5)
    return next(text.split()[0] for text in said if text.endswith("received"))


def as_they_are(reactor: Reactor, stop: Callable[[int], Any], tell: Callable[[], Any]) -> None:
    for number in ENDING:
        if getsignal(number) is not SIG_IGN:
            reactor.on_signal(number, partial(stop, number))
    reactor.on_signal(SIGUSR1, tell)


class TestBlocked(Pitfall):
    """The parent of the server has SIGTERM blocked; then SIGTERM comes."""

    usually = "nothing but SIGKILL ends it"
    wrong = "^loop sleep until somebody comes; ready: nobody"
    handled = take_signals
    naive = {"kv.process.take_signals": as_they_are}
    patience = 0.5

    def scenario(self) -> str:
        with inherited({SIGTERM}, set(), [SIGTERM]):
            return f"{ended_by()} ends it"


def all_of_them(reactor: Reactor, stop: Callable[[int], Any], tell: Callable[[], Any]) -> None:
    for number in ENDING:
        reactor.on_signal(number, partial(stop, number))
    reactor.on_signal(SIGUSR1, tell)
    pthread_sigmask(signal.SIG_UNBLOCK, {*ENDING, SIGUSR1})


class TestIgnored(Pitfall):
    """The parent of the server has SIGINT ignored; then SIGINT comes, and after it SIGTERM."""

    usually = "a Ctrl-C for another program ends it"
    wrong = never("timer lambda", times=2)
    handled = take_signals
    naive = {"kv.process.take_signals": all_of_them}

    def scenario(self) -> str:
        with inherited(set(), {SIGINT}, [SIGINT, SIGTERM]):
            by = ended_by()
        if by != "SIGTERM":
            raise Failure(f"{by} ends it")
        return f"{by} ends it"


def at_once(*_: object) -> None:
    """Stands in for the end of this process."""
    raise Failure("SIGHUP would end the process in the middle of everything")


class TestHangUp(Pitfall):
    """The terminal is closed: SIGHUP comes."""

    usually = "the process ends without a word, and its clients are cut off"
    wrong = never("^listener asks for nothing")
    handled = "kv.process.ENDING"
    naive = {"kv.process.ENDING": (SIGINT, SIGTERM)}

    def scenario(self) -> str:
        with inherited(set(), set(), [SIGHUP]):
            signal.signal(SIGHUP, at_once)
            return f"{ended_by()} ends it, politely"
