"""The listeners, and the connections that they accepted, within the server's limits."""

import logging
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kv.connection import Connection
from kv.net.address import Address, shown
from kv.net.listener import Listener
from kv.net.log import PEERS, plural
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.turns import BUDGET, QUANTUM, UNSENT, Turns
from kv.protocol.conversation import Service

if TYPE_CHECKING:
    from kv.net.proxy import Network
    from kv.net.tls import Tls
    from kv.registry.registry import Registry

log = logging.getLogger("kv")
peers = logging.getLogger(PEERS)

#: What accepting a connection costs, in units of work.
ACCEPTING = 60
#: Octets for one `recv` with TLS: 16 KiB of key updates would be 20 ms of work.
TLS_READ = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """What peers may cost. Deadlines are in seconds; an `idle_timeout` of 0 is no deadline."""

    max_connections: int = 10_000
    handshake_timeout: float = 10.0
    idle_timeout: float = 3600.0
    quantum: int = QUANTUM  # µs of work for one client at a time
    budget: int = BUDGET  # µs of work for all clients in one turn of the loop
    unsent: int = UNSENT  # octets of unsent replies to all clients together
    stream: Limits = field(default_factory=Limits)
    balancers: "tuple[Network, ...]" = ()  # whose connections begin with a PROXY header


class Server:
    """The listeners, and the connections that they accepted."""

    def __init__(
        self,
        reactor: Reactor,
        service: Service,
        settings: Settings,
        sockets: list[socket.socket],
        tls: "Callable[[], Tls] | None" = None,
        registry: "Registry | None" = None,
    ) -> None:
        """With `tls`, the server speaks TLS only. `tls` makes the `Tls` of a new connection.

        With `registry`, it shares client ids with all servers that have the same one.
        """
        self.reactor = reactor
        self.service = service
        self.settings = settings
        self.tls = tls
        self.registry = registry
        self.limits = (
            settings.stream if tls is None else replace(settings.stream, read_size=TLS_READ)
        )
        self.connections: dict[Connection, None] = {}  # a set that keeps its order
        self.drops: Counter[str] = Counter()  # by reason
        self.cut_short = 0  # connections that a stop ended before every reply was delivered
        self.turns = Turns(reactor, settings.quantum, settings.budget, settings.unsent)
        self._started = reactor.time()
        self._total = 0
        self._pauses = 0
        self._full = False  # every place is taken, so the listeners are paused
        self._gone = Counter[str]()  # the counts of connections that are closed
        self._stopping = False
        self._sweeping = False  # a call of _sweep is deferred
        accepted = self._accepted
        self._reception = None
        if settings.balancers:
            from kv.net.reception import Reception  # noqa: PLC0415 (few have one)

            balancers, timeout = settings.balancers, settings.handshake_timeout
            self._reception = Reception(reactor, balancers, timeout, self._accepted, self._admit)
            accepted = self._reception.receive
        self._listeners = [Listener(reactor, sock, accepted) for sock in sockets]
        for listener in self._listeners:
            log.info("listening on %s", shown(listener.address))

    def stop(self, timeout: float) -> None:
        """Stops gracefully, and then stops the reactor, after `timeout` seconds at the latest.

        The server answers what has reached its sockets, also on connections that wait to be
        accepted (46). Then it closes them. It counts the clients that do not get everything.
        """
        self._stopping = True
        log.info("stopping: %s to finish", plural(len(self.connections), "connection"))
        if self._reception is not None:
            self._reception.close()
        for listener in self._listeners:
            listener.finish(self._stop_if_done)
        for connection in self.connections:
            connection.stream.finish()
        self.reactor.call_later(timeout, self._cut_short)

    def forget(self, connection: Connection, unanswered: bool) -> None:
        """A connection is closed, so there is room for another."""
        if connection not in self.connections:
            return  # its constructor has failed
        del self.connections[connection]
        self._admit()
        self.sweep_soon()
        self._gone.update(counted(connection.stream))
        deprived = unanswered or connection.stream.transport.undelivered > 0
        self.cut_short += self._stopping and deprived
        self._stop_if_done()

    def statistics(self) -> str:
        """One line about everything since the start."""
        store = self.service.store
        counts = Counter(self._gone)
        for connection in self.connections:
            counts.update(counted(connection.stream))
        keys = sum(len(session.values) for session in store.sessions.values())
        drops = ", ".join(f"{count} {kind}" for kind, count in sorted(self.drops.items()))
        return (
            f"up {self.reactor.time() - self._started:.0f} s;"
            f" connections: {len(self.connections)} now, {self._total} in all,"
            f" accepting paused {self._pauses} times at the limit;"
            f" sessions: {len(store)} with {keys} keys,"
            f" charged {store.used} of {store.capacity} octets;"
            f" messages: {counts['lines']};"
            f" octets: {counts['received']} received, {counts['sent']} sent;"
            f" drops: {drops or 'none'};"
            f" turns: {self.reactor.turns}, the longest {self.reactor.longest_turn * 1000:.1f} ms"
        )

    def _accepted(self, sock: socket.socket, address: Address) -> None:
        try:
            connection = Connection(self, sock, address)
        except Exception:
            self.cut_short += self._stopping
            raise
        self.connections[connection] = None
        self._total += 1
        peers.debug("%s connected", connection)
        self.turns.left -= ACCEPTING
        self._admit()
        if self._stopping:
            connection.stream.finish()

    def _admit(self) -> None:
        """Pauses the listeners while every place is taken (19).

        A connection without its PROXY header has a place, too: it may become a client at any time.
        """
        late = len(self._reception) if self._reception is not None else 0
        full = len(self.connections) + late >= self.settings.max_connections
        if full == self._full or self._stopping:
            return
        self._full = full
        self._pauses += full
        for listener in self._listeners:
            if full:
                listener.pause()
            else:
                listener.resume()

    def sweep_soon(self) -> None:
        """Frees the data of ended sessions, a part in each turn."""
        if not self._sweeping and self.service.store.sweep(0):
            self._sweeping = True
            self.reactor.call_soon(self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        self.service.store.sweep()
        self.sweep_soon()

    def _cut_short(self) -> None:
        """The time for a stop is over: the clients that are left do not get everything."""
        for connection in list(self.connections):
            unanswered = connection.leave()
            self.cut_short += unanswered and not connection.stream.transport.undelivered
        # These closes freed descriptors. Connections in the queue may have waited for one (18).
        self.cut_short += sum(listener.refuse() for listener in self._listeners)
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        if (
            self._stopping
            and not self.connections
            and not any(listener.listening for listener in self._listeners)
        ):
            if self.registry is None:
                self.reactor.stop()
            else:
                self.registry.finish(self.reactor.stop)


def counted(stream: Stream) -> dict[str, int]:
    """A stream's counts."""
    return {
        "lines": stream.lines,
        "received": stream.transport.received,
        "sent": stream.transport.sent,
    }
