"""Joins a connector, a stream and a conversation: the client's end of one connection.

A link lives on a reactor and blocks nobody. It has all that every client needs: the order of the
handshake, the window, the deadlines. What differs is who waits. `Client` runs a reactor until a
call has its replies. `Shell` runs one for the whole time, and reads a terminal or a pipe on it.
"""

import logging
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from kv.errors import ConnectRefused, Violation
from kv.net.address import Address, shown
from kv.net.connector import Connector
from kv.net.owner import Limits
from kv.net.reactor import Reactor, Timer
from kv.net.stream import Stream
from kv.net.turns import Turns
from kv.protocol.cipher import PrivateKey
from kv.protocol.conversation import ClientConversation
from kv.protocol.messages import Command, Message, Reply, Wire

log = logging.getLogger("kv")

if TYPE_CHECKING:
    from kv.net.tls import Tls

#: How many commands may be on their way without a reply. Further ones wait, so a script of a
#: million commands takes no more memory than one of a hundred (34).
WINDOW = 64
#: While more octets than this are unsent, further commands wait.
UNSENT = 32 * 1024
#: Seconds that the server has to close after the client did. With a short timeout it has less.
LINGER = 2.0


class LinkOwner(Protocol):
    """Whom a link tells what happens to it."""

    def connected(self) -> None:
        """The server answered CONNECT with OK: commands may be sent."""

    def replied(self, command: Command | None, reply: str) -> None:
        """The oldest command without a reply has its reply. On a raw link `command` is None."""

    def may_send(self) -> None:
        """Replies have come, or octets were sent: there may be `room` again."""

    def ended(self, error: Exception | None) -> None:
        """The connection is gone. `error` is None if it ended as it should. The last call."""


