"""The simulator bites: it finds classic mistakes.

Some are the code that is in a thousand programs, some were this project's own.
"""

import socket
import sys
from typing import Any
from unittest import mock

import pytest

import kv.net.lifecycle
from kv.connection import Connection
from kv.net.directions import PEER
from kv.net.listener import Listener
from kv.net.owner import Told
from kv.net.reactor import READ, Reactor, Registration
from kv.net.stream import Stream
from kv.net.timers import Callback
from kv.net.transport import Transport
from kv.net.turns import Turns

from .mistakes import Mistakes
from .world import run

MISTAKES = Mistakes(run)


@MISTAKES.instead_of(Transport, "send")
def ignore_a_short_send(send: Any, self: Transport) -> None:
    """`send` returns how much it took; here whoever called it takes no notice."""
    send(self)
    self.unsent, self.full = b"", False


@MISTAKES.instead_of(Stream, "_await_turn")
def leave_lines_that_were_read(*_: Any) -> None:
    """What is left over after a quantum is not scheduled: no readiness event will tell of it."""


@MISTAKES.instead_of(Connection, "closed")
def keep_the_id_on_reset(
    closed: Any, self: Connection, error: Exception | None, ours: bool
) -> None:
    """Only a client that says DISCONNECT gives back its id; one that is reset does not."""
    if isinstance(error, ConnectionResetError):
        self._deadline.cancel()
        self._server.forget(self, False)
    else:
        closed(self, error, ours)


@MISTAKES.instead_of(Listener, "_back_off")
def spin_when_out_of_descriptors(*_: Any) -> None:
    """The error of `accept` is swallowed, and the listener is still readable."""


@MISTAKES.instead_of(Stream, "_high_water")
def write_without_bound(*_: Any) -> int:
    """The peer is read from, however much it is owed."""
    return 1_000_000_000


@MISTAKES.instead_of(Stream, "_read")
def extend_the_handshake_on_octets(read: Any, self: Stream) -> None:
    """A client that says one octet a second is alive, is it not?"""
    received = self.transport.received
    read(self)
    if self.transport.received > received:
        self._owner._deadline.postpone(self._owner._server.settings.handshake_timeout)


@MISTAKES.instead_of(kv.net.lifecycle, "over")
def take_sent_for_delivered(over: Any, *states: Any, **_: Any) -> bool:
    """Our FIN is sent and the peer's has come: is it not over?"""
    return over(*states[:2], False)


@MISTAKES.instead_of(Stream, "leave")
def reset_whoever_is_left_at_the_end(_: Any, self: Stream, error: Exception | None) -> None:
    """Time is up, so everything is aborted: what the kernel would still deliver is lost."""
    self.abort(error)


# Only those who are left at the end of a stop have not got everything, have they?
MISTAKES["count_nobody_whose_connection_was_lost_meanwhile"] = mock.patch.object(
    Transport, "undelivered", property(lambda _: 0, lambda *_: None)
)


@MISTAKES.instead_of(Listener, "finish")
def stop_listening_at_once(_: Any, self: Listener, done: Callback) -> None:
    """A stop closes the listeners first; who waits to be accepted is reset."""
    self.close()
    done()


@MISTAKES.instead_of(Transport, "acknowledged")
def judge_a_stall_by_what_send_takes(_: Any, self: Transport) -> int:
    """The kernel says nothing for long, although the peer takes some."""
    return self.sent


@MISTAKES.instead_of(Stream, "_account")
def tell_of_the_drain_only_after_being_held_up(account: Any, self: Stream) -> None:
    """There are two ways to nothing unsent, and this is the one that comes to mind."""
    if not self.unsent and not self.holds & PEER:
        self._turns.unsent -= self._backlog
        self._backlog = 0
    account(self)


@MISTAKES.instead_of(Stream, "_failed")
def let_an_owners_exception_end_the_loop(_: Any, _self: Stream, error: Exception) -> None:
    """Nobody expects one in `closed`, or in `drained`."""
    raise error


@MISTAKES.instead_of(Stream, "_failed")
def let_an_owners_exception_vanish(_: Any, self: Stream, error: Exception) -> None:
    """The connection is closed, and nobody is told why."""
    self.abort(error)
    self._settle_soon()


@MISTAKES.instead_of(Stream, "_failed")
def blame_the_peer_for_every_oserror(failed: Any, self: Stream, error: Exception) -> None:
    """EMFILE in an import is no network's doing."""
    if isinstance(error, OSError):
        self.abort(error)
        self._told = Told.CLOSED
        self._owner.closed(error, ours=False)
    else:
        failed(self, error)


@MISTAKES.instead_of(Reactor, "_rung")
def read_signals_from_the_bell(_: Any, self: Reactor, receiver: socket.socket) -> None:
    """The octet is the signal's number; when there is no room for it, it is gone."""
    for number in set(receiver.recv(65536)):
        if number:
            self._signals[number]()
    for _call in range(len(self._elsewhere)):
        self._elsewhere.popleft()()


@MISTAKES.instead_of(Reactor, "call_soon_threadsafe")
def defer_a_call_from_another_thread_without_a_bell(
    _: Any, self: Reactor, callback: Callback
) -> None:
    """The loop sleeps on."""
    self.call_soon(callback)


@MISTAKES.instead_of(Registration, "set")
def believe_in_an_interest_that_could_not_be_set(
    change: Any, self: Registration, interest: int
) -> None:
    """`modify` fails, and what is registered no more is then unregistered: nothing is closed."""
    before = self.interest
    try:
        change(self, interest)
    except OSError:
        self.interest = before
        raise


@MISTAKES.instead_of(Listener, "resume")
def ask_the_selector_once_only(_: Any, self: Listener) -> None:
    """It had no room for the listener when somebody left: nobody is accepted any more."""
    self._paused = False
    if self._retry is None:
        self._registration.set(READ)


def divide(self: Turns) -> None:
    self.share, self.reserved, self.left = self._quantum, -sys.maxsize, 1


# Each has its quantum, in every turn, however many there are.
MISTAKES["bound_each_ones_work_and_not_the_total"] = mock.patch.multiple(
    Turns, _divide=divide, _begin=divide
)


@MISTAKES.instead_of(Turns, "wait")
def serve_the_last_come_first(_: Any, self: Turns, stream: Any) -> None:
    """A stack is a queue in which somebody waits for ever."""
    if not self._queue and not self._serving:
        self._reactor.call_soon(self._serve)
    self._queue.appendleft(stream)
    self._divide()


# A thousand peers that do not read have a thousand times as much as one.
MISTAKES["bound_each_ones_replies_and_not_the_total"] = mock.patch.object(
    Turns, "room", sys.maxsize
)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_classic_mistake_is_caught(name: str) -> None:
    MISTAKES.check(name)
