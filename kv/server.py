"""Joins a stream and a conversation for each client, and runs the server as a program."""

import logging
import signal
import socket
from dataclasses import dataclass

from kv.address import Address, shown
from kv.cipher import PrivateKey
from kv.errors import Violation
from kv.listener import Listener, listen
from kv.protocol import ServerConversation, Service, State, Wire
from kv.reactor import Reactor
from kv.store import Store
from kv.stream import Limits, Phase, Stream

log = logging.getLogger("kv")

#: Seconds within which a second signal is the first one arriving twice: at Ctrl-C the terminal
#: sends one to the whole foreground group, and `make` passes its own on.
SAME_REQUEST = 1.0


class Connection:
    """One client: a stream whose lines go to a conversation, whose replies go to the stream."""

    __slots__ = ("_address", "_server", "conversation", "stream")

    def __init__(self, server: "Server", sock: socket.socket, address: Address) -> None:
        self._server = server
        self._address = address
        self.conversation = ServerConversation(server.service)
        self.stream = Stream(server.reactor, sock, self, server.limits)

    def __str__(self) -> str:
        client_id = self.conversation.client_id
        return f"{client_id!r} at {shown(self._address)}" if client_id else shown(self._address)

    def line_received(self, line: bytes) -> int:
        """A message: answers it, or drops the client; returns the work that took."""
        try:
            reply = self.conversation.receive(line)
        except Violation as violation:
            self._drop(str(violation))
            return 1
        if reply:
            self.stream.write_line(reply)
        if self.conversation.state is State.CLOSED:
            log.debug("%s disconnected", self)
            self.stream.close()
        return self.conversation.work

    def line_too_long(self) -> None:
        """Drops the client."""
        self._drop(f"a line of more than {self._server.limits.line_size} octets")

    def end_received(self) -> None:
        """The client will send no more, and all it sent is answered: the session is over."""
        log.debug("%s ended its side", self)
        self.conversation.close()
        self.stream.close()

    def closed(self, error: Exception | None) -> None:
        """The connection is gone, and with it the session, if there still was one."""
        self.conversation.close()
        if isinstance(error, OSError):
            log.info("lost %s: %s", self, error.strerror or error)
        elif error is not None:
            log.error("dropped %s: an error in this server", self, exc_info=error)
        self._server.forget(self)

    def _drop(self, reason: str) -> None:
        """The id is free at once; replies owed for earlier messages are still sent."""
        log.info("dropped %s: %s", self, reason)
        self.conversation.close()
        self.stream.close()


class Server:
    """The listeners, and the connections that came of them."""

    def __init__(
        self, reactor: Reactor, service: Service, limits: Limits, sockets: list[socket.socket]
    ) -> None:
        self.reactor = reactor
        self.service = service
        self.limits = limits
        self.connections: set[Connection] = set()
        self.cut_short = 0  # connections that a stop ended before all was answered and sent
        self._stopping = False
        self._listeners = [Listener(reactor, sock, self._accepted) for sock in sockets]
        for listener in self._listeners:
            log.info("listening on %s", shown(listener.address))

    def stop(self, timeout: float) -> None:
        """Ends gracefully, and the reactor with it, after `timeout` seconds at the latest.

        No new connections; what had reached the sockets is answered; then everything is closed.
        """
        if self._stopping:
            return
        self._stopping = True
        log.info("stopping: %d connections to finish", len(self.connections))
        for listener in self._listeners:
            listener.close()
        for connection in self.connections:
            connection.stream.finish()
        self.reactor.call_later(timeout, self._cut_short)
        self._stop_if_done()

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        self.connections.discard(connection)
        self._stop_if_done()

    def _accepted(self, sock: socket.socket, address: Address) -> None:
        connection = Connection(self, sock, address)
        self.connections.add(connection)
        log.debug("%s connected", connection)

    def _cut_short(self) -> None:
        for connection in list(self.connections):
            self.cut_short += connection.stream.phase is not Phase.LINGERING
            connection.stream.abort(None)

    def _stop_if_done(self) -> None:
        if self._stopping and not self.connections:
            self.reactor.stop()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line decides. Sizes in bits, times in seconds."""

    host: str = "127.0.0.1"
    port: int = 4242
    wire: Wire = Wire()
    shutdown_timeout: float = 5.0


def serve(settings: Settings) -> int:
    """Serves until a signal comes; returns the exit status. Raises `OSError` if it cannot start.

    All that blocks is done before the reactor runs: making the key and resolving the name (27).
    """
    service = Service(settings.wire, PrivateKey.generate(settings.wire.key_bits), Store())
    sockets = listen(settings.host, settings.port)
    reactor = Reactor()
    limits = Limits(line_size=settings.wire.line_size)
    server = Server(reactor, service, limits, sockets)
    first_signal: float | None = None

    def signalled(number: int) -> None:
        nonlocal first_signal
        if first_signal is None:
            first_signal = reactor.time()
            log.info("%s received", signal.Signals(number).name)
            server.stop(settings.shutdown_timeout)
        elif reactor.time() - first_signal >= SAME_REQUEST:
            raise SystemExit(128 + number)

    try:
        reactor.on_signal(signal.SIGINT, lambda: signalled(signal.SIGINT))
        reactor.on_signal(signal.SIGTERM, lambda: signalled(signal.SIGTERM))
        reactor.run()
    finally:
        reactor.close()
    if server.cut_short:
        log.warning("stopped; %d connections were cut short", server.cut_short)
        return 1
    log.info("stopped")
    return 0
