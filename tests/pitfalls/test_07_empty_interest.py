"""An interest that has nothing to do makes the loop spin

A socket is readable now and then. It is writable nearly always: whenever its send buffer has room.
If you ask for both to be safe, every turn reports the socket as writable, and the loop spins
without serving anybody. So write interest is on only while there is something to write. Read
interest is on only while you would take what comes. Sometimes that is neither.

But a selector has no "no interest". `register` refuses 0, and so does `modify` with select and
kqueue. With epoll and poll, `modify` takes 0 and seems to work until the connection is reset. That
is reported without being asked for, on every turn. A paused socket has to be unregistered.

What you see: 100 % CPU, or `ValueError: Invalid events: 0`. What a bystander sees: slower replies,
from a machine whose fan is on.
"""

import selectors
import socket
from typing import Any

from house import Guest, house

from kv.net.directions import interest
from kv.net.reactor import READ, WRITE, Registration
from kv.net.stream import Stream

from .moments import spins
from .pitfall import Failure, Pitfall

TURNS = 50


REAL_INIT = Stream.__init__


def init(self: Stream, *how: Any) -> None:
    REAL_INIT(self, *how)
    self._registration.set(READ | WRITE)  # to be told of whatever happens


class TestWriteInterest(Pitfall):
    """A client connects, sends its key, gets the server's, and falls silent."""

    shown = "m"
    usually = "the loop spins for as long as there is a connection"
    wrong = spins
    handled = interest
    naive = {"kv.net.lifecycle.Lifecycle.__init__": init}

    def scenario(self) -> str:
        with house() as h:
            h.guests.append(guest := Guest(h))
            guest.unsent += guest.key.line
            woken = 0
            for turn in range(2 * TURNS):
                h.reactor.turn()
                guest.read()
                woken += turn >= TURNS and h.selector.idle == 0  # something was ready
            assert guest.received
            if woken:
                raise Failure(f"{woken} of {TURNS} turns find something ready, and do nothing")
            return f"0 of {TURNS} turns find something ready"


def set_interest(self: Registration, interest: int) -> None:
    if self.interest:
        self._selector.modify(self._fileobj, interest, self)
    else:
        self._selector.register(self._fileobj, interest, self)
    self.interest = interest


class TestPause(Pitfall):
    """A socket is paused, and its peer hangs up: under `select`, and under the system's best."""

    shown = "m"
    usually = "a pause is refused, or the loop spins once the peer of a paused socket hangs up"
    unseen = "it watches a socket of its own, which is no connection"
    handled = Registration.set
    naive = {"kv.net.reactor.Registration.set": set_interest}

    def scenario(self) -> str:
        seen = [paused(selectors.SelectSelector()), paused(selectors.DefaultSelector())]
        told = f"{seen[0]} under select, {seen[1]} under {selectors.DefaultSelector.__name__}"
        if seen != [0, 0]:
            raise Failure(f"wake-ups in {TURNS} turns: {told}")
        return f"wake-ups in {TURNS} turns: {told}"


def paused(selector: selectors.BaseSelector) -> int | str:
    """How often a paused socket wakes the loop, or why it cannot be paused."""
    ours, theirs = socket.socketpair()
    with selector, ours, theirs:
        registration = Registration(selector, ours, lambda _: None)
        registration.set(READ)
        try:
            registration.set(0)
        except ValueError as error:
            return repr(error)
        theirs.close()
        return sum(bool(selector.select(0)) for _ in range(TURNS))
