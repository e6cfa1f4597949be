"""The real server in this process: real sockets on loopback, a clock that is moved by hand.

The selector never sleeps: `settle` turns the loop until nothing is ready any more, and the clock
stands still meanwhile, so a deadline passes exactly when a test says so.
"""

import select
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from certificates import SERVER
from tls_peer import TlsSocket
from wire import KEY, Key, open_line

from kv.net import tcp
from kv.net.credentials import server_tls
from kv.net.listener import listen
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.protocol.cipher import PrivateKey
from kv.protocol.conversation import Service
from kv.protocol.messages import Wire
from kv.protocol.store import Store
from kv.server import Server, Settings

SERVER_KEY = PrivateKey.generate()
VALUE = "v" * 265  # the longest there is

#: Whether houses and their guests speak TLS, where nothing else is said.
TLS = False


class Clock:
    """Seconds since the test began."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Selector(selectors.DefaultSelector):
    """Counts how often it was asked and how often in vain; says what is ready now."""

    asked = 0
    idle = 0
    bound: float | None = None  # seconds that the last sleep could have taken

    def select(self, timeout: float | None = None) -> list[Any]:
        if self.idle == 2:  # a busy kernel delivers in a thread of its own, which needs a processor
            time.sleep(0.0001)
        ready = super().select(0)
        self.asked += 1
        self.bound = timeout
        self.idle = 0 if ready or timeout == 0 else self.idle + 1
        return ready


class Dozing(selectors.DefaultSelector):
    """Sleeps, but never long, because the clock may have been moved meanwhile."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return super().select(0.005 if timeout is None else min(timeout, 0.005))


def unacknowledged(sock: socket.socket) -> int | None:
    """The kernel's answer once it has had its time: it delays acknowledgements by 40 ms.

    That is nothing, but this clock stands still meanwhile, and moves by hours at a time.
    """
    for _ in range(30):
        if not (held := _unacknowledged(sock)):
            break
        time.sleep(0.002)
    return held


_unacknowledged = tcp.unacknowledged


def open_descriptors() -> int:
    """How many descriptors this process has open, and the one to count them with."""
    return len(list(Path("/dev/fd").iterdir()))


class House:
    """A server that listens on loopback, and the means to make time pass."""

    def __init__(
        self,
        stream: dict[str, Any],
        memory: int,
        settings: dict[str, Any],
        tls: bool,
        registry: Any = None,
    ) -> None:
        self.clock = Clock() if registry is None else registry.clock
        self.selector = Selector()
        self.reactor = Reactor(self.selector, self.clock)
        self.store = Store(memory)
        service = Service(Wire(), SERVER_KEY, self.store)
        self.sockets = listen("127.0.0.1", 0)
        self.port = self.sockets[0].getsockname()[1]
        chosen = Settings(stream=Limits(**stream), **settings)
        self.tls = tls
        maker = server_tls(*SERVER) if tls else None
        joined = registry.join(self.reactor) if registry is not None else None
        self.server = Server(self.reactor, service, chosen, self.sockets, maker, joined)
        self.registry = registry
        self.guests: list[Guest] = []

    def settle(self) -> None:
        """Turns the loop until nothing is ready and nothing deferred, three times in a row."""
        self.selector.idle = 0
        for _ in range(100_000):
            if self.selector.idle >= 3:
                return
            self.reactor.turn()
            for guest in self.guests:
                guest.read()
            if self.registry is not None and self.registry.read():
                self.selector.idle = 0
        raise AssertionError("the loop does not come to rest: it spins")

    def wait(self, seconds: float) -> None:
        """Lets time pass, and what is due happen."""
        self.clock.now += seconds
        self.settle()

    def guest(self, **options: Any) -> "Guest":
        """A client that has connected, and said nothing."""
        guest = Guest(self, **options)
        self.guests.append(guest)
        self.settle()
        return guest

    def owed(self, replies: int, client_id: str = "owed") -> "Guest":
        """A guest that has asked so many times for `VALUE`, and reads nothing."""
        guest = self.guest(reads=False)
        guest.send_raw(guest.key.line).send(f"CONNECT {client_id}", "PUT k", VALUE)
        return guest.send(*["GET k"] * replies)

    def close(self) -> None:
        """Ends the server; nothing may be left."""
        for guest in self.guests:
            guest.socket.close()
        self.settle()
        self.clock.now += 100  # for those who linger or stall
        self.settle()
        assert not self.server.connections
        assert (self.store.used, self.store.remembered, len(self.store)) == (0, 0, 0)
        self.server.stop(0)
        while self.server.registry is not None and self.selector.get_map():
            self.clock.now += 0.01  # a real one takes its time
            time.sleep(0.001)
            self.settle()
        assert not self.selector.get_map()
        self.reactor.close()


