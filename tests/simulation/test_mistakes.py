"""The simulator bites: six classic mistakes, put back one at a time, and each is caught.

Each mistake is the code that is in a thousand programs. What is asserted is only that some seed
among a few hundred fails with it and not without it; which seed, and of which invariant, is
printed (`pytest -s`).
"""

import dataclasses
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest

import kv.server
from kv.net.listener import Listener
from kv.net.reactor import Reactor
from kv.net.stream import Limits, Owner, Stream

from .kernel import Failure
from .world import run

#: A mistake that so many seeds do not find is not found.
SEEDS = 300


def ignore_a_short_send() -> AbstractContextManager[object]:
    """`send` returns how much it took; here whoever called it takes no notice."""
    send = Stream._send

    def hopeful(self: Stream) -> None:
        send(self)
        self._unsent, self._full = b"", False

    return mock.patch.object(Stream, "_send", hopeful)


def leave_lines_that_were_read() -> AbstractContextManager[object]:
    """What is left over after a quantum is not scheduled: no readiness event will tell of it."""
    return mock.patch.object(Stream, "_await_turn", lambda _: None)


def keep_the_id_on_reset() -> AbstractContextManager[object]:
    """Only a client that says DISCONNECT gives back its id; one that is reset does not."""
    closed = kv.server.Connection.closed

    def forgetful(self: kv.server.Connection, error: Exception | None, ours: bool) -> None:
        if isinstance(error, ConnectionResetError):
            self._deadline.cancel()
            self._server.forget(self)
        else:
            closed(self, error, ours)

    return mock.patch.object(kv.server.Connection, "closed", forgetful)


def spin_when_out_of_descriptors() -> AbstractContextManager[object]:
    """The error of `accept` is swallowed, and the listener is still readable."""
    return mock.patch.object(Listener, "_back_off", lambda *_: None)


def write_without_bound() -> AbstractContextManager[object]:
    """The peer is read from, however much it is owed."""
    init = Stream.__init__

    def generous(
        self: Stream,
        reactor: Reactor,
        sock: socket.socket,
        owner: Owner,
        limits: Limits,
        *rest: Any,
    ) -> None:
        limits = dataclasses.replace(limits, high_water=1_000_000_000)
        init(self, reactor, sock, owner, limits, *rest)

    return mock.patch.object(Stream, "__init__", generous)


def extend_the_handshake_on_octets() -> AbstractContextManager[object]:
    """A client that says one octet a second is alive, is it not?"""
    read = Stream._read

    def kind(self: Stream) -> None:
        received = self.received
        read(self)
        if self.received > received:
            self._owner._deadline.postpone(self._owner._server.settings.handshake_timeout)

    return mock.patch.object(Stream, "_read", kind)


MISTAKES = (
    ignore_a_short_send,
    leave_lines_that_were_read,
    keep_the_id_on_reset,
    spin_when_out_of_descriptors,
    write_without_bound,
    extend_the_handshake_on_octets,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_classic_mistake_is_caught(mistake: Callable[[], AbstractContextManager[object]]) -> None:
    with mistake():
        seed, failure = first_failure()
    print(f"\n{mistake.__name__}: caught after {seed + 1} seeds: {failure}")
    run(seed)  # it was the mistake: without it, all is well


def first_failure() -> tuple[int, Failure]:
    """The first seed that fails, and of what."""
    for seed in range(SEEDS):
        try:
            run(seed)
        except Failure as failure:
            return seed, failure
    pytest.fail(f"{SEEDS} seeds did not find it")
