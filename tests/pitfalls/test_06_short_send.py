"""`send` takes less than it was given

A socket has a buffer in the kernel, and `send` copies into it as much as there is room for. It
returns how much that was. The rest is still the caller's. On a fast network with small messages the
buffer is never full. So a program that ignores the return value works on every developer's machine.
It loses the middle of the first long reply to the first slow reader.

What you see: long replies have a hole in the middle, and only some clients complain. What a
bystander sees: nothing, and so the fault is looked for in the network of the one who complains.
"""

from house import house

from kv.net.transport import Transport

from .moments import loses
from .pitfall import Failure, Pitfall


def send(self: Transport) -> None:
    """What is usually written."""
    if self.unsent:
        self.sock.send(self.unsent)
        self.unsent = b""


class TestShortSend(Pitfall):
    """A client that reads slowly asks for a value of 265 characters 600 times."""

    usually = "what the kernel did not take at once is lost"
    wrong = loses
    handled = Transport.send
    naive = {"kv.net.transport.Transport.send": send}

    def scenario(self) -> str:
        with house() as h:
            guest = h.owed(600)
            guest.read_on(603)
            arrived = guest.values
            if arrived < 600:
                raise Failure(f"{arrived} of 600 replies arrive whole")
            return "all 600 replies arrive whole"
