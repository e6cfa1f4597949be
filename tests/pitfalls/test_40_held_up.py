"""A deadline that runs while we hold the peer up

A deadline is for a peer that keeps us waiting. But who waits for whom? A client has asked for 3,000
values, and reads them as fast as its line allows. We have stopped reading from it until it has
taken some (8). So none of its messages is handled meanwhile, and its idle deadline sees silence. It
drops a client that did everything right, for being slow at what we told it to do.

Whoever sets a deadline has to say whose turn it is. While we owe the peer something, it is ours,
and the deadline has to wait. A peer that does not even read has another deadline (9).

What one sees: clients on slow lines are dropped as idle in the middle of a long reply. What a
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
    """Who is idle for 3 s is dropped. A client asks for 600 values, and reads 10 KB a second."""

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
