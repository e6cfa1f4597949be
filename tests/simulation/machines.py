"""Several machines and the network between them, for the world of `service.py`.

Each machine has a reactor of its own, real, on a selector and clocks of its own. One turn of one
machine is one step of the world. In this world sockets are kind, and the network, the clocks and
the machines are not: octets are held up, connections are cut, clocks run fast or slow, machines
stand still. (What sockets do to one server is what the other world is about.)
"""

import errno
import heapq
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

from kv.net.reactor import READ, WRITE, Reactor

from .kernel import Failure

#: Seconds that a turn of a machine takes.
TURN = 0.0005


class Time:
    """What happens next, and when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = 0

    def at(self, when: float, event: Callable[[], object]) -> None:
        """Makes `event` happen at a time, or now."""
        self._serial += 1
        heapq.heappush(self._events, (max(when, self.now), self._serial, event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until


class Wire:
    """The way from one place to another. While it is cut, what is sent waits."""

    def __init__(self, time: Time, latency: Callable[[], float]) -> None:
        self.time = time
        self.latency = latency
        self.cut_until = 0.0

    def arrival(self) -> float:
        """When what is sent now arrives."""
        return max(self.time.now, self.cut_until) + self.latency()


class End:
    """One end of a connection, with the methods of `socket.socket` that a stream uses."""

    _numbers = 0

    def __init__(self, time: Time, wire: Wire, heard: Callable[[], object]) -> None:
        End._numbers += 1
        self.fd = End._numbers
        self.time = time
        self.wire = wire
        self.heard = heard  # told when something has arrived
        self.other: End | None = None
        self.inbox = bytearray()
        self.fin = self.reset = self.shut = self.closed = False
        self.resets = False  # closing it sends RST
        self._last = 0.0  # when what was sent last arrives

    # What a stream calls

    def fileno(self) -> int:
        return -1 if self.closed else self.fd

    def setblocking(self, flag: bool) -> None:
        """Here nothing blocks."""

    def setsockopt(self, _level: int, _option: int, value: Any) -> None:
        """SO_LINGER alone matters."""
        self.resets = self.resets or isinstance(value, bytes)

    def recv(self, size: int) -> bytes:
        if self.inbox:
            data = bytes(self.inbox[:size])
            del self.inbox[:size]
            return data
        if self.reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if self.fin:
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing has arrived")

    def send(self, data: bytes | bytearray, _flags: int = 0) -> int:
        """Takes it all."""
        if self.reset:
            raise BrokenPipeError(errno.EPIPE, "reset")
        octets = bytes(data)
        self._carry(lambda other: other.arrive(octets))
        return len(octets)

    def shutdown(self, _how: int) -> None:
        if self.reset:
            raise OSError(errno.ENOTCONN, "reset")
        self.shut = True
        self._carry(lambda other: other.end(fin=True))

    def close(self) -> None:
        """FIN or RST follows what was sent before."""
        if self.closed:
            raise Failure("closed twice")
        self.closed = True
        if not self.reset:
            fin = not (self.resets or self.inbox)
            self._carry(lambda other: other.end(fin))

    # What the network does

    def stick(self, seconds: float) -> None:
        """What is sent from now on arrives so much later."""
        self._last = max(self._last, self.time.now + seconds)

    def _carry(self, event: "Callable[[End], object]") -> None:
        other = self.other
        assert other is not None
        self._last = max(self._last, self.wire.arrival())
        self.time.at(self._last, lambda: event(other))

    def arrive(self, octets: bytes) -> None:
        """Octets have come, for somebody or for nobody."""
        if self.closed:
            if not self.reset:
                self.reset = True
                self._carry(lambda other: other.end(fin=False))
        elif not self.reset:
            self.inbox += octets
            self.heard()

    def end(self, fin: bool) -> None:
        """FIN or RST has come."""
        self.fin = True
        if not fin and not self.reset:
            self.reset = True
            self.inbox.clear()
        if not self.closed:
            self.heard()

    @property
    def ready(self) -> int:
        return WRITE | (READ if self.inbox or self.fin or self.reset else 0)


def pair(a: End, b: End) -> None:
    a.other, b.other = b, a


class Selector:
    """Says what is ready, and never sleeps: a machine's turns are the world's to give."""

    def __init__(self) -> None:
        self.registered: dict[Any, tuple[int, Any]] = {}

    def register(self, file: Any, interest: int, data: Any) -> None:
        self.registered[file] = interest, data

    modify = register

    def unregister(self, file: Any) -> None:
        del self.registered[file]

    def select(self, _timeout: float | None) -> list[tuple[Any, int]]:
        return [
            (SimpleNamespace(data=data), file.ready & interest)
            for file, (interest, data) in list(self.registered.items())
            if file.ready & interest
        ]

    def is_ready(self) -> bool:
        return any(file.ready & interest for file, (interest, _) in self.registered.items())

    def close(self) -> None:
        """See `selectors`."""

    def get_map(self) -> dict[Any, Any]:
        return self.registered


class Machine:
    """A machine with one process: its clocks, its turns, and when it stands still."""

    def __init__(self, time: Time, rng: Random, after: Callable[[], object]) -> None:
        self.time = time
        self.rate = 1 + rng.uniform(-0.02, 0.02)  # of its clocks
        self.started = time.now
        self.asleep = 0.0  # seconds in which its monotonic clock stood, too
        self.still_until = 0.0
        self.dead = False
        self.selector = Selector()
        self._after = after
        self._due = float("inf")  # when its next turn comes
        self.reactor = Reactor(self.selector, self.monotonic)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return (self.time.now - self.asleep) * self.rate

    def boottime(self) -> float:
        return self.time.now * self.rate

    @property
    def running(self) -> bool:
        return not self.dead and self.time.now >= self.still_until

    def stand_still(self, seconds: float, sleeps: bool) -> None:
        """Stops it for so long: its process alone, or all of it."""
        self.still_until = max(self.still_until, self.time.now + seconds)
        if sleeps:
            self.asleep += seconds
        self.poke()

    def poke(self) -> None:
        """There is something to do: a turn comes soon."""
        self._plan(self.time.now)

    def _plan(self, when: float) -> None:
        if when < self._due:
            self._due = when
            self.time.at(when, lambda: self._turn(when))

    def _turn(self, due: float) -> None:
        if self.dead or self._due != due:
            return
        self._due = float("inf")
        if not self.running:
            self._plan(self.still_until)
            return
        self.reactor.turn()
        self._after()
        sleep = self.reactor._sleep()
        if sleep != 0 and self.selector.is_ready():
            sleep = 0
        if sleep is not None:
            self._plan(self.time.now + max(TURN, sleep / self.rate))
