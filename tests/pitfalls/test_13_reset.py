"""A peer resets the connection in the middle of a message

A program that is killed, or that closes with unread input, ends its connections with RST. The other
side then sees no end of input but an exception. `recv` raises ECONNRESET, `send` EPIPE or
ECONNRESET, `shutdown` ENOTCONN. Where a network swallows everything, it is ETIMEDOUT. It can come
from any call on the socket at any moment. It is no error of this program. But that connection is
over, and everything that belongs to it must end with it. Most code cleans up where `recv` returns
b"", and on developers' machines every connection ends there.

What you see: `Connection reset by peer` in the log, and sessions that stay after their client has
gone. What a bystander sees: that an id is in use, although its owner has gone.
"""

import socket

from house import house

from kv.net.stream import Stream
from kv.net.tcp import NO_LINGER
from kv.net.transport import Transport

from .moments import without
from .pitfall import Failure, Pitfall

REAL_READ = Stream._read


def read(self: Stream) -> None:
    try:
        self.transport.sock.recv(1, socket.MSG_PEEK)
    except OSError:  # nothing can be said to a peer that is gone
        self._registration.set(0)
        self.transport.sock.close()
        return
    REAL_READ(self)


class TestReset(Pitfall):
    """A client resets its connection in the middle of a line and comes back, twenty times."""

    usually = "only a connection that ends politely is cleaned up after"
    wrong = without(r"recv \[Errno", " gone ")
    handled = Transport.read
    naive = {"kv.net.stream.Stream._read": read}

    def scenario(self) -> str:
        with house() as h:
            came_back = 0
            for _ in range(20):
                guest = h.guest()
                guest.send_raw(guest.key.line).send("CONNECT the same id")
                came_back += guest.texts() == ["CONNECT: OK"]
                guest.send_raw(guest.key.seal(b"GET k")[:40])
                guest.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                guest.socket.close()
                h.settle()
            told = f"{came_back} of 20 times it has its id, {len(h.server.connections)} are left"
            if h.server.connections:
                raise Failure(told)
            return told
