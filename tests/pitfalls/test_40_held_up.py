"""A deadline that runs while we hold the peer up

A deadline is for a peer that keeps the server waiting. But who waits for whom? A client has asked
for 3,000 values, and reads them as fast as its line allows. The server has stopped reading from it
until it has taken some (8). So the server handles none of its messages, and the idle deadline sees
silence. It drops a client that did everything right.

Each deadline needs an answer to the question whose turn it is. While the server owes the client
something, it is the server's turn, and the idle deadline has to wait. A client that does not even
read has another deadline (9).

What you see: clients on slow lines are dropped as idle in the middle of a long reply. What a
bystander sees: nothing; it happens to those who read slowly.
"""

from house import house

from kv.connection import Connection

from .pitfall import Failure, Pitfall


def idled(self: Connection) -> None:
    timeout = self._server.settings.idle_timeout
    left = self.stream.heard + timeout - self._server.reactor.time()
    if left > 0:
        self._wait_for_a_message(left)
    else:
        self._drop("idle", f"no message for {timeout:g} s")


class TestHeldUp(Pitfall):
    """A client asks for 600 values, and reads 10 KB a second. The idle deadline is 3 s."""

    usually = "a client that reads all the time is dropped as idle"
    wrong = "^#1 close politely"
    handled = Connection._idled
    naive = {"kv.connection.Connection._idled": idled}

    def scenario(self) -> str:
        with house(idle_timeout=3) as h:
            guest = h.owed(600)
            while guest.values < 600 and not h.server.drops:
                for _ in range(4):
                    guest.take(2500)
                    h.settle()
                h.wait(1)
            told = f"{guest.values} of 600 values arrive in {h.clock.now:g} s"
            if h.server.drops:
                raise Failure(f"{told}; it is dropped as idle")
            return told
