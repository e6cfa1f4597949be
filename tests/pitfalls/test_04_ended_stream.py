"""A stream that has ended stays readable

After a peer's FIN, `recv` returns b"" at once, as often as it is called. The socket will never
again make a reader wait, and that is what "readable" means. A level-triggered selector says so on
every turn. If the end of the input closes the socket, nobody notices. But replies may still be owed
(3). If read interest stays on meanwhile, the loop turns as fast as the processor can.

What you see: nothing is lost and everything works, at 100 % CPU. What a bystander sees: replies
that come a little later, because the loop has no time to sleep.
"""

from socket import SHUT_WR

from house import house

from kv.net.directions import Incoming, interest
from kv.net.reactor import READ, WRITE
from kv.net.stream import Stream

from .moments import seen
from .pitfall import Failure, Pitfall

TURNS = 50


REAL_READ = Stream._read


def wanted(_: Incoming, held: bool, unsent: bool) -> int:
    return (0 if held else READ) | (WRITE if unsent else 0)


def read(self: Stream) -> None:
    if self.transport.incoming is Incoming.ENDED:
        self.transport.sock.recv(self._limits.read_size)  # b"", again
    else:
        REAL_READ(self)


class TestEndedStream(Pitfall):
    """A client is owed replies that it does not read, and ends its side."""

    shown = "m"
    usually = "the loop spins until the last reply is taken"
    wrong = seen("^#1 recv the end", times=3)
    handled = interest
    naive = {"kv.net.lifecycle.interest": wanted, "kv.net.stream.Stream._read": read}

    def scenario(self) -> str:
        with house() as h:
            guest = h.owed(300)
            guest.socket.shutdown(SHUT_WR)
            for _ in range(TURNS):  # enough to see the end, and to do what can be done
                h.reactor.turn()
            (connection,) = h.server.connections
            owed, woken = connection.stream.unsent, 0
            for _ in range(TURNS):
                h.reactor.turn()
                woken += h.selector.idle == 0  # something was ready
            assert connection.stream.unsent == owed > 0
            if woken:
                raise Failure(f"{woken} of {TURNS} turns find something ready, and do nothing")
            return f"{woken} of {TURNS} turns find something ready"
