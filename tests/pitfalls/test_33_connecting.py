"""Connecting takes time, and ends in one of two ways

`connect` waits for the other side's answer. On the developer's machine it comes at once. Where a
packet filter swallows the question, it takes a minute or two, and nobody else is served meanwhile.
On a non-blocking socket `connect` raises EINPROGRESS, and the socket becomes writable when the
matter is decided.

Writable does not mean connected. SO_ERROR tells. Without asking it, the first `send` fails, and by
then nobody knows what else to try. A name has several addresses: `localhost` may be `::1` and
`127.0.0.1`. When the first one refuses, the next may answer.

What you see: a client that hangs, `Operation now in progress`, or `Connection refused` although
the server runs. What a bystander sees: nothing; the client harms itself alone.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from house import Clock, Selector

from kv.net.address import Address
from kv.net.connector import STAGGER, Attempt, Connector
from kv.net.reactor import Reactor

from .moments import never
from .pitfall import Failure, Pitfall


class Connecting:
    """A connector in a loop of its own, its clock moved by hand."""

    def __init__(self, *sockets: socket.socket) -> None:
        self.clock = Clock()
        self.reactor = Reactor(Selector(), self.clock)
        self.said: list[socket.socket | OSError] = []
        addresses = [(socket.AF_INET, sock.getsockname()) for sock in sockets]
        self.connector = Connector(self.reactor, addresses, 10, self.said.append, self.said.append)

    def outcome(self) -> socket.socket | OSError:
        """A socket that is connected, or why there is none."""
        while not self.said:
            self.reactor.turn()
        return self.said[0]

    def close(self) -> None:
        """Closes whatever there is."""
        self.connector.close()
        self.reactor.close()
        for sock in self.said:
            if isinstance(sock, socket.socket):
                sock.close()


def listening(backlog: int = 10) -> socket.socket:
    """A port that answers."""
    return socket.create_server(("127.0.0.1", 0), backlog=backlog)


def refusing() -> socket.socket:
    """A port that refuses: it is taken, and nobody listens."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@contextmanager
def silent() -> Iterator[socket.socket]:
    """A port that never answers: its queue of connections is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(listening(0))
        for _ in range(20):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener


def begin(self: Connector, family: int, address: Address) -> bool:
    """What is usually written."""
    with closing(socket.socket(family)) as sock:
        sock.connect(address)
        sock.setblocking(False)
        self._connected(sock.dup())
    return True


class TestInProgress(Pitfall):
    """The first of two addresses never answers."""

    usually = "the loop stands still until the other side answers"
    wrong = never("^loop turn is over")
    handled = Connector._begin
    naive = {"kv.net.connector.Connector._begin": begin}
    patience = 0.3

    def scenario(self) -> str:
        with (
            silent() as first,
            listening() as second,
            closing(Connecting(first, second)) as attempt,
        ):
            for _ in range(50):
                attempt.reactor.turn()
            attempt.clock.now = STAGGER
            sock = attempt.outcome()
            assert isinstance(sock, socket.socket) and sock.getpeername() == second.getsockname()
            return "the loop turns 50 times meanwhile; after 250 ms the next address is tried, too"


def decided(self: Connector, attempt: Attempt) -> None:
    """What is usually written."""
    attempt.registration.set(0)
    self._attempts.remove(attempt)
    self.close()
    self._connected(attempt.sock)


class TestVerdict(Pitfall):
    """The only address refuses."""

    usually = "what is writable is taken for connected"
    unseen = "the verdict is asked for, or not, between two steps"
    handled = Connector._decided
    naive = {"kv.net.connector.Connector._decided": decided}

    def scenario(self) -> str:
        with refusing() as port, closing(Connecting(port)) as attempt:
            outcome = attempt.outcome()
            if isinstance(outcome, OSError):
                return f"it is said not to be connected: {os.strerror(outcome.errno)}"
            try:
                outcome.send(b"x")
            except OSError as error:
                raise Failure(f"it is said to be connected; the first send: {error}") from error
            raise AssertionError("the port did not refuse")


def decided_for_all(self: Connector, attempt: Attempt) -> None:
    """What is usually written."""
    status = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if status:
        self._failed(OSError(status, os.strerror(status)))
    else:
        decided(self, attempt)


class TestNextAddress(Pitfall):
    """The first of two addresses refuses, the second answers."""

    usually = "the first address that refuses is the end"
    wrong = never("^connector asks for write", times=2)
    handled = Connector._decided
    naive = {"kv.net.connector.Connector._decided": decided_for_all}

    def scenario(self) -> str:
        with (
            refusing() as first,
            listening() as second,
            closing(Connecting(first, second)) as attempt,
        ):
            outcome = attempt.outcome()
            if isinstance(outcome, OSError):
                raise Failure(f"after 1 of 2 addresses: {os.strerror(outcome.errno)}")
            return "after 2 of 2 addresses: connected"
