"""One non-blocking connection: octets in, octets out, and the end of each direction.

Generic: knows neither lines nor turns nor owners. `directions` says which event may come in which
state. Only this module and `tcp` make calls on the socket; `Lifecycle` closes it.

- `read` takes what one `recv` gives. It is the one place where octets come in.
- `write` keeps octets, and `send` gives the kernel what it takes. They are the one place where
  octets go out.

A `Tls` may stand in both places (`tls`). The transport then keeps, sends and counts the octets that
go over the network.

A transport calls nobody back. If an event has consequences, it sets `changed`, and the `Stream` of
the transport looks at that.
"""

import socket
from typing import TYPE_CHECKING

from kv.net import tcp
from kv.net.directions import Deadline, Event, Incoming, Outgoing, after, deadline
from kv.net.tcp import NO_SIGNAL

if TYPE_CHECKING:
    from kv.net.tls import Tls

#: Members as globals: CPython 3.11 takes four times as long to look one up in its enum.
OPEN, SENDING, DISCARDING = Incoming.OPEN, Outgoing.OPEN, Incoming.DISCARDING
READING = (Incoming.OPEN, Incoming.DRAINING)


class Transport:
    """A connected socket and its two directions."""

    __slots__ = (
        *("_farewell", "_linger_size", "allowance", "changed", "error", "full", "incoming"),
        *("outgoing", "overhead", "received", "sent", "sock", "tls", "undelivered", "unsent"),
    )

    def __init__(
        self, sock: socket.socket, stall_timeout: float, linger_size: int, tls: "Tls | None" = None
    ) -> None:
        """Prepares the socket. `stall_timeout` is in seconds, `linger_size` in octets."""
        tcp.prepare(sock, stall_timeout)
        self.sock = sock
        self.tls = tls
        self.incoming = OPEN
        self.outgoing = SENDING
        self.unsent: bytes | bytearray = b""  # a bytearray after the kernel took only a part
        self.full = False  # the kernel did not take all; the selector reports when it has room
        self.changed = False  # something has happened that has consequences
        self.error: Exception | None = None
        self.received = 0  # octets
        self.sent = 0  # octets
        self.undelivered = 0  # octets that the peer cannot have got; set at the end
        self.overhead = 0  # octets of TLS that carried no plaintext
        self._linger_size = linger_size
        self.allowance = 0  # octets that draining or lingering may still read
        self._farewell = 1  # octets in the kernel that are no replies: FIN counts as one
        if tls is not None:
            self.unsent = tls.pending()

    def step(self, event: Event) -> None:
        """The one door for transitions. Raises `RuntimeError` if `event` cannot happen now."""
        before, sending = self.incoming, self.outgoing
        self.incoming, self.outgoing = after(event, before, sending)
        self.changed = True
        if (self.incoming, self.outgoing) != (before, sending):
            self.allowance = self._linger_size
        if self.outgoing is Outgoing.BROKEN is not sending:
            held = len(self.unsent) + self.unsealed + (tcp.unacknowledged(self.sock) or 0)
            farewell = self._farewell - (sending is not Outgoing.SHUT)
            self.undelivered = max(0, held - farewell)
            self.unsent = b""

    def fail(self, event: Event, error: Exception) -> None:
        """A step with an error. The owner gets the first error."""
        self.error = self.error or error
        self.step(event)

    # In

    def read(self, size: int) -> bytes:
        """The octets for lines from one `recv` of `size` octets. Empty if there are none now."""
        try:
            data = self.sock.recv(size)
        except (BlockingIOError, InterruptedError):  # readiness is only a hint (5)
            if self.incoming is Incoming.DRAINING:
                self.step(Event.EMPTY)
            return b""
        except OSError as error:  # ECONNRESET, ETIMEDOUT: both directions are gone (13)
            self.fail(Event.RESET, error)
            return b""
        if not data:
            self._ended()
            return b""
        self.received += len(data)
        if self.incoming is not OPEN:
            self.allowance -= len(data)
            if self.incoming is DISCARDING:
                self.changed = self.changed or self.allowance <= 0
                return b""
        return data if self.tls is None else self._opened(data, self.tls)

    def _ended(self) -> None:
        """The peer has ended its sending side, and may still read (3).

        The socket stays readable for ever, so there is no read interest in this state (4).
        """
        if self.tls is not None and self.incoming in READING and not self.tls.ended():
            self._tls_failed(self.tls)
        else:
            self.step(Event.FIN)

    def _opened(self, octets: bytes, tls: "Tls") -> bytes:
        """The plaintext in these octets. Keeps what TLS has to send, and notes an end.

        Answers of TLS count as unsent. So the stream reads no more from a peer that asks for new
        keys and does not read the answers (53).
        """
        plaintext = tls.received(octets)
        answers = tls.pending()
        if answers and self.outgoing in (SENDING, Outgoing.FINISHING):
            self.unsent += answers
            self.changed = True  # the account learns of this, too
            if tls.error is not None:
                self._farewell += len(answers)  # an alert is no reply
        self.overhead += max(0, len(octets) + len(answers) - len(plaintext))
        if tls.error is not None:
            self._tls_failed(tls)
        elif tls.they_ended:
            self.step(Event.FIN)
        elif self.outgoing is Outgoing.FINISHING:
            self.changed = True  # `half_close` may have waited for the handshake
        return plaintext

    def _tls_failed(self, tls: "Tls") -> None:
        """Nothing more from the peer can be trusted. Earlier lines are still handed over."""
        assert tls.error is not None
        self.send()  # an alert tells the peer why
        tcp.read_all(self.sock, self._linger_size)  # otherwise `close` sends RST (12)
        self.error = None
        self.fail(Event.RESET, tls.error)

    # Out

    def write(self, octets: bytes) -> None:
        """Keeps octets for `send`. Raises `RuntimeError` after the end of this direction."""
        if self.outgoing is not SENDING:
            self.step(Event.WRITE)
            return
        if self.tls is not None:
            octets = self.tls.write(octets)
        if not self.unsent:
            self.unsent = octets
        else:
            if isinstance(self.unsent, bytes):
                self.unsent = bytearray(self.unsent)
            self.unsent += octets
            self.changed = True  # the account of all streams must learn of this (38)

    def send(self) -> None:
        """Gives the kernel what it takes. The rest is sent when the socket is writable."""
        unsent = self.unsent
        if not unsent:
            return
        try:
            # A short count is normal: the rest stays in the buffer (6). The view of the buffer that
            # `send` takes ends with the call, before the buffer shrinks (11).
            sent = self.sock.send(unsent, NO_SIGNAL)
        except (BlockingIOError, InterruptedError):  # readiness is only a hint (5)
            sent = 0
        except OSError as error:  # ECONNRESET, EPIPE, ETIMEDOUT (13)
            # This error says nothing about reading: lines that came before the reset are still
            # there. They are handed over first, and then the owner gets the error (36).
            self.fail(Event.SEND_FAILED, error)
            return
        self.sent += sent
        if sent == len(unsent):
            self.unsent = b""
            if self.full:
                self.full = False
                self.changed = True
            return
        self.full = self.changed = True
        if isinstance(unsent, bytearray):
            del unsent[:sent]
        else:
            self.unsent = bytearray(unsent[sent:])

    # The end

    def shut_down(self) -> None:
        """Ends our side, when everything is sent. With TLS, first sends close_notify (52)."""
        if self.tls is not None and (octets := self.tls.close_notify()):
            self._farewell += len(octets)
            self.unsent = octets
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # ENOTCONN: the peer has reset the connection by now (13)
            if self.tls is not None and self.tls.they_ended and not self.lacks:
                self.step(Event.ABORT)  # the peer had closed before our close_notify came
            else:
                self.fail(Event.SEND_FAILED, error)
        else:
            self.step(Event.SENT)

    @property
    def shaking(self) -> bool:
        """Whether our end has to wait for the handshake: close_notify cannot come before."""
        return self.tls is not None and self.tls.shaking and self.incoming in READING

    @property
    def unsealed(self) -> int:
        """Octets that TLS cannot seal yet: the peer's handshake or message is incomplete."""
        return len(self.tls.waiting) if self.tls is not None else 0

    def acknowledged(self) -> int:
        """The octets that the peer's kernel has acknowledged. If unknown, all that were sent."""
        return self.sent - (tcp.unacknowledged(self.sock) or 0)

    @property
    def lingers(self) -> bool:
        """Whether our side has ended, and the peer's octets are thrown away until it ends, too."""
        return deadline(self.incoming, self.outgoing, False) is Deadline.LINGER

    @property
    def lacks(self) -> bool:
        """Whether the peer's kernel lacks a reply, and not only our FIN or close_notify."""
        return (tcp.unacknowledged(self.sock) or 0) > self._farewell

    @property
    def delivering(self) -> bool:
        """Whether both sides have ended, and the kernel still delivers."""
        ended = deadline(self.incoming, self.outgoing, False) is Deadline.DELIVERY
        return ended and bool(tcp.unacknowledged(self.sock))
