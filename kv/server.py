"""Joins a stream and a conversation for each client, within the server's limits.

Whatever happens to a connection, from a reset by its peer to a mistake in this program, ends in
`Connection.closed`, once: so that is where all that belongs to it is given back.
"""

import logging
import math
import socket
from collections import Counter
from dataclasses import dataclass, field

from kv.errors import Violation
from kv.net.address import Address, shown
from kv.net.listener import Listener
from kv.net.reactor import Reactor
from kv.net.stream import Limits, Phase, Stalled, Stream
from kv.protocol.conversation import ServerConversation, Service

log = logging.getLogger("kv")


@dataclass(frozen=True, slots=True)
class Settings:
    """What peers may cost: connections, deadlines in seconds (an `idle_timeout` of 0 is never)."""

    max_connections: int = 10_000
    handshake_timeout: float = 10.0
    idle_timeout: float = 3600.0
    stream: Limits = field(default_factory=Limits)


class Connection:
    """One client: a stream whose lines go to a conversation, whose replies go to the stream."""

    __slots__ = ("_address", "_deadline", "_idle_timeout", "_server", "conversation", "stream")

    def __init__(self, server: "Server", sock: socket.socket, address: Address) -> None:
        self._server = server
        self._address = address
        self.conversation = ServerConversation(server.service)
        self.stream = Stream(server.reactor, sock, self, server.settings.stream)
        # From now until CONNECT: OK, and nothing that the client sends extends it: one octet a
        # second would otherwise keep a connection for ever (24).
        seconds = server.settings.handshake_timeout
        self._idle_timeout = server.settings.idle_timeout or math.inf
        self._deadline = server.reactor.call_later(seconds, self._handshake_timed_out)

    def __str__(self) -> str:
        client_id = self.conversation.client_id
        return f"{client_id!r} at {shown(self._address)}" if client_id else shown(self._address)

    def line_received(self, line: bytes) -> int:
        """A message: answers it, or drops the client; returns the work that took."""
        conversation = self.conversation
        in_session = conversation.session is not None
        try:
            reply = conversation.receive(line)
        except Violation as violation:
            self._drop("violation", str(violation))
            return 1
        if reply:
            self.stream.write_line(reply)
        if in_session and conversation.session is None:
            log.debug("%s disconnected", self)
            self._close()
        elif not in_session and conversation.session is not None:
            self._deadline.cancel()
            self._deadline = self._server.reactor.call_later(self._idle_timeout, self._idled)
        return conversation.work

    def line_too_long(self) -> None:
        """Drops the client."""
        size = self._server.settings.stream.line_size
        self._drop("violation", f"a line of more than {size} octets")

    def drained(self) -> None:
        """Nothing here waits for that: the stream itself holds the client up."""

    def end_received(self) -> None:
        """The client will send no more, and all it sent is answered: the session is over."""
        log.debug("%s ended its side", self)
        self._close()

    def closed(self, error: Exception | None) -> None:
        """The socket is closed, and with it goes the session, if there still was one."""
        self.conversation.close()
        self._deadline.cancel()
        if isinstance(error, OSError):
            self._server.drops["stall" if isinstance(error, Stalled) else "lost"] += 1
            log.info("lost %s: %s", self, error.strerror or error)
        elif error is not None:
            self._server.drops["error"] += 1
            log.error("dropped %s: an error in this server", self, exc_info=error)
        self._server.forget(self)

    def _drop(self, kind: str, reason: str) -> None:
        """The id is free at once; replies owed for earlier messages are still sent."""
        if self.stream.phase is not Phase.OPEN:
            return  # a deadline, and the stream is being finished already
        self._server.drops[kind] += 1
        log.info("dropped %s: %s", self, reason)
        self._close()

    def _close(self) -> None:
        self.conversation.close()
        self._deadline.cancel()
        self.stream.close()

    def _handshake_timed_out(self) -> None:
        seconds = self._server.settings.handshake_timeout
        self._drop("handshake", f"no CONNECT: OK within {seconds:g} s")

    def _idled(self) -> None:
        """So long after CONNECT; but perhaps there was a message since then."""
        left = self.stream.heard + self._idle_timeout - self._server.reactor.time()
        if left > 0:
            self._deadline = self._server.reactor.call_later(left, self._idled)
        else:
            self._drop("idle", f"no message for {self._idle_timeout:g} s")


class Server:
    """The listeners, and the connections that came of them."""

    def __init__(
        self, reactor: Reactor, service: Service, settings: Settings, sockets: list[socket.socket]
    ) -> None:
        self.reactor = reactor
        self.service = service
        self.settings = settings
        self.connections: dict[Connection, None] = {}  # a set that keeps its order
        self.drops: Counter[str] = Counter()  # by kind of reason
        self.cut_short = 0  # connections that a stop ended before all was answered and sent
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

        No new connections; what had reached the sockets is answered; then everything is closed.
        """
        self._stopping = True
        log.info("stopping: %d connections to finish", len(self.connections))
        for listener in self._listeners:
            listener.close()
        for connection in self.connections:
            connection.stream.finish()
        self.reactor.call_later(timeout, self._cut_short)
        self._stop_if_done()

    def forget(self, connection: Connection) -> None:
        """The connection is closed: there is room for another."""
        if connection not in self.connections:
            return  # it was never set up
        if len(self.connections) == self.settings.max_connections and not self._stopping:
            for listener in self._listeners:
                listener.resume()
        del self.connections[connection]
        if not self._sweeping:
            self._sweep()
        self._gone.update(counted(connection.stream))
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
        connection = Connection(self, sock, address)
        self.connections[connection] = None
        self._total += 1
        log.debug("%s connected", connection)
        if len(self.connections) == self.settings.max_connections:
            self._pauses += 1
            for listener in self._listeners:
                listener.pause()

    def _sweep(self) -> None:
        """Forgets what a large session has stored, a bit in each turn."""
        self._sweeping = self.service.store.sweep()
        if self._sweeping:
            self.reactor.call_soon(self._sweep)

    def _cut_short(self) -> None:
        for connection in list(self.connections):
            self.cut_short += connection.stream.phase is not Phase.LINGERING
            connection.stream.abort(None)

    def _stop_if_done(self) -> None:
        if self._stopping and not self.connections:
            self.reactor.stop()


def counted(stream: Stream) -> dict[str, int]:
    """A stream's counts."""
    return {"lines": stream.lines, "received": stream.received, "sent": stream.sent}
