"""Joins a connector, a stream and a conversation: the client's end of one connection.

It lives on a reactor and blocks nobody. `Client` runs one for callers, `Shell` for people.
"""

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

if TYPE_CHECKING:
    from kv.net.tls import Tls

#: Commands sent whose replies are still to come; more wait, so that a script of a million
#: commands takes no more memory than one of a hundred (34).
WINDOW = 64
#: Octets sealed but not sent beyond which more commands wait.
UNSENT = 32 * 1024


class LinkOwner(Protocol):
    """Whom a link tells what happens to it."""

    def connected(self) -> None:
        """Keys are exchanged and CONNECT was answered with OK: commands may be sent."""

    def replied(self, command: Command | None, reply: str) -> None:
        """The oldest command without a reply has its reply. A raw link knows no commands."""

    def drained(self) -> None:
        """What was sent is on its way: there may be `room` again."""

    def ended(self, error: Exception | None) -> None:
        """The connection is gone: as it was meant to be, or because of `error`. The last call."""


class Link:
    """The client's end of one connection: connects, exchanges keys, sends commands.

    `timeout`, in seconds, is the longest time without the connection or the reply that is
    awaited. A `raw` link, once connected, carries any octets and judges nothing that comes back.
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
        self._timer: Timer | None = None
        self._error: Exception | None = None  # why we close, when it is we who do
        self._raw = raw
        self._tls = tls
        self._half_closed = False
        self._over = False  # nothing more is awaited
        self._conversation = ClientConversation(wire, key)
        self._stream: Stream | None = None
        self._connector = Connector(
            reactor, addresses, timeout, self._socket_connected, owner.ended
        )

    @property
    def room(self) -> int:
        """How many commands may be sent now."""
        if self._stream is None or self._stream.unsent > UNSENT:
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

    def send(self, command: Command) -> None:
        """Sends a command; its reply is awaited from now on. Call `flush` after the last."""
        assert self._stream is not None
        for line in self._conversation.lines(command):
            self._stream.write(line + b"\n")
        if self._timer is None:
            self._wait()

    def send_raw(self, octets: bytes) -> None:
        """Seals and sends whatever it is."""
        assert self._stream is not None
        self._stream.write(self._conversation.key.seal(octets) + b"\n")

    def half_close(self) -> None:
        """Ends our sending side; what the server still says is awaited."""
        assert self._stream is not None
        self._stream.half_close()
        self._half_closed = True
        self._wait()

    def flush(self) -> None:
        """Gives what was sent to the kernel. Replies that arrive do so by themselves."""
        if self._stream is not None:
            self._stream.flush()

    def abort(self, error: Exception | None) -> None:
        """Ends the connection at once; the owner is told `error`."""
        self._connector.close()
        if self._stream is not None:
            self._stream.abort(error)
        else:
            self._owner.ended(error)

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Lines of the server's; a violation ends the connection and reaches the owner."""
        work = 0
        try:
            for line in lines:
                work += self._line_received(line)
                if work >= budget or self._over:
                    break
        except Violation as violation:
            self.abort(violation)
        return work

    def _line_received(self, line: bytes) -> int:
        if self._raw and not self._conversation.awaiting:
            reply = self._conversation.read(line)
            self._wait()
            self._owner.replied(None, reply or "")
            return 1
        answered = self._conversation.receive(line)
        if answered is None:
            return 1  # the server's key; CONNECT has been sent right behind ours
        command, reply = answered
        self._wait()
        if command is self._connect:
            self._connect_answered(reply)
        else:
            if command.message is Message.DISCONNECT and self._stream is not None:
                self._over = True
                self._stream.close()
            self._owner.replied(command, reply)
        return 1

    def line_too_long(self) -> None:
        """The server broke the protocol."""
        size = self._wire.line_size
        self.abort(Violation(f"the server sent a line of more than {size} octets"))

    def held_up(self) -> None:
        """Never happens: a client always reads."""

    def drained(self) -> None:
        """The kernel has taken all that was sent."""
        self._owner.drained()

    def end_received(self) -> None:
        """The server closed first: closes, too, with nobody to send the rest to."""
        if not self._raw:
            self._error = ConnectionError("the server closed the connection")
        assert self._stream is not None
        if self._stream.unsent:
            self._stream.abort(self._error)
        else:
            self._stream.close()

    def closed(self, error: Exception | None, ours: bool) -> None:
        """The socket is closed; an error of `ours` is the caller's to see, too."""
        self._stop_waiting()
        self._owner.ended(error if ours else self._explained(self._error or error))

    def _explained(self, error: Exception | None) -> Exception | None:
        """`error`, and what may be behind it if the server has not sent its key yet."""
        if not isinstance(error, OSError) or isinstance(error, Violation):
            return error
        if self._conversation.peer is not None:
            return error
        if self._tls is not None:
            hint = ": perhaps it does not speak TLS" if self._tls.shaking else ""
        else:
            hint = "" if isinstance(error, TimeoutError) else ": perhaps it speaks TLS"
        return type(error)(f"{error.strerror or error}{hint}")

    def _socket_connected(self, sock: socket.socket) -> None:
        # The server says nothing before it has our key, and CONNECT does not depend on what it
        # says: both go together and save a round trip.
        # A client always reads: if it, too, read nothing while it cannot send, both would wait.
        limits = Limits(line_size=self._wire.line_size, high_water=sys.maxsize)
        self._stream = Stream(
            self._reactor,
            sock,
            self,
            limits,
            Turns(self._reactor, unsent_limit=sys.maxsize),
            self._tls,
        )
        self._stream.write(self._conversation.key.public.to_line() + b"\n")
        self.send(self._connect)
        self.flush()

    def _connect_answered(self, reply: str) -> None:
        if reply == Reply.CONNECT_OK.value:
            self._owner.connected()
            return
        assert self._stream is not None
        self._over = True
        self._error = ConnectRefused(f"the client id {self._client_id!r} is in use")
        self._stream.close()

    def _wait(self) -> None:
        """Starts the time for the next reply anew, or stops it if none is awaited."""
        if not (self._conversation.awaiting or self._half_closed):
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
        self.abort(TimeoutError(f"the server did not reply for {self._timeout:g} s"))
