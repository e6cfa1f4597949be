"""Ready is a hint, not a promise

A selector says what was so when it looked. By the time of the call, another process that inherited
the listener may have accepted the connection. Or the kernel may have thrown away what it announced:
select(2) says so under BUGS. And often nobody has asked at all. A reply is sent as soon as it is
made, into a buffer that may be full.

On a blocking socket, each of these stops the whole loop. On a non-blocking one, the call raises
`BlockingIOError`, which is an `OSError`. Code that does not expect it drops a healthy client, or
ends the loop.

What you see: `BlockingIOError` now and then, and clients that are dropped for no reason. What a
bystander sees: the service is gone, when the exception was in `accept`; otherwise nothing.
"""

from random import Random
from unittest import mock

from house import house
from simulation.kernel import Dice, Kernel
from simulation.network import Peer

from kv.net.directions import Event, Incoming
from kv.net.listener import Listener
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.transport import Transport
from kv.net.turns import Turns

from .moments import loses, never
from .pitfall import Failure, Pitfall


def ready(self: Listener) -> None:
    sock, address = self._sock.accept()
    self._accepted(sock, address)


class TestAccept(Pitfall):
    """Two listeners share a socket, as two processes do after a fork. Ten clients come."""

    usually = "the loop ends with an exception"
    wrong = never("^#2 accept")
    handled = Listener._ready
    naive = {"kv.net.listener.Listener._ready": ready}

    def scenario(self) -> str:
        with house() as h:
            other = Listener(h.reactor, h.sockets[0].dup(), h.server._accepted)
            try:
                for number in range(10):
                    h.guest().connect(f"client {number}")
            except BlockingIOError as error:
                raise Failure(f"{number} of 10 clients connect; {error!r} ends the loop") from error
            finally:
                other.close()
            return "10 of 10 clients connect"


def read(self: Transport, size: int) -> bytes:
    data = self.sock.recv(size)
    if not data:
        self.step(Event.FIN)
    return data


class TestReceive(Pitfall):
    """In the simulator: a client sends 100 lines, and one `recv` in three would block."""

    shown = "s"
    usually = "a client with whom nothing is wrong is dropped"
    wrong = "^#1 abort"
    handled = Transport.read
    naive = {"kv.net.transport.Transport.read": read}

    def scenario(self) -> str:
        kernel = Kernel(Random(5), Dice(blocked=1 / 3), [])
        reactor, peer = Reactor(kernel.selector, kernel.time), Peer(kernel, 1)
        peer.socket.fd = kernel.open(peer.socket)
        owner = mock.Mock(lines_received=lambda lines, _: len(list(lines)))
        stream = Stream(reactor, peer.socket, owner, Limits(read_size=100), Turns(reactor))
        peer.write(b"a line\n" * 100)
        while stream.transport.incoming is Incoming.OPEN and stream.lines < 100:
            reactor.turn()
        if stream.lines < 100:
            raise Failure(
                f"{stream.lines} of 100 lines arrive; then {owner.closed.call_args[0][0]!r}"
            )
        blocked = sum("recv would block" in what for what in kernel.trace)
        return f"100 of 100 lines arrive; {blocked} times `recv` would have blocked"


def send(self: Transport) -> None:
    while self.unsent:
        sent = self.sock.send(self.unsent)
        self.unsent = self.unsent[sent:]


class TestSend(Pitfall):
    """A client that does not read yet asks for a value of 265 characters 300 times."""

    usually = "a client that reads slowly is dropped"
    wrong = loses
    handled = Transport.send
    naive = {"kv.net.transport.Transport.send": send}

    def scenario(self) -> str:
        with house(stream={"high_water": 1 << 20}) as h:
            guest = h.owed(300)
            guest.read_on(303)
            replies = guest.received.count(b"\n") - 3
            if h.server.drops:
                raise Failure(f"{replies} of 300 replies arrive; the client is dropped")
            return f"{replies} of 300 replies arrive"
