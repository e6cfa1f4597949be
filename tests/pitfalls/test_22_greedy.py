"""A greedy client starves the others

Manuals for edge-triggered loops say: read until it would block, and handle all that was read. With
clients that wait for each reply that is right. But a client may send without waiting, faster than
it is served. Then there is always more to read, and it has the loop to itself.

The work that one connection gets in a turn needs a bound. The bound should be in work and not in
time. A turn that ends after some milliseconds ends somewhere else each time, and cannot be tested.
What is left over waits for the next turn, behind everybody else who is ready.

What you see: one busy client, and everybody else times out. What a bystander sees: late replies to
the simplest question.
"""

import sys

from house import house
from wire import KEY

from kv.net.stream import Stream

from .moments import in_a_turn
from .pitfall import Failure, Pitfall


def read(self: Stream) -> None:
    while True:
        try:
            data = self.transport.sock.recv(self._limits.read_size)
        except BlockingIOError:
            break
        if not data:
            self.abort(None)
            return
        self._lines.feed(data)
        while self._lines.waiting:
            self._owner.lines_received(self._lines.next(), sys.maxsize)


class TestGreedy(Pitfall):
    """A client has sent 1,000 commands, and another one; the loop turns once."""

    usually = "one client's commands are all handled before anybody else's"
    wrong = in_a_turn("^#1 message", 100)
    handled = Stream._hand_over
    naive = {"kv.net.stream.Stream._read": read}

    def scenario(self) -> str:
        with house() as h:
            greedy, polite = h.guest().connect("greedy"), h.guest().connect("polite")
            (stream, _) = (connection.stream for connection in h.server.connections)
            before = stream.lines
            burst = KEY.seal(b"GET k") * 1000
            assert greedy.socket.send(burst) == len(burst)
            polite.socket.send(KEY.seal(b"GET k"))
            h.reactor.turn()
            handled = stream.lines - before
            h.settle()
            told = f"{handled:,} of 1,000 commands of one client are handled in a turn"
            if handled > 100:
                raise Failure(told)
            return told
