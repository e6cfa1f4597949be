"""One client: joins its stream and its conversation.

A connection can end in many ways, from a reset by the peer to a mistake in this program. Every way
leads to `Connection.closed`, once. So that is where everything of the connection is given back.
"""

import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kv.errors import Violation
from kv.net.address import Address, shown
from kv.net.log import PEERS, cause
from kv.net.owner import Stalled, TlsError
from kv.net.stream import Stream
from kv.protocol.conversation import ServerConversation
from kv.protocol.messages import State

if TYPE_CHECKING:
    from kv.registry.claims import Claim
    from kv.server import Server

log = logging.getLogger("kv")
peers = logging.getLogger(PEERS)


class Connection:
    """One client. Lines go from its stream to its conversation, and replies the other way."""

    __slots__ = (
        *("_address", "_claim", "_deadline", "_kind", "_owed", "_server", "_waiting"),
        *("conversation", "stream"),
    )

    def __init__(self, server: "Server", sock: socket.socket, address: Address) -> None:
        self._server = server
        self._address = shown(address)  # a text takes half the memory of the tuple
        self._kind = ""  # why the client was dropped or lost, in one word
        self._claim: Claim | None = None  # on the client id, where several servers share them
        self._waiting = b""  # the reply to CONNECT, until the claim is granted
        self._owed = False  # the server owed it something when the idle deadline last looked
        self.conversation = ServerConversation(server.service)
        settings, reactor = server.settings, server.reactor
        tls = server.tls() if server.tls is not None else None
        self.stream = Stream(reactor, sock, self, server.limits, server.turns, tls)
        # This runs until CONNECT: OK, and nothing that the client sends extends it. Otherwise one
        # octet a second would keep a connection for ever (24).
        self._deadline = reactor.call_later(settings.handshake_timeout, self._handshake_timed_out)

    def __str__(self) -> str:
        client_id, tls = self.conversation.client_id, self.stream.transport.tls
        where = f"{client_id!r} at {self._address}" if client_id else self._address
        return f"{where}, certificate {tls.peer!r}" if tls is not None and tls.peer else where

    # What the stream calls

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Answers messages, or drops the client. Returns how much work that was."""
        conversation, registry = self.conversation, self._server.registry
        if registry is not None and self._claim is not None and not registry.holds(self._claim):
            self._drop("registry", "the lease of its client id has run out")
            return 1
        session = conversation.session
        replies: list[bytes] = []
        violation = None
        try:
            conversation.answer(lines, budget, replies)
        except Violation as error:
            violation = error
        changed = conversation.session is not session
        if changed and registry is not None and violation is None:
            self._waiting = replies.pop()
        if replies:
            replies.append(b"")
            self.stream.write(b"\n".join(replies))
        if violation is not None:
            for note in getattr(violation, "__notes__", ()):  # these quote the client's data
                log.debug("%s: %s", self, note)
            self._drop("violation", str(violation))
        elif changed:
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
        unanswered = ours and self.conversation.state is not State.CLOSED
        self._give_back()
        try:
            self.conversation.close()
        finally:  # even after a mistake there, the connection's place is free (28)
            self._server.forget(self, unanswered)
        if ours:
            self._count("error")
            log.error("dropped %s: an error in this server", self, exc_info=error)
        elif error is not None and not self.stream.transport.received:  # as health checks do
            peers.debug("lost %s, who had said nothing: %s", self, error)
        elif error is not None:
            tls, stall = isinstance(error, TlsError), isinstance(error, Stalled)
            self._count("tls" if tls else "stall" if stall else "lost")
            peers.info("lost %s: %s", self, cause(error))

    # What the registry calls

    def claim_granted(self) -> None:
        """No other server has a session under the client id: CONNECT: OK."""
        self._answer(self._waiting)
        self._session_begun()

    def claim_refused(self, reason: str) -> None:
        """Another may have one: CONNECT: ERROR."""
        peers.info("refused %s: %s", self, reason)
        self._claim = None
        self._answer(self.conversation.refuse())

    def claim_lost(self, reason: str) -> None:
        """Another may have one by now."""
        self._claim = None
        self._drop("registry", reason)

    def claim_over(self) -> None:
        """The id is free, for whichever server is asked: DISCONNECT: OK."""
        peers.debug("%s disconnected", self)
        self._claim = None
        if self._waiting:
            self._answer(self._waiting)
        self._close()

    def _answer(self, reply: bytes) -> None:
        self._waiting = b""
        self.stream.write(reply + b"\n")
        self.stream.go_on()

    # Ending it

    def _session_changed(self) -> None:
        """The last message began the session, or ended it."""
        registry = self._server.registry
        if self.conversation.session is None:
            self._deadline.cancel()
            if registry is None or self._claim is None:
                self.claim_over()
            else:
                # Who has read DISCONNECT: OK may use the id again, at any server. So that waits.
                self.stream.wait()
                registry.give_back(self._claim, tell=True)
        elif registry is None:
            self._session_begun()
        else:
            # CONNECT: OK is only true if no other server has the id. The registry knows, and may
            # be slow, or gone. So this client waits, with all that it sends, and nobody else (54).
            self.stream.wait()
            self._claim = registry.claim(self.conversation.client_id, self)

    def _session_begun(self) -> None:
        """CONNECT: OK is sent."""
        self._deadline.cancel()
        if self.stream.transport.tls is not None and self.stream.transport.tls.peer:
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

    def _give_back(self) -> None:
        """The id, or the wish to have it, if somebody else has been asked for it."""
        if self._claim is not None and self._server.registry is not None:
            self._server.registry.give_back(self._claim)
            self._claim = None

    def _close(self) -> None:
        self._give_back()
        self.conversation.close()
        self._server.sweep_soon()
        self._deadline.cancel()
        self.stream.close()

    def leave(self) -> bool:
        """Closes at once; the kernel still delivers what it has. Whether answers were missing."""
        self._deadline.cancel()  # it may be due in this turn
        self.stream.leave()
        return self.conversation.state is not State.CLOSED or bool(self._waiting)

    def _handshake_timed_out(self) -> None:
        if self.stream.queued and not self._owed:  # its messages may have come in time
            self._owed = True
            self._deadline = self._server.reactor.call_later(1, self._handshake_timed_out)
            return
        seconds = self._server.settings.handshake_timeout
        if self._claim is not None:
            self._give_back()
            self.claim_refused("the registry has not answered")
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
