"""The end of their sending is not the end of ours

When `recv` returns b"", the peer has sent FIN: it will send no more. The other direction is as open
as before. Most peers send FIN by closing the whole socket. So "b'' means gone" looks true, and most
code closes at once. But a script that pipes its questions into `nc -N` ends its side right after
the last one, and then reads. If it reads slowly or asks much, some replies have not been sent by
then. It never gets them.

What you see: the last replies to a script are missing. What a bystander sees: nothing. Only a
client that ends its side first is affected.
"""

from socket import SHUT_WR

from house import house

from kv.net.directions import Event
from kv.net.transport import Transport

from .moments import loses
from .pitfall import Failure, Pitfall


def ended(self: Transport) -> None:
    self.step(Event.ABORT)  # in the belief that nobody is there any more


class TestHalfClose(Pitfall):
    """A client asks 300 times for a value of 265 characters, ends its side, and only then reads."""

    usually = "a peer that has said all it had to say loses the replies still owed to it"
    wrong = loses
    handled = Transport._ended
    naive = {"kv.net.transport.Transport._ended": ended}

    def scenario(self) -> str:
        with house() as h:
            guest = h.owed(300)
            guest.socket.shutdown(SHUT_WR)
            h.settle()
            guest.read_on(303)
            arrived = guest.values
            if arrived < 300:
                raise Failure(f"{arrived} of 300 replies arrive")
            return "all 300 replies arrive"
