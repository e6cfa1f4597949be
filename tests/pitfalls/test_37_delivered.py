"""Accepted by the kernel is not delivered

`send` says what our own kernel has taken. The peer's kernel may have no room for it yet: then it
waits in ours, for as long as it takes. A program that has sent everything is not done. If it now
closes with an RST, our kernel drops what it still has. So does a close with unread input (12).
Deadlines do that, and so does a stop that closes every connection when everything is sent. The log
calls it a success.

What helps is to close without RST. The kernel goes on delivering, even after the process has ended.
To know more, ask the kernel what the peer has not acknowledged (SIOCOUTQ on Linux). And when a stop
has to leave such a client, say so.

What you see: at every restart a few slow clients lose the end of their replies, and the log says
that all is well. What a bystander sees: nothing, as long as it reads fast itself.
"""

from house import house

from kv.net.stream import Stream

from .pitfall import Failure, Pitfall


def leave(self: Stream, error: Exception | None = None) -> None:
    self.abort(error)  # everything is sent, after all


class TestDelivered(Pitfall):
    """The server stops. A client is owed 60 replies, which are all sent, and it does not read."""

    usually = "replies that the kernel had are destroyed by a reset"
    wrong = "^#1 abort"
    handled = Stream.leave
    naive = {"kv.net.lifecycle.Lifecycle.leave": leave}

    def scenario(self) -> str:
        with house() as h:
            guest = h.owed(60)
            (connection,) = h.server.connections
            assert not connection.stream.unsent
            h.server.stop(5)
            h.settle()
            while h.server.connections:
                h.wait(1)
            after = h.clock.now
            guest.read_on(63)
            told = f"{guest.values} of 60 replies arrive when it reads"
            if guest.values < 60:
                raise Failure(told)
            assert h.server.cut_short == 1
            return f"{told}, after the server ended at {after:g} s and counted it"
