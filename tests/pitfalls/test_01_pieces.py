"""A message arrives in pieces, or several at once

TCP carries a stream of octets and keeps no boundaries. What one `send` gave may take two `recv`s,
or arrive together with the next message. On loopback nearly every message arrives as it was sent.
So code that takes one `recv` for one message works on the developer's machine. It fails across the
first network that cuts a line in two.

So there has to be a buffer, and the buffer can be slow. Some code searches all of it for LF
whenever a piece arrives. Some copies the whole rest whenever it takes out a line. That work grows
with the square of the input: a line of a megabyte in pieces of 100 octets means searching five
billion octets.

What you see: clients far away are dropped for broken messages, or long messages use a whole
processor. What a bystander sees: nothing, unless the processor is used up: then slower replies.
"""

from collections.abc import Iterator
from socket import IPPROTO_TCP, TCP_NODELAY

from house import Guest, house

from kv.net.lines import Lines
from kv.net.stream import Stream

from .counting import counting
from .pitfall import Failure, Pitfall


def one_recv(self: Stream) -> None:
    data = self.transport.sock.recv(self._limits.read_size)
    if not data:
        self.abort(None)
    for line in data.splitlines():  # in the hope that they are whole
        self._owner.lines_received(iter([line]), 1)


def send(guest: Guest, octets: bytes, size: int) -> None:
    """Sends in pieces; the server reads each before the next is sent."""
    guest.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    for start in range(0, len(octets), size):
        guest.send_raw(octets[start : start + size])


class TestPieces(Pitfall):
    """A client sends the same four lines all at once, by 60 octets, and octet by octet."""

    usually = "a piece is taken for a message, and its sender is dropped"
    wrong = "AWAITING_KEY -> CLOSED"
    handled = Lines.feed
    naive = {"kv.net.stream.Stream._read": one_recv}

    def scenario(self) -> str:
        for size in (10_000, 60, 1):
            with house() as h:
                guest = h.guest()
                lines = [guest.key.seal(text) for text in (b"CONNECT a", b"GET k", b"GET k")]
                send(guest, guest.key.line + b"".join(lines), size)
                replies = guest.received.count(b"\n")
                if replies < 4:
                    raise Failure(f"{replies} of 4 replies to lines that come by {size} octets")
        return "4 of 4 replies, whether the lines come all at once, by 60 octets or by one"


def search_all(self: Lines, data: bytes) -> Iterator[bytes]:
    lines = []
    self._partial = self._partial + data if self._partial else data
    while b"\n" in self._partial:
        line, self._partial = self._partial.split(b"\n", 1)
        lines.append(bytes(line))
    self._lines = iter(lines)
    return self._lines


class TestWork(Pitfall):
    """A client sends a line of 429 octets one by one, then 184 lines of 89 octets at once."""

    shown = "m"
    usually = "the work grows with the square of what is sent"
    unseen = "it is searching and copying in memory, which is counted and leaves no step"
    handled = Lines.feed
    naive = {"kv.net.lines.Lines.feed": search_all}

    def scenario(self) -> str:
        with counting() as count, house() as h:
            guest = h.guest().connect()
            guest.send("GET k")
            line, lines = guest.key.seal(b"GET " + b"k" * 258), guest.key.seal(b"GET k") * 184
            before = count.octets
            send(guest, line, 1)
            one_by_one = count.octets - before
            send(guest, lines, len(lines))
            at_once = count.octets - before - one_by_one
        told = (
            f"{len(line)} octets one by one are {one_by_one:,} searched or copied,"
            f" {len(lines):,} at once are {at_once:,}"
        )
        if one_by_one > 10 * len(line) or at_once > 10 * len(lines):
            raise Failure(told)
        return told
