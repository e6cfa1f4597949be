"""A buffer cannot shrink while somebody looks at it

A `memoryview` lets `send` see the front of a `bytearray` without a copy, so it is what people reach
for when they make sending fast. But for as long as a view of it exists, a `bytearray` refuses to
change its size: `BufferError: Existing exports of data: object cannot be re-sized`. Whether it does
depends on when the last reference to the view goes: a view in a local variable lives until the
function returns, one in a traceback or a debugger for longer. So the code works while `send` takes
everything and the buffer is simply replaced, and fails in the one branch that is rarely taken.
"""

from house import house

from kv.net.stream import Stream

from .pitfall import Failure, Pitfall


def flush(self: Stream) -> None:
    if self._outgoing:
        view = memoryview(self._outgoing)
        sent = self._sock.send(view)
        if sent == len(view):
            self._outgoing = bytearray()
        else:
            del self._outgoing[:sent]
    self._update_interest()


class TestMemoryview(Pitfall):
    """A client that reads nothing yet asks for a value of 265 characters 600 times."""

    usually = "the first short send raises `BufferError`"
    handled = Stream.flush
    naive = {"kv.net.stream.Stream.flush": flush}

    def scenario(self) -> str:
        with house() as h:
            try:
                guest = h.owed(600)
            except BufferError as error:
                raise Failure(f"the first short send ends the loop: {error}") from None
            guest.read_on(603)
            return f"{len(guest.texts()) - 2} of 600 replies, in many short sends"
