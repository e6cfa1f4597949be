"""Standard input: hidden lines, refused files, other people's flags

`sys.stdin.readline` takes all that is there and returns one line. The rest is in Python's buffer,
where the selector cannot see it. A person who types line by line never notices. epoll also refuses
a regular file, which shows with `< script`.

So a program reads the descriptor itself, and sets O_NONBLOCK. But that flag belongs to the open
file, which the program shares with its shell and with everyone else in that terminal. They get
EAGAIN from then on, even after the program has ended. Without the flag, a read waits for ever if
what was ready has gone meanwhile. Ctrl-C makes a terminal throw away what was typed.

What you see: a pasted script stops half-way, `PermissionError` from `register`, or a broken shell
afterwards. What a bystander sees: nothing; the next program in that terminal does.
"""

import os
import select
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest import mock

from house import Selector

from kv.net.reactor import READ, Reactor
from kv.net.stdio import Input, opened_anew

from .moments import never
from .pitfall import Failure, Pitfall

LINES = b"one\ntwo\nthree\n"


@contextmanager
def reading(descriptor: int, selector: Selector) -> Iterator[tuple[Input, Reactor]]:
    """A loop that reads lines from `descriptor`."""
    with closing(Reactor(selector)) as reactor:
        read = Input(reactor, descriptor, 1000, lambda: None)
        try:
            read.read_on(True)
            yield read, reactor
        finally:
            read.read_on(False)
            if read._descriptor != descriptor:
                os.close(read._descriptor)


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Descriptors of a terminal's two sides: its keys, and what programs read."""
    keys, typed = os.openpty()
    try:
        yield keys, typed
    finally:
        os.close(keys)
        os.close(typed)


def fill(self: Input) -> None:
    """What is usually written."""
    line = sys.stdin.buffer.readline()
    self._buffer += line
    self.ended = not line


class TestHidden(Pitfall):
    """Three lines arrive at once; the other end stays open."""

    usually = "lines wait in a buffer that the selector does not see"
    wrong = never("^stdin line", times=3)
    handled = Input._fill
    naive = {"kv.net.stdio.Input._fill": fill}

    def scenario(self) -> str:
        source, sink = os.pipe()
        with (
            open(source) as stdin,
            open(sink, "wb"),
            mock.patch("sys.stdin", stdin),
            reading(source, Selector()) as (read, reactor),
        ):
            os.write(sink, LINES)
            for _ in range(10):
                reactor.turn()
            lines = len(list(iter(read.take, None)))
            if lines < 3:
                raise Failure(f"{lines} of 3 lines in 10 turns of the loop")
            return "3 of 3 lines in 10 turns of the loop"


def read_on(self: Input, wanted: bool) -> None:
    """What is usually written."""
    self._registration.set(READ if wanted and not self.ended else 0)


class TestRegularFile(Pitfall):
    """The input is a file of three lines."""

    usually = "a script that comes with `< script` gets a traceback"
    unseen = "it ends before the loop turns"
    handled = Input.read_on
    naive = {"kv.net.stdio.Input.read_on": read_on}

    def scenario(self) -> str:
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(LINES)
            file.seek(0)
            try:
                with reading(file.fileno(), Selector()) as (read, reactor):
                    while not read.ended:
                        reactor.turn()
            except PermissionError as error:
                raise Failure(repr(error)) from error
            return f"{len(list(iter(read.take, None)))} of 3 lines in {reactor.turns} turns"


def set_non_blocking(descriptor: int, _access: int) -> int:
    """What is usually written."""
    os.set_blocking(descriptor, False)
    return descriptor


class TestFlag(Pitfall):
    """A terminal is read from, and the shell that shares it reads on afterwards."""

    usually = "the shell's terminal does not block any more, either"
    unseen = "it is about the flags of a terminal"
    handled = opened_anew
    naive = {"kv.net.stdio.opened_anew": set_non_blocking}

    def scenario(self) -> str:
        with terminal() as (_keys, typed), open(os.dup(typed), "rb", buffering=0) as shells:
            with reading(typed, Selector()) as (read, _reactor):
                ours = os.get_blocking(read._descriptor)
            try:
                if not os.get_blocking(shells.fileno()):
                    os.read(shells.fileno(), 1)
            except BlockingIOError as error:
                raise Failure(f"the shell's read fails: {error.strerror}") from error
            return f"the shell's read waits, ours does{' too' if ours else ' not'}"


class CtrlC(Selector):
    """As soon as something is ready, somebody presses Ctrl-C."""

    terminal = (-1, -1)
    pressed = False

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(timeout)
        if ready and not self.pressed:
            self.pressed = True
            keys, typed = self.terminal
            os.write(keys, b"\x03")
            while select.select([typed], [], [], 0)[0]:
                pass  # the kernel passes keys on in its own time
        return ready


def as_it_is(descriptor: int, _access: int) -> int:
    """What is usually written."""
    return descriptor


class TestFlushed(Pitfall):
    """Ctrl-C throws a typed line away after the selector has seen it; then another is typed."""

    usually = "a read of what was ready waits for the next line, and the loop with it"
    wrong = never("^stdin line")
    handled = opened_anew
    naive = {"kv.net.stdio.opened_anew": as_it_is}
    patience = 0.3

    def scenario(self) -> str:
        selector = CtrlC()
        with terminal() as (keys, typed), reading(typed, selector) as (read, reactor):
            selector.terminal = (keys, typed)
            os.write(keys, b"thrown away\n")
            while not selector.pressed:
                reactor.turn()
            os.write(keys, b"next\n")
            while not (line := read.take()):
                reactor.turn()
            return f"the read is told to come again, and the loop goes on to read {line!r}"
