"""Joins a connector, a stream and a conversation: the client's end of one connection.

A link lives on a reactor and blocks nobody. It has all that every client needs: the order of the
handshake, the window, the deadlines. What differs is who waits. `Client` runs a reactor until a
call has its replies. `Shell` runs one for the whole time, and reads a terminal or a pipe on it.
"""

import logging
import socket
import sys
from collections.abc import Iterator
from enum import Enum

from kv.errors import ConnectRefused, Violation
from kv.net.address import shown
from kv.net.connector import Connector
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.turns import Turns
from kv.owner import LinkOwner, Target, unanswered
from kv.protocol.conversation import ClientConversation
from kv.protocol.messages import Command, Message, Reply

log = logging.getLogger("kv")

#: How many commands may be on their way without a reply. Further ones wait, so a script of a
#: million commands takes no more memory than one of a hundred (34).
WINDOW = 64
#: While more octets than this are unsent, further commands wait.
UNSENT = 32 * 1024


class Phase(Enum):
    """How far the conversation has come."""

    GREETING = "connects, exchanges keys, and waits for the reply to CONNECT"
    TALKING = "commands and replies"
    LISTENING = "our side has ended, and the server may still speak"
    OVER = "nothing more is taken"


class Link:
    """The client's end of one connection: connects, exchanges keys, sends commands.

    A `raw` link, once connected, carries any octets and checks nothing that comes back.
    """

    def __init__(
        self, reactor: Reactor, target: Target, owner: LinkOwner, raw: bool = False
    ) -> None:
        self._reactor = reactor
        self._target = target
        self._owner = owner
        self._error: Exception | None = None  # why the link closes the connection, if it does
        self._raw = raw
        self._held = False
        self._phase = Phase.GREETING
        self._conversation = ClientConversation(target.wire, target.key)
        self._stream: Stream | None = None
        self._timer = reactor.call_later(target.timeout, self._timed_out)
        self._connector = Connector(
            reactor, target.addresses, target.timeout, self._socket_connected, self._end
        )

    @property
    def room(self) -> int:
        """How many commands may be sent now."""
        if self._phase is not Phase.TALKING or self._stream is None or self._stream.unsent > UNSENT:
            return 0
        return WINDOW - len(self._conversation.awaiting)

    @property
    def peer(self) -> str:
        """The server's address, for people."""
        return shown(self._connector.address)

    @property
    def idle(self) -> bool:
        """Whether every command has its reply."""
        return not self._conversation.awaiting

    @property
    def greeted(self) -> bool:
        """Whether the server's key has come."""
        return self._conversation.peer is not None

    def send(self, command: Command) -> None:
        """Sends a command. Call `flush` after the last."""
        assert self._stream is not None
        self._stream.write(b"\n".join(self._conversation.lines(command)) + b"\n")

    def send_raw(self, octets: bytes) -> None:
        """Seals and sends any octets."""
        assert self._stream is not None
        self._stream.write(self._conversation.key.seal(octets) + b"\n")

    def half_close(self) -> None:
        """Ends the client's sending side. The link still waits for what the server says."""
        assert self._stream is not None
        self._stream.half_close()
        self._phase = Phase.LISTENING
        self._wait()

    def hold(self, on: bool) -> None:
        """Stops or resumes reading: the reader of the replies is slow, or has caught up."""
        if self._stream is not None and on != self._held:
            self._held = on
            if on:
                self._stream.wait()
            else:
                self._stream.go_on()
            self._wait()  # while the client does not read, no deadline runs against the server

    def flush(self) -> None:
        """Gives the kernel what was sent. Arriving replies do so, too."""
        if self._stream is not None:
            self._stream.flush()
            if not self._timer.runs:
                self._wait()

    def abort(self, error: Exception | None) -> None:
        """Ends the connection at once, and tells the owner `error`."""
        self._connector.close()
        if self._stream is not None:
            self._stream.abort(error)
        else:
            self._end(error)

    def forget(self) -> None:
        """Closes this process's copy of the socket, and nothing else.

        After a fork, parent and child share the connection, its options and the selector's list.
        If the child sends, shuts down, sets or unregisters anything, it does so to the parent (43).
        """
        assert self._stream is not None
        self._stream.transport.sock.close()

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Lines from the server. A violation ends the connection, and the owner is told."""
        work = 0
        try:
            for work, line in enumerate(lines, 1):
                self._line_received(line)
                if work >= budget or self._phase is Phase.OVER or self._held:
                    break
        except Violation as violation:
            self.abort(violation)
        else:
            self._moved()
        return work

    def _line_received(self, line: bytes) -> None:
        if self._raw and self._phase is not Phase.GREETING:
            self._owner.replied(None, self._conversation.read(line) or "")
        elif (answered := self._conversation.receive(line)) is not None:
            self._answered(*answered)
        else:  # CONNECT comes after the server's key, as the protocol says
            self.send(Command.connect(self._target.wire, self._target.client_id))

    def _answered(self, command: Command, reply: str) -> None:
        if command.message is not Message.CONNECT:
            self._owner.replied(command, reply)
            if command.message is Message.DISCONNECT:
                self._close()
        elif reply == Reply.CONNECT_OK.value:
            self._phase = Phase.TALKING
            self._timer.cancel()
            log.debug("connected to %s as %r", self.peer, self._target.client_id)
            self._owner.connected()
        else:
            self._error = ConnectRefused(f"the client id {self._target.client_id!r} is in use")
            self._close()

    def line_too_long(self) -> None:
        """No line of the protocol has so many octets: a violation."""
        size = self._target.wire.line_size
        self.abort(Violation(f"the server sent a line of more than {size} octets"))

    def held_up(self) -> None:
        """Never happens: a client always reads."""

    def drained(self) -> None:
        """The kernel has taken all that was sent."""
        self._moved()

    def end_received(self) -> None:
        """The server closed first. The link closes, too: nobody reads what is unsent."""
        if not self._raw or self._phase is Phase.GREETING:
            self._error = ConnectionError("the server closed the connection")
        assert self._stream is not None
        if self._stream.unsent:
            self._stream.abort(self._error)
        else:
            self._close()

    def closed(self, error: Exception | None, ours: bool) -> None:
        """The socket is closed. The owner sees an error of `ours`, too, as it is."""
        if not ours:
            error = self._error or error
            if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
                # The network is gone (EHOSTUNREACH), for which Python has no class.
                error = ConnectionError(error.errno, error.strerror)
            if not self.greeted:
                error = unanswered(error, self._target.tls)
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._timer.cancel()
        log.debug("the connection as %r has ended: %s", self._target.client_id, error or "no error")
        self._owner.ended(error)

    def _close(self) -> None:
        assert self._stream is not None
        self._phase = Phase.OVER
        self._stream.close()

    def _socket_connected(self, sock: socket.socket) -> None:
        turns = Turns(self._reactor, unsent_limit=sys.maxsize)
        limits, tls = self._target.limits, self._target.tls
        self._stream = Stream(self._reactor, sock, self, limits, turns, tls)
        self._stream.write(self._conversation.key.public.to_line() + b"\n")
        self._stream.flush()

    def _moved(self) -> None:
        """Octets have moved, in or out."""
        if self._phase in (Phase.TALKING, Phase.LISTENING):
            self._owner.may_send()
            self._wait()

    def _wait(self) -> None:
        """Restarts the deadline, or stops it if the server owes nothing.

        A server may answer before it has read a command. It then owes no reply, but could still
        keep the client for ever by not reading. So unsent octets count, too. The greeting has one
        deadline for all of it.
        """
        if self._stream is None or self._phase in (Phase.GREETING, Phase.OVER):
            return
        if self._held or not (self._owes() or self._stream.unsent):
            self._timer.cancel()
        elif self._timer.runs:
            self._timer.postpone(self._target.timeout)
        else:
            self._timer = self._reactor.call_later(self._target.timeout, self._timed_out)

    def _owes(self) -> bool:
        """Whether the server owes a reply, or its end."""
        return bool(self._conversation.awaiting) or self._phase in (Phase.GREETING, Phase.LISTENING)

    def _timed_out(self) -> None:
        what = "did not reply" if self._owes() else "did not take all that is sent to it"
        late = TimeoutError(f"the server {what} for {self._target.timeout:g} s")
        self.abort(self._error if self._phase is Phase.OVER else late)  # OVER: all is said
