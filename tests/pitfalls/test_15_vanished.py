"""A peer disappears without a packet

A machine that loses its power sends no FIN and no RST. Nor does a network that loses its way. TCP
has no heartbeat. A connection on which nobody speaks can last for years after its other end is
gone. Keepalive asks the other end, but by default only after two hours (RFC 1122, 4.2.3.6). So all
three of its times have to be set. It also asks only while nothing else is on its way. Replies that
nobody acknowledges are sent again for a quarter of an hour, unless TCP_USER_TIMEOUT (RFC 5482) says
otherwise.

No test can pull a plug, so the first scenario looks at the socket. The idle deadline needs nothing
from the kernel, and the second one sees it work.

What you see: connections of clients that no longer exist, and ids that stay in use. What a
bystander sees: that an id is in use, or that there is no place left.
"""

import math
import socket

from house import House, house

from kv.connection import Connection
from kv.net.tcp import KEEPALIVE

from .moments import without
from .pitfall import Failure, Pitfall


class TestKeepalive(Pitfall):
    """What is set on the server's side of a connection that was just made."""

    shown = "e"
    usually = "the id of a client that vanished stays in use for hours"
    handled = "kv.net.tcp.KEEPALIVE"

    def scenario(self) -> str:
        with house() as h:
            h.guest().connect()
            (connection,) = h.server.connections
            sock = connection.stream.transport.sock
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            times = {option: sock.getsockopt(socket.IPPROTO_TCP, option) for option in KEEPALIVE}
            assert times == KEEPALIVE
            idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0))
            seconds = times[idle] + times[socket.TCP_KEEPINTVL] * times[socket.TCP_KEEPCNT]
            return f"a peer that answers nothing is gone after {seconds} s"


def idled(self: Connection) -> None:
    self._deadline = self._server.reactor.call_later(math.inf, self._idled)


class TestIdle(Pitfall):
    """A client connects and says nothing for an hour, as one does whose machine is switched off."""

    usually = "a client that never speaks again keeps its place for ever"
    wrong = without("idle limit: it is time", " close ")
    handled = Connection._idled
    naive = {"kv.connection.Connection._idled": idled}

    def scenario(self) -> str:
        def after(h: House, seconds: float) -> str:
            h.wait(seconds)
            return f"{len(h.store)} after {h.clock.now:g} s"

        with house() as h:
            h.guest().connect()
            told = f"sessions: {after(h, 3599)}, {after(h, 2)}"
            if len(h.store):
                raise Failure(told)
            return told
