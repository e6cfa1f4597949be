"""One client: joins its stream and its conversation.

Whatever happens to a connection, from a reset by its peer to a mistake in this program, ends in
`Connection.closed`, once: so that is where all that belongs to it is given back.
"""

import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kv.errors import Violation
from kv.net.address import Address, shown
from kv.net.log import PEERS
from kv.net.owner import Stalled, TlsError
from kv.net.stream import Stream
from kv.protocol.conversation import ServerConversation
from kv.protocol.messages import State

if TYPE_CHECKING:
    from kv.server import Server

log = logging.getLogger("kv")
peers = logging.getLogger(PEERS)


class Connection:
    """One client: a stream whose lines go to a conversation, whose replies go to the stream."""

    __slots__ = ("_address", "_deadline", "_kind", "_owed", "_server", "conversation", "stream")

    def __init__(self, server: "Server", sock: socket.socket, address: Address) -> None:
        self._server = server
        self._address = shown(address)  # a text takes half of what the tuple takes
        self._kind = ""  # of reason for which the client was dropped or lost
        self._owed = False  # it was owed something when the idle deadline last looked
        self.conversation = ServerConversation(server.service)
        settings, reactor = server.settings, server.reactor
        tls = server.tls() if server.tls is not None else None
        self.stream = Stream(reactor, sock, self, server.limits, server.turns, tls)
        # From now until CONNECT: OK, and nothing that the client sends extends it: one octet a
        # second would otherwise keep a connection for ever (24).
        self._deadline = reactor.call_later(settings.handshake_timeout, self._handshake_timed_out)

    def __str__(self) -> str:
        client_id, tls = self.conversation.client_id, self.stream.transport.tls
        where = f"{client_id!r} at {self._address}" if client_id else self._address
        return f"{where}, certificate {tls.peer!r}" if tls is not None and tls.peer else where

    # What the stream calls

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Messages: answers them, or drops the client; returns the work that took."""
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
            for note in getattr(violation, "__notes__", ()):  # what the client said is its data
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
        """Nothing here waits for that: the stream itself holds the client up."""

    def drained(self) -> None:
        """Nor for that."""

    def end_received(self) -> None:
        """The client will send no more, and all it sent is answered: the session is over."""
        peers.debug("%s ended its side", self)
        self._close()

    def closed(self, error: Exception | None, ours: bool) -> None:
        """The socket is closed, and with it goes the session, if there still was one."""
        self._deadline.cancel()
        try:
            self.conversation.close()
        finally:  # a mistake there is one connection's: its place is free all the same (28)
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
        """The message that was answered last began the session, or ended it."""
        self._deadline.cancel()
        if self.conversation.session is None:
            peers.debug("%s disconnected", self)
            self._close()
            return
        if self.stream.transport.tls is not None and self.stream.transport.tls.peer:
            peers.info("%s has a session", self)
        if self._server.settings.idle_timeout:
            self._wait_for_a_message(self._server.settings.idle_timeout)

    def _drop(self, kind: str, reason: str) -> None:
        """The id is free at once; replies owed for earlier messages are still sent."""
        self._count(kind)
        peers.info("dropped %s: %s", self, reason)
        self._close()

    def _count(self, kind: str) -> None:
        """Counts a client that was dropped or lost: by the first reason that there was."""
        if not self._kind:
            self._kind = kind
            self._server.drops[kind] += 1

    def _close(self) -> None:
        self.conversation.close()
        self._server.sweep_soon()
        self._deadline.cancel()
        self.stream.close()

    def leave(self) -> bool:
        """Closes at once; whether it was still to be answered. Delivery is the kernel's matter."""
        self._deadline.cancel()  # it may be due in this very turn
        self.stream.leave()
        return self.conversation.state is not State.CLOSED

    def _handshake_timed_out(self) -> None:
        seconds = self._server.settings.handshake_timeout
        self._drop("handshake", f"no CONNECT: OK within {seconds:g} s")

    def _wait_for_a_message(self, seconds: float) -> None:
        self._deadline = self._server.reactor.call_later(seconds, self._idled)

    def _idled(self) -> None:
        """So long after CONNECT, or after the last look; but perhaps there was a message since.

        Or perhaps we owe the client something, and have for a while: then it is not the one who
        keeps us waiting (40).
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
