"""A peer never reads its replies

A client may send as fast as it likes and read nothing. Its own buffer fills, then ours in the
kernel. From then on replies collect in this process. No single step is wrong: the request is small
and valid, and the reply is due. But a request of 89 octets for a value of 265 characters owes 429.
So a server that collects replies for as long as requests come lets every client use up its memory.

The remedy is as old as TCP. Stop reading from a peer that is owed too much, until it has taken some
of it. Then TCP's window makes it stop sending, too.

What you see: memory grows, and the requests look harmless. What a bystander sees: the service ends
when memory does, and it was another client's doing.
"""

from house import house

from kv.net.stream import Stream

from .moments import above
from .pitfall import Failure, Pitfall

GETS = 4000


def account(self: Stream) -> None:
    self._backlog = len(self.transport.unsent)  # it is for them to read


class TestUnreadReplies(Pitfall):
    """A client asks 4,000 times for a value of 265 characters, and reads nothing."""

    usually = "the server keeps all replies that one client does not take"
    wrong = above("unsent", 100_000)
    handled = Stream._account
    naive = {"kv.net.lifecycle.Lifecycle._account": account}

    def scenario(self) -> str:
        with house() as h:
            guest = h.owed(GETS)
            (connection,) = h.server.connections
            kept = connection.stream.unsent
            if kept > 100_000:
                raise Failure(f"{kept:,} octets of replies wait in the server")
            guest.read_on(3 + GETS)
            assert len(guest.texts()) == 2 + GETS
            return f"{kept:,} octets of replies wait in the server; a client that reads gets all"
