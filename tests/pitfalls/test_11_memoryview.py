"""A buffer cannot shrink while somebody looks at it

A `memoryview` lets `send` see the front of a `bytearray` without a copy. So people use it to make
sending fast. But a `bytearray` refuses to change its size while a view of it exists. A view in a
local variable lives until the function returns. One in a traceback or a debugger lives longer.
While `send` takes everything, the buffer is simply replaced, and the code works. It fails in the
branch that is rarely taken.

What you see: `BufferError: Existing exports of data: object cannot be re-sized`. What a bystander
sees: nothing where the error is caught for one client, and the end of the service where it is not.
"""

from house import house

from kv.net.transport import Transport

from .moments import loses
from .pitfall import Failure, Pitfall, mistakes


def send(self: Transport) -> None:
    if self.unsent:
        self.unsent = bytearray(self.unsent)
        view = memoryview(self.unsent)
        sent = self.sock.send(view)
        if sent == len(view):
            self.unsent = bytearray()
        else:
            del self.unsent[:sent]


class TestMemoryview(Pitfall):
    """A client that reads nothing yet asks for a value of 265 characters 600 times."""

    usually = "the first short send raises `BufferError`"
    wrong = loses
    handled = Transport.send
    naive = {"kv.net.transport.Transport.send": send}

    def scenario(self) -> str:
        with house() as h, mistakes() as made:
            guest = h.owed(600)
            if made:
                raise Failure(f"the first short send drops the client: {made[0]!r}")
            guest.read_on(603)
            return f"{len(guest.texts()) - 2} of 600 replies, in many short sends"
