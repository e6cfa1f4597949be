"""A peer never ends its line

An incomplete line is kept until its end comes, and nothing makes a peer send that end. The peer may
be a stranger who means harm, or an honest program that speaks another protocol. Your own client
ends its lines, so a buffer without a bound works for years. Then somebody sends zeros for as long
as there is memory. Checking the bound when a line is complete does not help, because this line
never is. The check has to be made whenever octets arrive.

What you see: memory grows until the kernel kills the server. What a bystander sees: the service
ends, without a word in the log.
"""

from collections.abc import Iterator
from socket import IPPROTO_TCP, TCP_NODELAY

from house import house

from kv.net.directions import Incoming
from kv.net.lines import Lines

from .moments import above
from .pitfall import Failure, Pitfall


def feed(self: Lines, data: bytes) -> Iterator[bytes]:
    *lines, self._partial = (self._partial + data).split(b"\n")  # in the hope of another LF
    self._lines = iter(lines)
    return self._lines


class TestEndlessLine(Pitfall):
    """A line may have 511 octets. A client sends 256 zeros, 256 more, 512, 1,024, up to 1 MiB."""

    usually = "the buffer grows for as long as the peer sends"
    wrong = above("line", 511)
    handled = Lines.feed
    naive = {"kv.net.lines.Lines.feed": feed}

    def scenario(self) -> str:
        with house() as h:
            guest = h.guest().connect()
            guest.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            (connection,) = h.server.connections
            stream, sent, kept = connection.stream, 0, 0
            while stream.transport.incoming is Incoming.OPEN:
                guest.send_raw(bytes(sent or 256))
                sent += sent or 256
                kept = max(kept, stream._lines.octets[0])
                if sent == 1 << 20:
                    raise Failure(f"{kept:,} octets of one line are kept, and more are welcome")
            return f"at most {kept} octets of one line are kept; at {sent} the client is dropped"
