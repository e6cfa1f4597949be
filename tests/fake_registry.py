"""A registry in this thread, for houses: the model of a Redis on real sockets.

It answers when the house settles, or not, as the test says; its clock is the houses' own.
"""

import contextlib
import socket

from house import Clock
from simulation.redis import Redis, commands

from kv.net.reactor import Reactor
from kv.registry.registry import Registry
from kv.registry.resp import Place

LEASE = 15.0


class FakeRegistry:
    """Listens on loopback; `answers` is whether it answers what it is asked."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.redis = Redis(self.clock)
        # It is not young: that is a lease that no test has to wait for.
        self.redis.set(b"kv:run", b"%d" % self.redis.runs)
        self.answers = True
        self.script: bytes | None = None  # what it says instead, whatever it is asked
        self.accepted = 0  # connections
        self._late: dict[socket.socket, float] = {}  # seconds that answers take
        self._said: list[tuple[float, socket.socket, bytes]] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self._connections: dict[socket.socket, bytearray] = {}

    def __enter__(self) -> "FakeRegistry":
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self.socket, *self._connections):
            sock.close()

    @property
    def unanswered(self) -> int:
        """Requests that have come, and wait for an answer."""
        return sum(buffer.count(b"EVAL") for buffer in self._connections.values())

    @property
    def holder(self) -> dict[str, bytes]:
        """Who holds which id."""
        ids = [key for key in self.redis.keys if key.startswith(b"kv:id:")]
        return {key[6:].decode(): held for key in ids if (held := self.redis.get(key)) is not None}

    def join(self, reactor: Reactor) -> Registry:
        """Makes the server on this reactor one of the service."""
        addresses = [(socket.AF_INET, self.socket.getsockname())]
        place = Place("redis://registry")
        return Registry(reactor, place, addresses, LEASE, clock=self.clock, dice=lambda: 0.0)

    def slow_down(self, seconds: float) -> None:
        """From now on, the connections that there are get their answers so late."""
        self._late = dict.fromkeys(self._connections, seconds)

    def break_off(self) -> None:
        """Closes the connections that there are, with all that was not answered."""
        for sock in self._connections:
            sock.close()
        self._connections.clear()

    def read(self) -> bool:
        """Accepts, reads and answers what there is; whether there was anything."""
        busy = False
        with contextlib.suppress(BlockingIOError):
            sock = self.socket.accept()[0]
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # nobody here waits
            self._connections[sock] = bytearray()
            self.accepted += 1
        for sock, buffer in list(self._connections.items()):
            with contextlib.suppress(BlockingIOError):
                data = received(sock)
                buffer.extend(data)
                if not data:
                    del self._connections[sock]
                    sock.close()
            for words in commands(buffer) if self.answers else ():
                busy = True
                when = self.clock.now + self._late.get(sock, 0.0)
                said = self.redis.execute(words) if self.script is None else self.script
                self._said.append((when, sock, said))
        for said in [said for said in self._said if said[0] <= self.clock.now]:
            self._said.remove(said)
            with contextlib.suppress(OSError):  # who asked has left
                said[1].sendall(said[2])
        return busy


def received(sock: socket.socket) -> bytes:
    """What has arrived, nothing at the end. Raises `BlockingIOError`."""
    try:
        return sock.recv(65536)
    except ConnectionError:
        return b""
