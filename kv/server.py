"""Joins a stream and a conversation for each client, within the server's limits.

A connection can end in many ways, from a reset by the peer to a mistake in this program. Every way
leads to `Connection.closed`, once. So that is where everything of the connection is given back.
"""

import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kv.errors import Violation
from kv.net.address import Address, shown
from kv.net.listener import Listener
from kv.net.log import PEERS, plural
from kv.net.owner import Limits, Stalled, TlsError
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.turns import BUDGET, QUANTUM, UNSENT, Turns
from kv.protocol.conversation import ServerConversation, Service
from kv.protocol.messages import State

if TYPE_CHECKING:
    from kv.net.tls import Tls

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


class Connection:
    """One client. Lines go from its stream to its conversation, and replies the other way."""

    __slots__ = ("_address", "_deadline", "_kind", "_owed", "_server", "conversation", "stream")

    def __init__(self, server: "Server", sock: socket.socket, address: Address) -> None:
        self._server = server
        self._address = shown(address)  # a text takes half the memory of the tuple
        self._kind = ""  # why the client was dropped or lost, in one word
        self._owed = False  # the server owed it something when the idle deadline last looked
        self.conversation = ServerConversation(server.service)
        settings, reactor = server.settings, server.reactor
        tls = server.tls() if server.tls is not None else None
        self.stream = Stream(reactor, sock, self, server.limits, server.turns, tls)
        # This runs until CONNECT: OK, and nothing that the client sends extends it. Otherwise one
        # octet a second would keep a connection for ever (24).
        self._deadline = reactor.call_later(settings.handshake_timeout, self._handshake_timed_out)

    def __str__(self) -> str:
        client_id, tls = self.conversation.client_id, self.stream.tls
        where = f"{client_id!r} at {self._address}" if client_id else self._address
        return f"{where}, certificate {tls.peer!r}" if tls is not None and tls.peer else where

    # What the stream calls

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Answers messages, or drops the client. Returns how much work that was."""
        conversation = self.conversation
        session = conversation.session
        replies: list[bytes] = []
        violation = None
        try:
            conversation.answer(lines, budget, replies)
        except Violation as error:
            violation = error
        if replies:
            replies.append(b"")
            self.stream.write(b"\n".join(replies))
        if violation is not None:
            for note in getattr(violation, "__notes__", ()):  # these quote the client's data
                log.debug("%s: %s", self, note)
            self._drop("violation", str(violation))
        elif conversation.session is not session:
            self._session_changed()
        return conversation.work

    def line_too_long(self) -> None:
        """Drops the client."""
        size = self._server.settings.stream.line_size
        self._drop("violation", f"a line of more than {size} octets")

    def held_up(self) -> None:
        """Does nothing: the stream itself stops reading."""

    def drained(self) -> None:
        """Does nothing: the stream itself reads on."""

    def end_received(self) -> None:
        """The client sends no more, and every message is answered: the session is over."""
        peers.debug("%s ended its side", self)
        self._close()

    def closed(self, error: Exception | None, ours: bool) -> None:
        """The socket is closed. Ends the session, if there still is one."""
        self._deadline.cancel()
        try:
            self.conversation.close()
        finally:  # even after a mistake there, the connection's place is free (28)
            self._server.forget(self)
        if ours:
            self._count("error")
            log.error("dropped %s: an error in this server", self, exc_info=error)
        elif error is not None:
            tls, stall = isinstance(error, TlsError), isinstance(error, Stalled)
            self._count("tls" if tls else "stall" if stall else "lost")
            peers.info("lost %s: %s", self, getattr(error, "strerror", None) or error)

    # Ending it

    def _session_changed(self) -> None:
        """The last message began the session, or ended it."""
        self._deadline.cancel()
        if self.conversation.session is None:
            peers.debug("%s disconnected", self)
            self._close()
            return
        if self.stream.tls is not None and self.stream.tls.peer:
            peers.info("%s has a session", self)
        if self._server.settings.idle_timeout:
            self._wait_for_a_message(self._server.settings.idle_timeout)

    def _drop(self, kind: str, reason: str) -> None:
        """Drops the client. Its id is free at once. Replies to earlier messages are still sent."""
        self._count(kind)
        peers.info("dropped %s: %s", self, reason)
        self._close()

    def _count(self, kind: str) -> None:
        """Counts a client that was dropped or lost, by the first reason."""
        if not self._kind:
            self._kind = kind
            self._server.drops[kind] += 1

    def _close(self) -> None:
        self.conversation.close()
        self._server.sweep_soon()
        self._deadline.cancel()
        self.stream.close()

    def leave(self) -> bool:
        """Closes at once; the kernel still delivers what it has. Whether answers were missing."""
        self._deadline.cancel()  # it may be due in this turn
        self.stream.leave()
        return self.conversation.state is not State.CLOSED

    def _handshake_timed_out(self) -> None:
        seconds = self._server.settings.handshake_timeout
        self._drop("handshake", f"no CONNECT: OK within {seconds:g} s")

    def _wait_for_a_message(self, seconds: float) -> None:
        self._deadline = self._server.reactor.call_later(seconds, self._idled)

    def _idled(self) -> None:
        """The idle deadline has come, but there may have been a message since it was set.

        The server may also owe the client something. Then the client does not keep the server
        waiting: the server holds the client up (40).
        """
        timeout, now = self._server.settings.idle_timeout, self._server.reactor.time()
        if self.stream.owes:
            if self._owed:
                self.stream.heard = now
            self._owed = True
            self._wait_for_a_message(min(timeout, 1))
            return
        self._owed = False
        left = self.stream.heard + timeout - now
        if left > 0:
            self._wait_for_a_message(left)
        else:
            self._drop("idle", f"no message for {timeout:g} s")


class Server:
    """The listeners, and the connections that they accepted."""

    def __init__(
        self,
        reactor: Reactor,
        service: Service,
        settings: Settings,
        sockets: list[socket.socket],
        tls: "Callable[[], Tls] | None" = None,
    ) -> None:
        """With `tls`, the server speaks TLS only. `tls` makes the `Tls` of a new connection."""
        self.reactor = reactor
        self.service = service
        self.settings = settings
        self.tls = tls
        self.limits = (
            settings.stream if tls is None else replace(settings.stream, read_size=TLS_READ)
        )
        self.connections: dict[Connection, None] = {}  # a set that keeps its order
        self.drops: Counter[str] = Counter()  # by reason
        self.cut_short = 0  # connections that a stop ended before all was answered and delivered
        self.turns = Turns(reactor, settings.quantum, settings.budget, settings.unsent)
        self._started = reactor.time()
        self._total = 0
        self._pauses = 0
        self._gone = Counter[str]()  # the counts of connections that are closed
        self._stopping = False
        self._sweeping = False  # a call of _sweep is deferred
        self._listeners = [Listener(reactor, sock, self._accepted) for sock in sockets]
        for listener in self._listeners:
            log.info("listening on %s", shown(listener.address))

    def stop(self, timeout: float) -> None:
        """Stops gracefully, and then stops the reactor, after `timeout` seconds at the latest.

        The server answers what has reached its sockets, also on connections that wait to be
        accepted (46). Then it closes them. It counts the clients that do not get everything.
        """
        self._stopping = True
        log.info("stopping: %s to finish", plural(len(self.connections), "connection"))
        for listener in self._listeners:
            listener.finish(self._stop_if_done)
        for connection in self.connections:
            connection.stream.finish()
        self.reactor.call_later(timeout, self._cut_short)

    def forget(self, connection: Connection) -> None:
        """A connection is closed, so there is room for another."""
        if connection not in self.connections:
            return  # its constructor has failed
        if len(self.connections) == self.settings.max_connections and not self._stopping:
            for listener in self._listeners:
                listener.resume()
        del self.connections[connection]
        self.sweep_soon()
        self._gone.update(counted(connection.stream))
        self.cut_short += self._stopping and connection.stream.undelivered > 0
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
            self.cut_short += unanswered and not connection.stream.undelivered
        # These closes freed descriptors. Connections in the queue may have waited for one (18).
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
    return {"lines": stream.lines, "received": stream.received, "sent": stream.sent}
