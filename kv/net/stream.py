"""One non-blocking TCP socket: lines in, lines out, back-pressure, closing.

Generic: knows lines, not what they mean.

Some facts about TCP sockets. The kernel has a buffer for each direction. `recv` takes out of one
what has arrived; `send` puts into the other what there is room for, and TCP moves it over as the
peer's kernel makes room, which is when the peer reads. What one `send` put in may come out of
several `recv`s, or together with more. Each side ends its own direction, by `shutdown` or `close`:
the other sees FIN, as the end of what it can read. RST ends both at once, and what was on its way
is lost.

What this does, in the order that the octets move:

- Reading: an incomplete line is collected in `_incoming`, complete ones are split off and handed to
  the owner. Goal: O(n) in the octets received, however they are cut into pieces (1). Plan: a
  `bytearray`, to which appending is amortised O(1) an octet; only what is new is searched for LF,
  as what is old has none; and no split before there is a complete line.
- Fairness: lines are handed over until the owner has done `quantum` units of work; the rest
  waits for the next turn, behind everybody else's, in `_waiting`. While it does, nothing is
  read, so the two never hold more than one incomplete line and one read's worth (2).
- Writing: `write_line` appends to `_outgoing`; `flush` gives the kernel what it takes. Above
  `high_water` no line is handed over and nothing is read until the peer has taken enough of its
  replies to get below `low_water`: its own slowness holds it up, and memory stays bounded (8).
  This is back-pressure: unread octets fill our kernel's buffer, and TCP makes its `send` wait.
- Closing: `close` is polite, `abort` is not. The phases: OPEN, then CLOSING (replies still to be
  sent), LINGERING (our side is shut down, theirs not yet), CLOSED.
"""

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from kv.net.reactor import READ, WRITE, Reactor, Timer

#: SO_SNDBUF and SO_RCVBUF, in octets (Linux doubles them for its own bookkeeping). Left to itself
#: the kernel may keep megabytes for one connection. And it reports room only when a third of its
#: buffer is free: of 4 MB, an honest reader at 4 KiB/s frees that in six minutes, and would be
#: taken for stalled meanwhile (9).
KERNEL_BUFFER = 64 * 1024

#: Keepalive: after 45 s of silence, four probes 15 s apart, so that a peer that vanished without a
#: packet is gone in 105 s; by default the first probe comes after two hours (15). Probes are only
#: sent while nothing else is on its way: TCP_USER_TIMEOUT (in ms) is the same bound for replies
#: that nobody acknowledges, and for a peer that reads nothing, whatever `stall_timeout` says. macOS
#: has another name for the first and nothing for the last.
KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_KEEPIDLE", 45),
        ("TCP_KEEPALIVE", 45),
        ("TCP_KEEPINTVL", 15),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", 105_000),
    )
    if hasattr(socket, name)
}

#: struct linger {on, 0 seconds}: makes `close` send RST and drop what the kernel still holds.
NO_LINGER = struct.pack("ii", 1, 0)


class Phase(Enum):
    """How far the closing of a stream has come."""

    OPEN = "open"
    CLOSING = "closing"
    LINGERING = "lingering"
    CLOSED = "closed"


#: Globals, because a member is slow to be looked up in its enum (see protocol.py).
OPEN, CLOSING, LINGERING, CLOSED = Phase


class Stalled(TimeoutError):
    """The peer does not read."""


class Owner(Protocol):
    """Whom a stream tells what happens to it."""

    def line_received(self, line: bytes) -> int:
        """A complete line, without LF; returns the units of work it took, at least 1."""

    def line_too_long(self) -> None:
        """More octets than a line may have, and no LF among them."""

    def drained(self) -> None:
        """The kernel has taken the last of what it did not take at once."""

    def end_received(self) -> None:
        """The peer has ended its sending side, and every complete line has been handed over."""

    def closed(self, error: Exception | None) -> None:
        """The socket is closed; `error` says why if that was not by `close`. The last call."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may cost, in octets, seconds and units of work."""

    line_size: int = 511  # the longest line, LF included
    read_size: int = 16 * 1024  # asked of one `recv`
    high_water: int = 64 * 1024  # unsent replies, above which reading stops
    low_water: int = 16 * 1024  # and down to which they must go before it goes on
    quantum: int = 64  # units of work a turn; what one is, the owner says (an RSA block opened)
    stall_timeout: float = 60.0  # for the peer to take anything that waits for it
    linger_timeout: float = 2.0  # for the peer to end its side after we ended ours
    linger_size: int = 1024 * 1024  # octets thrown away meanwhile; also the cap of `finish`


