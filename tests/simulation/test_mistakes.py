"""The simulator bites: mistakes are put back one at a time, and each is caught.

Some are the code that is in a thousand programs, some were this project's own. What is asserted is
only that some seed among a thousand fails with it and not without it; which seed, and of which
invariant, is printed (`pytest -s`).
"""

import dataclasses
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest

import kv.connection
import kv.net.lifecycle
from kv.net import directions
from kv.net.directions import PEER
from kv.net.listener import Listener
from kv.net.owner import Limits, Owner, Told
from kv.net.reactor import READ, Reactor, Registration
from kv.net.stream import Stream
from kv.net.timers import Callback
from kv.net.transport import Transport
from kv.net.turns import Turns

from .kernel import Failure
from .world import run

#: A mistake that so many seeds do not find is not found.
SEEDS = 1000


def ignore_a_short_send() -> AbstractContextManager[object]:
    """`send` returns how much it took; here whoever called it takes no notice."""
    send = Transport.send

    def hopeful(self: Transport) -> None:
        send(self)
        self.unsent, self.full = b"", False

    return mock.patch.object(Transport, "send", hopeful)


def leave_lines_that_were_read() -> AbstractContextManager[object]:
    """What is left over after a quantum is not scheduled: no readiness event will tell of it."""
    return mock.patch.object(Stream, "_await_turn", lambda _: None)


def keep_the_id_on_reset() -> AbstractContextManager[object]:
    """Only a client that says DISCONNECT gives back its id; one that is reset does not."""
    closed = kv.connection.Connection.closed

    def forgetful(self: kv.connection.Connection, error: Exception | None, ours: bool) -> None:
        if isinstance(error, ConnectionResetError):
            self._deadline.cancel()
            self._server.forget(self, False)
        else:
            closed(self, error, ours)

    return mock.patch.object(kv.connection.Connection, "closed", forgetful)


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
        received = self.transport.received
        read(self)
        if self.transport.received > received:
            self._owner._deadline.postpone(self._owner._server.settings.handshake_timeout)

    return mock.patch.object(Stream, "_read", kind)


def take_sent_for_delivered() -> AbstractContextManager[object]:
    """Our FIN is sent and the peer's has come: is it not over?"""
    over = directions.over
    return mock.patch.object(
        kv.net.lifecycle, "over", lambda *states, **_: over(*states[:2], False)
    )


def reset_whoever_is_left_at_the_end() -> AbstractContextManager[object]:
    """Time is up, so everything is aborted: what the kernel would still deliver is lost."""
    return mock.patch.object(Stream, "leave", Stream.abort)


def count_nobody_whose_connection_was_lost_meanwhile() -> AbstractContextManager[object]:
    """Only those who are left at the end of a stop have not got everything, have they?"""
    return mock.patch.object(Transport, "undelivered", property(lambda _: 0, lambda *_: None))


def stop_listening_at_once() -> AbstractContextManager[object]:
    """A stop closes the listeners first; who waits to be accepted is reset."""

    def finish(self: Listener, done: Callback) -> None:
        self.close()
        done()

    return mock.patch.object(Listener, "finish", finish)


def judge_a_stall_by_what_send_takes() -> AbstractContextManager[object]:
    """The kernel says nothing for long, although the peer takes some."""
    return mock.patch.object(Transport, "acknowledged", lambda self: self.sent)


def tell_of_the_drain_only_after_being_held_up() -> AbstractContextManager[object]:
    """There are two ways to nothing unsent, and this is the one that comes to mind."""
    account = Stream._account

    def one_way(self: Stream) -> None:
        if not self.unsent and not self.holds & PEER:
            self._turns.unsent -= self._backlog
            self._backlog = 0
        account(self)

    return mock.patch.object(Stream, "_account", one_way)


def let_an_owners_exception_end_the_loop() -> AbstractContextManager[object]:
    """Nobody expects one in `closed`, or in `drained`."""

    def failed(self: Stream, error: Exception) -> None:
        raise error

    return mock.patch.object(Stream, "_failed", failed)


def let_an_owners_exception_vanish() -> AbstractContextManager[object]:
    """The connection is closed, and nobody is told why."""

    def failed(self: Stream, error: Exception) -> None:
        self.abort(error)
        self._settle_soon()

    return mock.patch.object(Stream, "_failed", failed)


