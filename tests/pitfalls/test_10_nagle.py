"""Nagle's algorithm waits for the peer, and the peer waits for us

Nagle's algorithm (RFC 896) holds a small segment back while an earlier one is not acknowledged. It
hopes for more to put into it. Delayed acknowledgement (RFC 1122, 4.2.3.2) holds the acknowledgement
back. It hopes for data to send along with it. Now a server sends two small replies. The second
waits for the acknowledgement of the first, and the client waits for the second. Both wait until the
client's kernel gives in: after 40 ms on Linux, after 500 ms at most by the standard. With one reply
to one request it never happens.

What you see: some replies take 40 ms longer than others. What a bystander sees: nothing, or the
same delay now and then.
"""

import socket
from socket import IPPROTO_TCP, TCP_NODELAY

from house import house

from kv.net import tcp

from .pitfall import Failure, Pitfall

REAL_PREPARE = tcp.prepare


def prepare(sock: socket.socket, stall_timeout: float) -> None:
    REAL_PREPARE(sock, stall_timeout)
    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 0)  # which is the default


class TestNagle(Pitfall):
    """A client sends two commands at once; their replies go out in two turns of the loop."""

    shown = "m"
    usually = "the second of two small replies stays in our own kernel"
    unseen = "it is the kernel that keeps the reply back, and the loop does the same"
    handled = tcp.prepare
    naive = {"kv.net.tcp.prepare": prepare}

    def scenario(self) -> str:
        with house(quantum=1) as h:
            guest = h.guest().connect()
            for _ in range(10):  # a client whose kernel has given in by now gets both
                for _ in range(20):  # until its kernel expects it to answer, and waits for that
                    guest.ask("GET k")
                replies = guest.ask("GET k", "GET k")
                if len(replies) < 2:
                    raise Failure("1 of 2 replies has left when there is nothing to do any more")
            return "2 of 2 replies have left when there is nothing to do any more"
