"""The listeners and the connections that came of them, within the server's limits."""

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
    from kv.net.tls import Tls

log = logging.getLogger("kv")
peers = logging.getLogger(PEERS)

#: Units of work that accepting a connection is.
ACCEPTING = 60
#: Octets asked of one `recv` when TLS is spoken: 16 KiB of key updates would be 20 ms of work.
TLS_READ = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """What peers may cost: connections, deadlines in seconds (an `idle_timeout` of 0 is never)."""

    max_connections: int = 10_000
    handshake_timeout: float = 10.0
    idle_timeout: float = 3600.0
    quantum: int = QUANTUM  # µs of work for one client at a time,
    budget: int = BUDGET  # and for all in one turn of the loop
    unsent: int = UNSENT  # octets of replies that all clients together may leave unsent
    stream: Limits = field(default_factory=Limits)


class Server:
    """The listeners, and the connections that came of them."""

    def __init__(
        self,
        reactor: Reactor,
        service: Service,
        settings: Settings,
        sockets: list[socket.socket],
        tls: "Callable[[], Tls] | None" = None,
    ) -> None:
        """With `tls`, which makes one for each new connection, TLS is spoken and nothing else."""
        self.reactor = reactor
        self.service = service
        self.settings = settings
        self.tls = tls
        self.limits = (
            settings.stream if tls is None else replace(settings.stream, read_size=TLS_READ)
        )
        self.connections: dict[Connection, None] = {}  # a set that keeps its order
        self.drops: Counter[str] = Counter()  # by kind of reason
        self.cut_short = 0  # connections that a stop ended before all was answered and delivered
        self.turns = Turns(reactor, settings.quantum, settings.budget, settings.unsent)
        self._started = reactor.time()
        self._total = 0
        self._pauses = 0
        self._gone = Counter[str]()  # what the connections that are gone have counted
        self._stopping = False
        self._sweeping = False  # a call of _sweep is deferred
        self._listeners = [Listener(reactor, sock, self._accepted) for sock in sockets]
        for listener in self._listeners:
            log.info("listening on %s", shown(listener.address))

    def stop(self, timeout: float) -> None:
        """Ends gracefully, and the reactor with it, after `timeout` seconds at the latest.

        What had reached the sockets is answered, also on connections that wait to be accepted
        (46); then everything is closed. Who does not get everything is counted.
        """
        self._stopping = True
        log.info("stopping: %s to finish", plural(len(self.connections), "connection"))
        for listener in self._listeners:
            listener.finish(self._stop_if_done)
        for connection in self.connections:
            connection.stream.finish()
        self.reactor.call_later(timeout, self._cut_short)

    def forget(self, connection: Connection) -> None:
        """The connection is closed: there is room for another."""
        if connection not in self.connections:
            return  # it was never set up
        if len(self.connections) == self.settings.max_connections and not self._stopping:
            for listener in self._listeners:
                listener.resume()
        del self.connections[connection]
        self.sweep_soon()
        self._gone.update(counted(connection.stream))
        self.cut_short += self._stopping and connection.stream.transport.undelivered > 0
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
        if self._stopping:
            connection.stream.finish()
        elif len(self.connections) == self.settings.max_connections:
            self._pauses += 1
            for listener in self._listeners:
                listener.pause()

    def sweep_soon(self) -> None:
        """Forgets what ended sessions have stored, a bit in each turn."""
        if not self._sweeping and self.service.store.sweep(0):
            self._sweeping = True
            self.reactor.call_soon(self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        self.service.store.sweep()
        self.sweep_soon()

    def _cut_short(self) -> None:
        """The time for a stop is over: whoever is left does not get everything."""
        for connection in list(self.connections):
            unanswered = connection.leave()
            self.cut_short += unanswered and not connection.stream.transport.undelivered
        # Now there are descriptors again: who still waits may be waiting for one (18).
        self.cut_short += sum(listener.refuse() for listener in self._listeners)
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        if (
            self._stopping
            and not self.connections
            and not any(listener.listening for listener in self._listeners)
        ):
            self.reactor.stop()


def counted(stream: Stream) -> dict[str, int]:
    """A stream's counts."""
    return {
        "lines": stream.lines,
        "received": stream.transport.received,
        "sent": stream.transport.sent,
    }