def blame_the_peer_for_every_oserror() -> AbstractContextManager[object]:
    """EMFILE in an import is no network's doing."""
    failed = Stream._failed

    def blaming(self: Stream, error: Exception) -> None:
        if isinstance(error, OSError):
            self.abort(error)
            self._told = Told.CLOSED
            self._owner.closed(error, ours=False)
        else:
            failed(self, error)

    return mock.patch.object(Stream, "_failed", blaming)


def read_signals_from_the_bell() -> AbstractContextManager[object]:
    """The octet is the signal's number; when there is no room for it, it is gone."""

    def rung(self: Reactor, receiver: socket.socket) -> None:
        for number in set(receiver.recv(65536)):
            if number:
                self._signals[number]()
        for _ in range(len(self._elsewhere)):
            self._elsewhere.popleft()()

    return mock.patch.object(Reactor, "_rung", rung)


def defer_a_call_from_another_thread_without_a_bell() -> AbstractContextManager[object]:
    """The loop sleeps on."""
    return mock.patch.object(Reactor, "call_soon_threadsafe", Reactor.call_soon)


def believe_in_an_interest_that_could_not_be_set() -> AbstractContextManager[object]:
    """`modify` fails, and what is registered no more is then unregistered: nothing is closed."""
    change = Registration.set

    def credulous(self: Registration, interest: int) -> None:
        before = self.interest
        try:
            change(self, interest)
        except OSError:
            self.interest = before
            raise

    return mock.patch.object(Registration, "set", credulous)


def ask_the_selector_once_only() -> AbstractContextManager[object]:
    """It had no room for the listener when somebody left: nobody is accepted any more."""

    def resume(self: Listener) -> None:
        self._paused = False
        if self._retry is None:
            self._registration.set(READ)

    return mock.patch.object(Listener, "resume", resume)


def bound_each_ones_work_and_not_the_total() -> AbstractContextManager[object]:
    """Each has its quantum, in every turn, however many there are."""

    def divide(self: Turns) -> None:
        self.share, self.reserved, self.left = self._quantum, -sys.maxsize, 1

    return mock.patch.multiple(Turns, _divide=divide, _begin=divide)  # type: ignore[return-value]


def serve_the_last_come_first() -> AbstractContextManager[object]:
    """A stack is a queue in which somebody waits for ever."""

    def wait(self: Turns, stream: Any) -> None:
        if not self._queue and not self._serving:
            self._reactor.call_soon(self._serve)
        self._queue.appendleft(stream)
        self._divide()

    return mock.patch.object(Turns, "wait", wait)


def bound_each_ones_replies_and_not_the_total() -> AbstractContextManager[object]:
    """A thousand peers that do not read have a thousand times as much as one."""
    return mock.patch.object(Turns, "room", sys.maxsize)


MISTAKES = (
    ignore_a_short_send,
    leave_lines_that_were_read,
    keep_the_id_on_reset,
    spin_when_out_of_descriptors,
    write_without_bound,
    extend_the_handshake_on_octets,
    take_sent_for_delivered,
    reset_whoever_is_left_at_the_end,
    count_nobody_whose_connection_was_lost_meanwhile,
    stop_listening_at_once,
    judge_a_stall_by_what_send_takes,
    tell_of_the_drain_only_after_being_held_up,
    let_an_owners_exception_end_the_loop,
    let_an_owners_exception_vanish,
    blame_the_peer_for_every_oserror,
    read_signals_from_the_bell,
    defer_a_call_from_another_thread_without_a_bell,
    believe_in_an_interest_that_could_not_be_set,
    ask_the_selector_once_only,
    bound_each_ones_work_and_not_the_total,
    serve_the_last_come_first,
    bound_each_ones_replies_and_not_the_total,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_classic_mistake_is_caught(mistake: Callable[[], AbstractContextManager[object]]) -> None:
    with mistake():
        seed, failure = first_failure()
    print(f"\n{mistake.__name__}: caught after {seed + 1} seeds: {failure}")
    run(seed)  # it was the mistake: without it, all is well


def first_failure() -> tuple[int, BaseException]:
    """The first seed that fails, and of what."""
    for seed in range(SEEDS):
        try:
            run(seed)
        except (Exception, Failure) as failure:
            return seed, failure
    pytest.fail(f"{SEEDS} seeds did not find it")
