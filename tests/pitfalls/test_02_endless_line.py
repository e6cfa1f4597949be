"""A peer never ends its line

An incomplete line is kept until its end comes, and nothing makes a peer send that end. The peer may
be a stranger who means harm, or an honest program that speaks another protocol. Your own client
ends its lines, so a buffer without a bound works for years. Then somebody sends zeros for as long
as there is memory. Checking the bound when a line is complete does not help, because this line
never is. The check has to be made whenever octets arrive.

What one sees: memory grows until the kernel kills the server.
"""

from socket import IPPROTO_TCP, TCP_NODELAY

from house import house

from kv.net.stream import OPEN, Stream

from .pitfall import Failure, Pitfall


def hand_over(self: Stream) -> None:
    if self._waiting:
        self._hand_over_lines()  # what follows the last LF is kept, in the hope of another
    elif self._ended:
        self._owner.end_received()
    if self._waiting:
        self._schedule()
    self.flush()


class TestEndlessLine(Pitfall):
    """A line may have 511 octets. A client sends 256 zeros, 256 more, 512, 1,024, up to 1 MiB."""

    usually = "the buffer grows for as long as the peer sends"
    handled = Stream._hand_over
    naive = {"kv.net.stream.Stream._hand_over": hand_over}

    def scenario(self) -> str:
        with house() as h:
            guest = h.guest().connect()
            guest.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            (connection,) = h.server.connections
            stream, sent, kept = connection.stream, 0, 0
            while stream.phase is OPEN:
                guest.send_raw(bytes(sent or 256))
                sent += sent or 256
                kept = max(kept, len(stream._incoming))
                if sent == 1 << 20:
                    raise Failure(f"{kept:,} octets of one line are kept, and more are welcome")
            return f"at most {kept} octets of one line are kept; at {sent} the client is dropped"
