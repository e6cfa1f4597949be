"""What is left over in a buffer wakes nobody

A selector knows what is in the kernel's buffers, and not what is in ours. A server that reads a lot
and handles a bounded part of it (22) has the rest in memory. If that was all the client sent, no
readiness will ever tell of it. The client waits for replies, and the server waits for the client.
It only shows with clients that send more at once than one turn handles. Every buffered reader has
the same trap. For TLS, `SSLSocket.pending()` is there for it.

What you see: replies stop, no error shows, and one more octet from the client starts them again.
What a bystander sees: nothing; only the one whose lines wait is affected.
"""

from house import house

from kv.net.stream import Stream

from .moments import forgotten
from .pitfall import Failure, Pitfall


def await_turn(self: Stream) -> None:
    pass  # the selector will call again


class TestLeftOver(Pitfall):
    """A client sends 150 commands at once, and waits."""

    usually = "replies never come, and there is no error"
    wrong = forgotten
    handled = Stream._look_ahead
    naive = {"kv.net.lifecycle.Lifecycle._await_turn": await_turn}

    def scenario(self) -> str:
        with house() as h:
            guest = h.guest().connect()
            replies = guest.ask(*["GET k"] * 150)
            told = f"{len(replies)} of 150 replies come"
            if len(replies) < 150:
                raise Failure(told)
            return told
