"""There is a limit of connections

A server has a limit of connections, and has to do something about the next one. Accepting it and
closing at once looks fair. But the client sees a reset, and cannot tell "come back later" from a
crash. While many try, the server is busy with turning them away.

The kernel has a queue for this. A client that is not accepted waits there, believes itself
connected, and gets in when another leaves. So it is enough not to call `accept`. The listener must
not be watched either: a waiting client makes it readable all the time.

What you see: clients are reset when the server is full, or a full server uses 100 % CPU. What a
bystander sees: slower replies while somebody waits for a place.
"""

import socket

from house import house

from kv.connection import Connection
from kv.net.address import Address
from kv.net.listener import Listener
from kv.server import Server

from .moments import spins, without
from .pitfall import Failure, Pitfall


def accepted(self: Server, sock: socket.socket, address: Address) -> None:
    if len(self.connections) >= self.settings.max_connections:
        sock.close()
    else:
        self.connections[Connection(self, sock, address)] = None


class TestLimit(Pitfall):
    """Five clients come to a server for two; as each is done, it leaves."""

    usually = "a client that comes when it is full is thrown out"
    wrong = without("ready: listener read", " accept ")
    handled = Server._admit
    naive = {"kv.server.Server._accepted": accepted}

    def scenario(self) -> str:
        with house(max_connections=2) as h:
            guests = [h.guest() for _ in range(5)]
            for number, guest in enumerate(guests):
                if not guest.ended:
                    guest.send_raw(guest.key.line).send(f"CONNECT {number}", "DISCONNECT")
                guest.socket.close()
                h.settle()
            served = sum(guest.texts() == ["CONNECT: OK", "DISCONNECT: OK"] for guest in guests)
            told = f"{served} of 5 clients are served"
            if served < 5:
                raise Failure(told)
            return told


def pause(self: Listener) -> None:
    self._paused = True


class TestPause(Pitfall):
    """A third client waits at a server for two."""

    shown = "m"
    usually = "the loop spins while somebody waits"
    wrong = spins
    handled = Listener.pause
    naive = {"kv.net.listener.Listener.pause": pause}

    def scenario(self) -> str:
        with house(max_connections=2) as h, socket.socket() as third:
            for name in ("alice", "bob"):
                h.guest().connect(name)
            third.connect(("127.0.0.1", h.port))
            woken = 0
            for _ in range(50):
                h.reactor.turn()
                woken += h.selector.idle == 0
            told = f"{woken} of 50 turns find the listener ready"
            if woken:
                raise Failure(told)
            return told
