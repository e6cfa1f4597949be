"""A server of lines in one class: whom it accepts, their streams, and a graceful end.

Generic, and optional. It joins `Listener`, `Stream` and `Turns` as most servers need them, so that
a program only has to say what a line does. kv's own server joins them itself, because it has more
to count and to log.
"""

import logging
import socket
from collections.abc import Callable, Iterator

from kv.net.address import Address
from kv.net.listener import Listener
from kv.net.owner import Limits, Owner
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.timers import Callback, Timer
from kv.net.turns import Turns

log = logging.getLogger("kv")

#: Connections at a time, if nothing else is said.
MOST = 10_000
#: Seconds that a stop may take, if nothing else is said.
GRACE = 5.0


class Peer(Owner):
    """Somebody who has connected. A subclass says what to do about that.

    The calls are `connected`, `line_received`, `line_too_long`, `end_received` and `left`. Each may
    be left out. An exception in one of them is logged, and ends this connection only (28).
    """

    stream: Stream
    server: "LineServer"

    def connected(self) -> None:
        """The peer has just been accepted. `stream` is there, and no line has come."""

    def line_received(self, line: bytes) -> int | None:
        """A line, without LF. Returns the work that it was; None is one unit.

        After `stream.close()` or `stream.abort()`, no line comes. After `stream.wait()`, none comes
        until `stream.go_on()`.
        """

    def end_received(self) -> None:
        """The peer sends no more. Closes politely: what is unsent is sent first."""
        self.stream.close()

    def line_too_long(self) -> None:
        """The peer has sent too many octets without LF. Closes politely."""
        self.stream.close()

    def held_up(self) -> None:
        """The peer does not take its replies. The stream itself stops reading."""

    def drained(self) -> None:
        """The kernel has taken what it did not take at once."""

    def left(self, error: Exception | None) -> None:
        """The connection is over. The last call, and it comes once. None is a polite end."""

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Lines from the stream: hands on as many as this turn allows."""
        work = 0
        for line in lines:
            work += self.line_received(line) or 1
            if work >= budget or self.stream.holds:
                break
        return work

    def closed(self, error: Exception | None, ours: bool) -> None:
        """The end, from the stream."""
        if ours:
            log.error("an error in the handling of a peer", exc_info=error)
        try:
            self.left(error)
        finally:  # even after a mistake there, the server knows that the peer is gone
            self.server.forget(self)


class LineServer:
    """Accepts connections at `sockets`, `most` at a time, and makes a `peer` for each."""

    def __init__(
        self,
        reactor: Reactor,
        sockets: list[socket.socket],
        peer: Callable[[], Peer],
        limits: Limits = Limits(),
        most: int = MOST,
    ) -> None:
        self._reactor = reactor
        self._peer = peer
        self._limits = limits
        self._most = most
        self._turns = Turns(reactor)
        self._done: Callback | None = None  # set by `finish`
        self._deadline: Timer | None = None
        self.peers: dict[Peer, None] = {}  # a set that keeps its order
        self._listeners = [Listener(reactor, sock, self._accepted) for sock in sockets]

    @property
    def port(self) -> int:
        """The port of the first socket, even if 0 was asked for."""
        port: int = self._listeners[0].address[1]
        return port

    def finish(self, done: Callback, timeout: float = GRACE) -> None:
        """Answers what has arrived by now, closes, and calls `done`.

        Those who wait to be accepted are answered, too (46). After `timeout` seconds, the server
        leaves whoever is still there.
        """
        self._done = done
        for listener in self._listeners:
            listener.finish(self._finished)
        for peer in self.peers:
            peer.stream.finish()
        if self._deadline is None:
            self._deadline = self._reactor.call_later(timeout, self._cut_short)

    def forget(self, peer: Peer) -> None:
        """A peer has left, so there is room for another."""
        if len(self.peers) == self._most and self._done is None:
            for listener in self._listeners:
                listener.resume()
        del self.peers[peer]
        self._finished()

    def _accepted(self, sock: socket.socket, _: Address) -> None:
        peer = self._peer()
        peer.server = self
        peer.stream = Stream(self._reactor, sock, peer, self._limits, self._turns)
        self.peers[peer] = None
        if len(self.peers) == self._most and self._done is None:
            for listener in self._listeners:  # further ones wait in the kernel's queue (19)
                listener.pause()
        try:
            peer.connected()
        except Exception as error:
            peer.stream.abort(error)
            raise  # to the listener, which logs it
        if self._done is not None:
            peer.stream.finish()

    def _cut_short(self) -> None:
        for peer in self.peers:
            peer.stream.leave(TimeoutError("the time for a stop is over"))
        for listener in self._listeners:
            listener.refuse()
        self._finished()

    def _finished(self) -> None:
        """Calls `done` if a stop has nobody left to wait for."""
        if self._done is None or self.peers or any(one.listening for one in self._listeners):
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._done()