class Guest:
    """A client whose socket never blocks; what arrives is read while the house settles."""

    def __init__(self, house: House, reads: bool = True, key: Key = KEY) -> None:
        self.house = house
        self.reads = reads
        self.key = key
        self.received = bytearray()
        self.ended = False  # the server has closed, or reset
        self.socket = socket.socket()
        if not reads:  # with small segments and a small window, the server soon cannot send
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", house.port))
        self.socket.setblocking(False)
        if house.tls:  # it sends twice in a row: Nagle's algorithm would wait, and nobody here does
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = TlsSocket(self.socket)  # type: ignore[assignment]
        self.unsent = bytearray()

    def read(self) -> None:
        """Sends and reads what can be."""
        if self.socket.fileno() < 0:
            return
        try:
            if self.unsent and not self.ended:
                del self.unsent[: self.socket.send(self.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        while self.reads and not self.ended and select.select([self.socket], [], [], 0)[0]:
            self.take(65536)

    def reset(self) -> None:
        """Leaves with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, tcp.NO_LINGER)
        self.socket.close()

    def take(self, size: int) -> int:
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        self.received += data
        self.ended = self.ended or not data
        return len(data)

    def read_on(self, lines: int) -> None:
        """Reads from now on, until it has so many lines in all, or none has come for half a second.

        The kernels open a window that was full in their own time, and the house does not sleep.
        """
        self.reads = True
        quiet = 0
        while self.received.count(b"\n") < lines and not self.ended and quiet < 50:
            before = len(self.received)
            self.house.settle()
            if len(self.received) == before:
                select.select([self.socket], [], [], 0.01)
                quiet += 1
            else:
                quiet = 0
        self.house.settle()

    def send(self, *texts: str) -> "Guest":
        """Seals and sends texts, and lets the house settle."""
        return self.send_raw(b"".join(self.key.seal(text.encode()) for text in texts))

    def send_raw(self, octets: bytes) -> "Guest":
        """Sends octets, now or as the server takes them."""
        self.unsent += octets
        self.house.settle()
        return self

    def connect(self, client_id: str = "alice") -> "Guest":
        """Has a session."""
        self.send_raw(self.key.line)
        self.send(f"CONNECT {client_id}")
        assert self.texts()[-1:] == ["CONNECT: OK"]
        return self

    def texts(self) -> list[str]:
        """The replies so far, the key line left out."""
        public = SERVER_KEY.public
        lines = bytes(self.received).split(b"\n")[1:-1]
        return [open_line(line + b"\n", public.n, public.e) for line in lines]

    @property
    def values(self) -> int:
        """How many times `VALUE` has come whole."""
        return bytes(self.received).count(SERVER_KEY.seal(VALUE.encode()) + b"\n")

    def ask(self, *texts: str) -> list[str]:
        """The replies to `texts`."""
        before = len(self.texts())
        self.send(*texts)
        return self.texts()[before:]


@contextmanager
def house(
    memory: int = 1 << 28,
    stream: Any = None,
    tls: bool | None = None,
    registry: Any = None,
    **settings: Any,
) -> Iterator[House]:
    """A house, checked for leaks when it is closed. With `tls`, it and its guests speak TLS.

    Several houses with one `fake_registry.FakeRegistry` are one service.
    """
    with mock.patch.object(tcp, "unacknowledged", unacknowledged):
        built = House(stream or {}, memory, settings, TLS if tls is None else tls, registry)
        try:
            yield built
            built.close()
        finally:
            for sock in [guest.socket for guest in built.guests] + built.sockets:
                sock.close()
            for connection in list(built.server.connections):
                connection.stream.abort(None)
            if built.server.registry is not None:
                built.server.registry.close()
