"""A peer that says one octet a second

A connection costs a descriptor from the moment it is accepted. Somebody who makes a thousand and
says nothing has a thousand descriptors. A time-out on each `recv` is the usual answer: it drops a
client that is silent. But a client that sends one octet now and then is never silent for long
("Slowloris"). It keeps its place for ever, at the price of one packet a minute. So the deadline
must not be for the silence. It has to be for the whole handshake, from accepting to its end.

What you see: all places are taken by clients that never finish to connect. What a bystander sees:
that connecting works, and that no reply comes, because there is no place.
"""

from house import house

from kv.connection import Connection
from kv.net.stream import Stream

from .moments import seen
from .pitfall import Failure, Pitfall

REAL_READ = Stream._read


def read(self: Stream) -> None:
    self._owner._deadline.postpone(self._owner._server.settings.handshake_timeout)
    REAL_READ(self)


class TestSlowHandshake(Pitfall):
    """A client sends its key line, an octet a second."""

    usually = "a client that trickles keeps its place for as long as it likes"
    wrong = seen("act 1 s pass", times=11)
    handled = Connection._handshake_timed_out
    naive = {"kv.net.stream.Stream._read": read}

    def scenario(self) -> str:
        with house() as h:
            guest = h.guest()
            for octet in guest.key.line[:60]:
                if guest.ended:
                    return f"it is dropped after {h.clock.now:g} s"
                guest.send_raw(bytes([octet]))
                h.wait(1)
            raise Failure(f"it is still there after {h.clock.now:g} s")
