"""`accept` fails for somebody else's reasons, and never comes to an end

A connection can die while it waits to be accepted. Linux reports that from `accept`, and also
errors that its network already had: ENETDOWN, EHOSTUNREACH, EPROTO and others (accept(2), "Error
handling"). They say nothing about the listener. If they leave the loop, any passer-by can end the
server.

The other mistake is to accept until "would block". If new connections come faster than that, the
loop only accepts, and serves nobody.

What you see: the server ends with `ConnectionAbortedError`, or stops answering during a rush. What
a bystander sees: the end of the service, or no reply for as long as others connect.
"""

import socket
from contextlib import ExitStack
from random import Random

from house import house
from simulation.kernel import Dice, Kernel
from simulation.network import Peer
from simulation.sockets import Listening

from kv.net.listener import BATCH, Listener
from kv.net.reactor import Reactor

from .moments import in_a_turn
from .pitfall import Failure, Pitfall


def ready(self: Listener) -> None:
    try:
        sock, address = self._sock.accept()
    except BlockingIOError:
        return
    self._accepted(sock, address)


class TestDead(Pitfall):
    """In the simulator: of 40 connections that wait, about every other one is dead by now."""

    shown = "s"
    usually = "a connection that died before it was accepted ends the server"
    unseen = "all of it happens in one callback, between two steps"
    handled = "kv.net.listener.DEAD_CONNECTION"
    naive = {"kv.net.listener.Listener._ready": ready}

    def scenario(self) -> str:
        kernel = Kernel(Random(1), Dice(dead=0.5), [])
        reactor, listening = Reactor(kernel.selector, kernel.time), Listening(kernel)
        accepted: list[socket.socket] = []
        Listener(reactor, listening, lambda sock, _: accepted.append(sock))
        listening.queue.extend(Peer(kernel, number).socket for number in range(40))
        while listening.queue:
            try:
                reactor.turn()
            except OSError as error:
                left = len(listening.queue)
                raise Failure(f"{error.strerror} ends the loop; {left} of 40 wait") from error
        return f"{40 - len(accepted)} are dead, and the other {len(accepted)} of 40 are accepted"


def ready_for_all(self: Listener) -> None:
    while True:
        try:
            sock, address = self._sock.accept()
        except BlockingIOError:
            return
        self._accepted(sock, address)


class TestBatch(Pitfall):
    """100 connections come at once, and a client that was there before asks for a key."""

    usually = "nobody is served while connections come"
    wrong = in_a_turn(" accept ", 64)
    handled = "kv.net.listener.BATCH"
    naive = {"kv.net.listener.Listener._ready": ready_for_all}

    def scenario(self) -> str:
        with ExitStack() as stack, house() as h:
            client = h.guest().connect()
            for _ in range(100):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", h.port))
            client.socket.send(client.key.seal(b"GET k"))
            h.reactor.turn()
            accepted = len(h.server.connections) - 1
            stack.close()
            h.settle()
            told = f"{accepted} of 100 connections are accepted in one turn of the loop"
            if accepted > BATCH:
                raise Failure(told)
            return told
