"""A stop forgets those who wait to be accepted

A stopping server closes its listening socket first, so that nobody comes any more. But some have
come. The kernel has shaken hands with them, and they wait in the queue. What they sent has been
acknowledged, so to them the server has it. Closing the listening socket resets them all. During a
restart under load that may be hundreds, and the server does not even know their number.

So a graceful stop first accepts the connections in the queue, while there are descriptors. It
answers what they have sent, and closes after that. What it cannot answer in time is counted.

What you see: a few `Connection reset by peer` at every restart, of a server that ends gracefully.
What a bystander sees: nothing, unless it connects in the moment of the restart.
"""

from house import Guest, house
from wire import KEY

from kv.net.listener import Listener
from kv.net.timers import Callback

from .moments import never
from .pitfall import Failure, Pitfall


def finish(self: Listener, done: Callback) -> None:
    self.close()  # nobody is to come any more
    done()


class TestAcceptQueue(Pitfall):
    """20 clients have connected and sent their commands; the server is told to stop."""

    usually = "a client that was not accepted yet is reset"
    wrong = never(" accept ")
    handled = Listener.finish
    naive = {"kv.net.listener.Listener.finish": finish}

    def scenario(self) -> str:
        with house() as h:
            for number in range(20):
                h.guests.append(guest := Guest(h))
                connect = KEY.seal(b"CONNECT %d" % number)
                guest.socket.send(KEY.line + connect + KEY.seal(b"GET k"))
            h.server.stop(5)
            h.settle()
            answered = sum(guest.texts() == ["CONNECT: OK", "GET: ERROR"] for guest in h.guests)
            told = f"{answered} of 20 clients are answered"
            if answered < 20:
                raise Failure(told)
            return told