class Link:
    """The client's end of one connection: connects, exchanges keys, sends commands.

    `timeout`, in seconds, is the longest time from the start to `connected`. After that, it is the
    longest time in which nothing happens although the server owes something: a reply, or to read
    what the link sends. A server that answers early and then reads nothing owes that, too.

    A `raw` link, once connected, carries any octets and checks nothing that comes back.
    """

    def __init__(
        self,
        reactor: Reactor,
        addresses: list[tuple[int, Address]],
        wire: Wire,
        key: PrivateKey,
        client_id: str,
        owner: LinkOwner,
        timeout: float,
        raw: bool = False,
        tls: "Tls | None" = None,
    ) -> None:
        self._reactor = reactor
        self._wire = wire
        self._client_id = client_id
        self._connect = Command.connect(wire, client_id)
        self._owner = owner
        self._timeout = timeout
        self._error: Exception | None = None  # why the link closes the connection, if it does
        self._raw = raw
        self._tls = tls
        self._half_closed = False
        self._held = False
        self._over = False  # further lines are ignored
        self._connected = False
        self._conversation = ClientConversation(wire, key)
        self._stream: Stream | None = None
        self._sock: socket.socket | None = None  # the stream's; for `forget` alone
        self._connector = Connector(reactor, addresses, timeout, self._socket_connected, self._end)
        self._timer: Timer | None = reactor.call_later(timeout, self._timed_out)

    @property
    def room(self) -> int:
        """How many commands may be sent now."""
        if not self._connected or self._stream is None or self._stream.unsent > UNSENT:
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
        """Sends a command, and from now on waits for its reply. Call `flush` after the last."""
        assert self._stream is not None
        self._stream.write(b"\n".join(self._conversation.lines(command)) + b"\n")
        if self._timer is None:
            self._wait()

    def send_raw(self, octets: bytes) -> None:
        """Seals and sends any octets."""
        assert self._stream is not None
        self._stream.write(self._conversation.key.seal(octets) + b"\n")

    def half_close(self) -> None:
        """Ends the client's sending side. The link still waits for what the server says."""
        assert self._stream is not None
        self._stream.half_close()
        self._half_closed = True
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
            if self._timer is None:
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
        if self._sock is not None:
            self._sock.close()

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Lines from the server. A violation ends the connection, and the owner is told."""
        work = 0
        try:
            for line in lines:
                self._line_received(line)
                work += 1
                if work >= budget or self._over or self._held:
                    break
        except Violation as violation:
            self.abort(violation)
        else:
            if self._connected and not self._over:
                self._wait()
                self._owner.may_send()
        return work

    def _line_received(self, line: bytes) -> None:
        conversation = self._conversation
        if conversation.peer is None:
            conversation.read(line)
            self.send(self._connect)  # CONNECT comes after the server's key, as the protocol says
        elif self._raw and self._connected:
            self._owner.replied(None, conversation.read(line) or "")
        else:
            answered = conversation.receive(line)
            assert answered is not None
            command, reply = answered
            if command is self._connect:
                self._connect_answered(reply)
                return
            self._owner.replied(command, reply)
            if command.message is Message.DISCONNECT:
                self._close()

    def line_too_long(self) -> None:
        """No line of the protocol has so many octets: a violation."""
        size = self._wire.line_size
        self.abort(Violation(f"the server sent a line of more than {size} octets"))

    def held_up(self) -> None:
        """Never happens: a client always reads."""

    def drained(self) -> None:
        """The kernel has taken all that was sent."""
        if self._connected:
            self._wait()
            self._owner.may_send()

    def end_received(self) -> None:
        """The server closed first. The link closes, too: nobody reads what is unsent."""
        if not self._raw or not self._connected:
            self._error = ConnectionError("the server closed the connection")
        assert self._stream is not None
        if self._stream.unsent:
            self._stream.abort(self._error)
        else:
            self._close()

    def closed(self, error: Exception | None, ours: bool) -> None:
        """The socket is closed. The owner sees an error of `ours`, too, as it is."""
        self._end(error if ours else self._explained(self._error or error))

    def _end(self, error: Exception | None) -> None:
        self._stop_waiting()
        self._sock = None
        log.debug("the connection as %r has ended: %s", self._client_id, error or "no error")
        self._owner.ended(error)

    def _close(self) -> None:
        assert self._stream is not None
        self._over = True
        self._stream.close()

    def _explained(self, error: Exception | None) -> Exception | None:
        """`error`, with a hint at its cause if the server has not sent its key yet."""
        if not isinstance(error, OSError) or isinstance(error, Violation):
            return error
        if self._conversation.peer is not None:
            return error
        if self._tls is not None:
            hint = ": perhaps it does not speak TLS" if self._tls.shaking else ""
        else:
            hint = "" if isinstance(error, TimeoutError) else ": perhaps it speaks TLS"
        return type(error)(f"{error.strerror or error}{hint}") if hint else error

    def _socket_connected(self, sock: socket.socket) -> None:
        # A client always reads. A server does not read while it cannot send. If the client did the
        # same, both would wait for ever.
        limits = Limits(
            line_size=self._wire.line_size,
            high_water=sys.maxsize,
            stall_timeout=2 * self._timeout,  # the deadline of `_wait` is earlier
            linger_timeout=min(LINGER, self._timeout),
        )
        turns = Turns(self._reactor, unsent_limit=sys.maxsize)
        self._sock = sock
        self._stream = Stream(self._reactor, sock, self, limits, turns, self._tls)
        self._stream.write(self._conversation.key.public.to_line() + b"\n")
        self._stream.flush()

    def _connect_answered(self, reply: str) -> None:
        if reply == Reply.CONNECT_OK.value:
            self._connected = True
            self._stop_waiting()
            log.debug("connected to %s as %r", self.peer, self._client_id)
            self._owner.connected()
        else:
            self._error = ConnectRefused(f"the client id {self._client_id!r} is in use")
            self._close()

    def _wait(self) -> None:
        """Restarts the deadline, or stops it if the server owes nothing.

        A server may answer before it has read a command. It then owes no reply, but could still
        keep the client for ever by not reading. So unsent octets count, too.
        """
        unsent = self._stream.unsent if self._stream is not None else 0
        if not self._connected:
            return  # until then, one deadline holds for everything
        owed = self._conversation.awaiting or self._half_closed or unsent
        if not owed or self._held:
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self._reactor.call_later(self._timeout, self._timed_out)
        else:
            self._timer.postpone(self._timeout)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        self._timer = None
        owed = self._conversation.awaiting or self._half_closed or not self._connected
        what = "did not reply" if owed else "took nothing of what is sent to it"
        self.abort(TimeoutError(f"the server {what} for {self._timeout:g} s"))