class Stream:
    """A connected socket in the loop. Takes the socket over and closes it in the end."""

    __slots__ = (
        "_allowance",
        "_ended",
        "_finishing",
        "_half_closing",
        "_held_up",
        "_incoming",
        "_limits",
        "_outgoing",
        "_owner",
        "_reactor",
        "_registration",
        "_scheduled",
        "_shut",
        "_sock",
        "_timer",
        "_waiting",
        "heard",
        "lines",
        "phase",
        "received",
        "sent",
    )

    def __init__(self, reactor: Reactor, sock: socket.socket, owner: Owner, limits: Limits) -> None:
        # Nagle's algorithm holds a small reply back until the last one is acknowledged, and the
        # peer delays that acknowledgement in the hope of a reply to put it on: 40 ms each (10).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setblocking(False)  # Linux does not pass this on from the listener (16)
        self._reactor = reactor
        self._sock = sock
        self._owner = owner
        self._limits = limits
        self._incoming = bytearray()
        self._waiting = b""  # complete lines that are not handed over yet, and what followed them
        self._outgoing = bytearray()
        self._held_up = False  # by replies that the peer does not take
        self._scheduled = False  # a call of _resume is deferred
        self._ended = False  # the peer's sending side
        self._finishing = False
        self._half_closing = False
        self._shut = False  # our sending side
        self._allowance = 0  # octets that may still be read while finishing or lingering
        self._timer: Timer | None = None  # for a stall while OPEN or CLOSING; then for lingering
        self.heard = reactor.woken  # when it last handed lines over
        self.lines = 0  # handed over
        self.received = 0  # octets, as is `sent`
        self.sent = 0
        self.phase = OPEN
        self._registration = reactor.register(sock, self._ready)
        self._registration.set(READ)

    # What the owner calls

    @property
    def unsent(self) -> int:
        """Octets written that the kernel has not taken yet."""
        return len(self._outgoing)

    def write_line(self, line: bytes) -> None:
        """Appends a line, given without LF, to what is to be sent.

        The stream sends by itself after handing over lines; at other times call `flush`.
        """
        if self.phase is OPEN:
            self._outgoing += line + b"\n"

    def flush(self) -> None:
        """Gives the kernel as much as it takes now; the rest goes when the socket is ready."""
        if self._outgoing:
            try:
                # A short count is normal: what is left stays in front (6). The view of the
                # buffer that `send` takes ends with the call, before the buffer shrinks (11).
                sent = self._sock.send(self._outgoing)
            except (BlockingIOError, InterruptedError):  # readiness is only a hint (5)
                sent = 0
            except OSError as error:  # ECONNRESET, EPIPE, ETIMEDOUT (13)
                self.abort(error)
                return
            del self._outgoing[:sent]
            self.sent += sent
            if self._outgoing or self._timer is not None:
                self._watch_for_stall(sent > 0)
        if self._held_up and len(self._outgoing) <= self._limits.low_water:
            self._held_up = False
            if self._waiting or self._finishing:
                self._schedule()
        if not self._outgoing and (self.phase is CLOSING or self._half_closing):
            self._shut_down()
        self._update_interest()

    def close(self) -> None:
        """Closes politely: sends what is owed, interprets nothing more, and lingers.

        Closing a socket that has unread input sends RST instead of FIN, and a RST can destroy
        replies that `send` has accepted and the peer has not read yet. So: send everything, while
        reading and throwing away what still comes (a peer may read only when it has sent all);
        shut down the sending side; and go on throwing away until the peer closes, too, or a
        bound in seconds and octets is reached (12).
        """
        if self.phase is OPEN:
            self.phase = CLOSING
            self._incoming.clear()
            self._waiting = b""
            self._held_up = False  # a peer that reads only when it has sent all must be read from
            self.flush()

    def half_close(self) -> None:
        """Ends our sending side once everything written is sent; reading goes on."""
        self._half_closing = True
        self.flush()

    def finish(self) -> None:
        """Closes politely once every complete line that has already arrived is answered."""
        if self.phase is OPEN:
            self._finishing = True
            self._allowance = self._limits.linger_size
            self._schedule()

    def abort(self, error: Exception | None) -> None:
        """Closes at once, with RST: whatever the kernel still holds for the peer is dropped."""
        if self.phase is not CLOSED:
            with suppress(OSError):  # macOS refuses every option of a socket that was reset
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            self._close_socket(error)

    # What the loop calls. An exception in the handling of one peer ends that peer's connection,
    # not the loop (28).

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self.flush()
                if not self._outgoing and self.phase is OPEN:
                    self._owner.drained()
            if events & READ and self.phase is not CLOSED:
                self._read()
        except Exception as error:
            self.abort(error)

    def _resume(self) -> None:
        try:
            self._scheduled = False
            if self.phase is OPEN and not self._held_up:
                if self._waiting:
                    self._hand_over()
                else:
                    self._read()
        except Exception as error:
            self.abort(error)

    # Reading

    def _read(self) -> None:
        try:
            data = self._sock.recv(self._limits.read_size)
        except (BlockingIOError, InterruptedError):  # readiness is only a hint (5)
            if self._finishing:
                self.close()
            return
        except OSError as error:  # ECONNRESET, ETIMEDOUT: both directions are gone (13)
            self.abort(error)
            return
        self.received += len(data)
        self._allowance -= len(data)
        if not data:
            # The peer ended its sending side; it may well still read (3). The socket stays
            # readable for ever, so the read interest has to go (4).
            self._ended = True
        if self.phase is OPEN:
            if b"\n" not in data:
                self._incoming += data
            elif self._incoming:
                self._waiting = bytes(self._incoming + data)
                self._incoming.clear()
            else:
                self._waiting = data
            self._hand_over()
        else:
            self._discard()

    def _hand_over(self) -> None:
        """Hands complete lines to the owner, up to a quantum of work, and sends the replies."""
        if self._waiting and not self._held_up:
            self._hand_over_lines()
            if self.phase is not OPEN:
                return
        if not self._waiting:
            if len(self._incoming) >= self._limits.line_size:
                self._owner.line_too_long()
            elif self._ended:
                self._owner.end_received()
            elif self._finishing and self._allowance <= 0:
                self.close()
            elif self._finishing:
                self._schedule()
        elif not self._held_up:
            # No readiness event tells of lines that wait in our own buffer (23), and taking them
            # all now would let one greedy peer starve the others (22).
            self._schedule()
        self.flush()

    def _hand_over_lines(self) -> None:
        """Takes lines out of the buffer until the quantum is used up or the peer is held up.

        One split takes a quantum's lines out at a fraction of what cutting off one by one costs;
        those that are more work than one unit each are put back.
        """
        work = self._limits.quantum
        longest = self._limits.line_size - 1
        outgoing, high_water = self._outgoing, self._limits.high_water
        *lines, rest = self._waiting.split(b"\n", work)
        self.heard = self._reactor.woken
        taken = 0
        for line in lines:
            taken += 1
            if len(line) > longest:
                self._owner.line_too_long()
            else:
                work -= self._owner.line_received(line)
            if self.phase is not OPEN:  # whoever is dropped is held up by nothing
                break
            self._held_up = len(outgoing) > high_water
            if work <= 0 or self._held_up:
                break
        self.lines += taken
        if self.phase is OPEN:
            if taken < len(lines):
                rest = b"\n".join([*lines[taken:], rest])
            if b"\n" in rest:
                self._waiting = rest
            else:
                self._waiting = b""
                self._incoming += rest

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.call_soon(self._resume)

    def _update_interest(self) -> None:
        """Asks for exactly the readiness that would be acted on: any other makes the loop spin."""
        if self.phase is CLOSED:
            return
        interest = 0 if self._ended or self._waiting or self._held_up else READ
        if self._outgoing:
            interest |= WRITE
        if interest != self._registration.interest:
            self._registration.set(interest)

    # Closing

    def _watch_for_stall(self, progress: bool) -> None:
        """While replies wait, the peer has `stall_timeout` seconds to take some of them (9)."""
        if not self._outgoing:
            self._cancel_timer()
        elif self._timer is None:
            self._timer = self._reactor.call_later(self._limits.stall_timeout, self._stalled)
        elif progress:
            self._timer.postpone(self._limits.stall_timeout)

    def _stalled(self) -> None:
        seconds = self._limits.stall_timeout
        self.abort(Stalled(f"the peer took none of its replies for {seconds:g} s"))

    def _shut_down(self) -> None:
        """Everything is sent: ends our side and, when closing, lingers until they end theirs."""
        if not self._shut:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:  # ENOTCONN: the peer has reset the connection meanwhile (13)
                self.abort(error)
                return
        self._shut = True
        self._half_closing = False
        if self.phase is OPEN:
            return
        if self._ended:
            self._close_socket(None)
            return
        self.phase = LINGERING
        self._allowance = self._limits.linger_size
        self._timer = self._reactor.call_later(self._limits.linger_timeout, self._lingered)

    def _lingered(self) -> None:
        self._close_socket(None)  # no RST: the kernel may still be delivering our last replies

    def _discard(self) -> None:
        """What arrives after the last message that counts is read only to be thrown away."""
        if self.phase is LINGERING and (self._ended or self._allowance <= 0):
            self._close_socket(None)
        else:
            self._update_interest()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_socket(self, error: Exception | None) -> None:
        self.phase = CLOSED
        self._cancel_timer()
        self._registration.set(0)  # before the descriptor's number is free to be used again (14)
        self._sock.close()
        self._incoming.clear()
        self._outgoing.clear()
        self._waiting = b""
        self._owner.closed(error)
