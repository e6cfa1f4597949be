"""An event for a descriptor that is closed by now

A selector returns a batch of events, and the loop handles one after the other. An early one may
close a connection that a later one is about. The next descriptor gets the lowest free number. So
when the later event's turn comes, its number may stand for another connection.

Closing without unregistering has a second effect. `epoll` forgets a closed descriptor by itself, so
nothing happens at first. But `selectors` keeps its own list, and refuses the next socket with that
number. All of it takes two connections at the right moment. A test with one client never has that.

What you see: `Invalid file descriptor: -1`, `(FD 7) is already registered`, or one client's event
in another client's handler. What a bystander sees: an error about a connection that was in good
order.
"""

import socket
from contextlib import ExitStack

from house import house

from kv.net.directions import Event
from kv.net.reactor import READ, Reactor
from kv.net.stream import Stream

from .moments import without
from .pitfall import Failure, Pitfall


def turn(self: Reactor) -> None:
    for key, events in self._selector.select(self._sleep()):
        key.data.callback(events)


class TestStaleEvent(Pitfall):
    """Two connections are ready in one batch, and the first one's handler closes the second."""

    usually = "a handler runs for a connection that is closed"
    unseen = "its two handlers are its own, and no connections"
    handled = Reactor.turn
    naive = {"kv.net.reactor.Reactor.turn": turn}

    def scenario(self) -> str:
        with ExitStack() as stack:
            pairs = [socket.socketpair() for _ in range(2)]
            (one, other), (old, its_peer) = pairs
            for sock in (one, other, old, its_peer):
                stack.enter_context(sock)
            reactor = Reactor()
            stack.callback(reactor.close)

            def close_the_old_one(_events: int) -> None:
                one.recv(10)
                second.set(0)
                old.close()

            reactor.register(one, close_the_old_one).set(READ)
            second = reactor.register(old, lambda _: old.recv(10))
            second.set(READ)
            other.send(b"x")
            its_peer.send(b"x")
            try:
                reactor.turn()
            except OSError as error:
                raise Failure(f"the handler of the closed one runs: {error.strerror}") from error
            return "the handler of the closed one does not run"


def release(self: Stream, error: Exception | None) -> None:
    self.transport.error = error
    self._wait_for(None)
    self._step(Event.ABORT)
    self.transport.sock.close()  # so that is that


class TestUnregister(Pitfall):
    """Ten clients come, one after the other has gone."""

    usually = "the next connection with the number of a closed one is refused"
    wrong = without(" accept ", " asks for read")
    handled = Stream._release
    naive = {"kv.net.lifecycle.Lifecycle._release": release}

    def scenario(self) -> str:
        with house() as h:
            served = 0
            for _ in range(10):
                guest = h.guest()
                guest.send_raw(guest.key.line).send("CONNECT a", "DISCONNECT")
                served += guest.texts() == ["CONNECT: OK", "DISCONNECT: OK"]
                guest.socket.close()
                h.settle()
            told = f"{served} of 10 clients are served"
            if served < 10:
                raise Failure(told)
            return told
