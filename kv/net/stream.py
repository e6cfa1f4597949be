"""One non-blocking TCP connection: lines in, octets out, back-pressure, closing.

Generic: knows lines, not what they mean. What may happen in which state, and what follows from it,
stands in `directions`; here it is done. In the order that the octets move:

- `_read` takes what one `recv` gives, `_received` cuts it into lines (the one place where octets
  come in), `_hand_over` gives the owner as many as its turn allows. The rest waits, and while it
  does, nothing is read.
- `write` keeps octets (the one place where they go out), `_send` gives the kernel what it takes.
  While more than `high_water` is unsent, no line is handed over and nothing is read, until the
  peer has taken enough to get below `low_water`: its own slowness holds it up (8).
- `_settle` does what follows: FIN after the last octet, the notifications of the owner, the end.

Where octets come in and where they go out a `Tls` may stand (`tls`). Then what is kept, sent,
counted and waited for is what goes over the network, and only lines are plaintext.

The straight way is one `recv`, one call of the owner with all the lines, one `send` of all replies.
It is no second way: what it leaves out is what there is nothing to do for.

The owner is told from one place, once for each transition, when the stream is consistent. What the
owner calls never calls it back: it changes states, and the stream does the rest in its next turn.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING

from kv.net import tcp
from kv.net.directions import (
    NO_HOLD,
    Deadline,
    Event,
    Hold,
    Incoming,
    Outgoing,
    after,
    deadline,
    interest,
    over,
)
from kv.net.lines import Lines
from kv.net.owner import Limits, Owner, Stalled, Told
from kv.net.reactor import READ, WRITE, Reactor, Timer
from kv.net.turns import Turns

if TYPE_CHECKING:
    from kv.net.tls import Tls

log = logging.getLogger("kv")

#: Members as globals: to look one up in its enum takes CPython 3.11 four times as long.
OPEN, SENDING = Incoming.OPEN, Outgoing.OPEN
READING = (Incoming.OPEN, Incoming.DRAINING)

#: Octets that TLS moves beside the plaintext, to a microsecond of work. So a handshake counts as
#: 500 µs (a signature with an elliptic curve takes 450), and a key update as 27 (it takes 36).
TLS_WORK = 2


class Stream:
    """A connected socket in the loop. Takes the socket over and closes it in the end."""

    __slots__ = (
        *("_allowance", "_backlog", "_deadline", "_error", "_farewell", "_full", "_limits"),
        *("_lines", "_mark"),
        *("_owner", "_reactor", "_registration", "_running", "_settled"),
        *("_sock", "_timer", "_told", "_turns", "_unsent", "_until"),
        *("heard", "holds", "incoming", "outgoing", "received", "sent", "tls", "undelivered"),
    )

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        owner: Owner,
        limits: Limits,
        turns: Turns,
        tls: "Tls | None" = None,
    ) -> None:
        tcp.prepare(sock, limits.stall_timeout)
        self._reactor = reactor
        self._sock = sock
        self._owner = owner
        self._limits = limits
        self._turns = turns
        self._lines = Lines(limits.line_size)
        self._unsent: bytes | bytearray = b""  # a bytearray once the kernel took only a part
        self._full = False  # the kernel did not take it all: it says when it has room
        self._backlog = 0  # octets of it that are in the account of all
        self._allowance = 0  # octets that may still be read while draining or lingering
        self._deadline: Deadline | None = None  # what `_timer` waits for,
        self._timer: Timer | None = None
        self._mark = 0  # how many octets the peer had acknowledged when it was last looked at,
        self._until = 0.0  # and how long the peer may acknowledge no more than that
        self._error: Exception | None = None
        self._running = False  # the stream itself is at work,
        self._settled = True  # and has something to follow up
        self._told = Told.NOTHING
        self.incoming = OPEN
        self.outgoing = SENDING
        self.holds = NO_HOLD
        self.heard = reactor.woken  # when it last handed lines over
        self.received = 0  # octets, as is `sent`
        self.sent = 0
        self.undelivered = 0  # octets that the peer cannot have got, known once it is closed
        self._farewell = 1  # octets, as the kernel counts, that owe nobody anything: FIN's
        self._registration = reactor.register(sock, self._ready)
        self._registration.set(READ)
        self.tls = tls
        if tls is not None and (hello := tls.pending()):
            self._unsent = hello
            self._settle_soon()

    # What the owner calls

    @property
    def unsent(self) -> int:
        """Octets written that the kernel has not taken yet."""
        return len(self._unsent) + (len(self.tls.waiting) if self.tls is not None else 0)

    @property
    def lines(self) -> int:
        """How many lines the owner has taken."""
        return self._lines.taken

    @property
    def kept(self) -> tuple[int, int]:
        """Octets received of a line that is not complete, and of complete ones that wait."""
        return self._lines.octets

    @property
    def owes(self) -> bool:
        """Whether it is our turn: lines wait, or replies are not with the peer's kernel yet."""
        return bool(self._unsent or self._lines.waiting or tcp.unacknowledged(self._sock))

    def write(self, octets: bytes) -> None:
        """Sends whole lines, their LF included: in this call's turn, or as soon as it can.

        Raises `RuntimeError` after `close` or `half_close`. Nobody reads what is written after a
        `send` has failed; the owner hears of that later.
        """
        if self.outgoing is not SENDING:
            self._step(Event.WRITE)
            return
        if self.tls is not None:
            octets = self.tls.write(octets)
        if not self._unsent:
            self._unsent = octets
        else:
            if isinstance(self._unsent, bytes):
                self._unsent = bytearray(self._unsent)
            self._unsent += octets
            self._settled = False  # more is unsent than the account of all knows (38)
        if not self._running:
            self._settle_soon()

    def flush(self) -> None:
        """Gives the kernel what it takes now. What is written is sent without this, but later."""
        if not self._full:
            self._send()

    def close(self) -> None:
        """Closes politely: sends what is owed, interprets nothing more, and lingers.

        Closing a socket that has unread input sends RST instead of FIN, and a RST can destroy
        replies that `send` has accepted and the peer has not read yet. So: send everything, while
        reading and throwing away what still comes; shut down the sending side; and go on throwing
        away until the peer closes, too, or a bound in seconds and octets is reached (12).
        """
        self._lines.clear()
        if self._told is not Told.CLOSED:
            self._told = Told.END
        self._step(Event.CLOSE)

    def half_close(self) -> None:
        """Ends our sending side once everything written is sent; reading goes on."""
        self._step(Event.HALF_CLOSE)

    def finish(self) -> None:
        """Hands over the lines that have arrived by now; then `end_received` comes."""
        self._step(Event.FINISH)

    def abort(self, error: Exception | None) -> None:
        """Closes at once, with RST: whatever the kernel still holds for the peer is dropped."""
        if self._sock.fileno() >= 0:
            tcp.reset_on_close(self._sock)
            self._release(error)

    def leave(self, error: Exception | None = None) -> None:
        """Closes at once, without RST: what the kernel holds is still delivered (37)."""
        if self._sock.fileno() >= 0:
            tcp.read_all(self._sock, self._limits.linger_size)  # or `close` would reset it (12)
            self._release(error)

    def wait(self) -> None:
        """Holds further lines back until `go_on`: the owner waits for somebody else."""
        self.holds |= Hold.OWNER
        self._settle_soon()

    def go_on(self) -> None:
        """Ends `wait`."""
        self.holds &= ~Hold.OWNER
        self._settle_soon()

    # What the loop and `Turns` call. An exception in the handling of one peer ends that peer's
    # connection, not the loop (28).

    def _ready(self, events: int) -> None:
        self._running = True
        try:
            if events & WRITE:
                self._send()
            if events & READ and self.holds is NO_HOLD:
                self._read()
            if self._unsent and not self._full:
                self._send()
            if not self._settled:
                self._settle()
        except Exception as error:
            self._failed(error)
        self._running = False

    def take_turn(self) -> None:
        """Its turn has come: goes on with what waits, or reads, if it could not do so before."""
        self._guarded(self._turn_has_come)

    def _timed_out(self) -> None:
        self._guarded(self._deadline_passed)

    def _guarded(self, act: Callable[[], object]) -> None:
        self._running = True
        try:
            act()
            self._settle()
        except Exception as error:
            self._failed(error)
        self._running = False

    # Reading

    def _turn_has_come(self) -> None:
        self.holds &= ~Hold.TURN
        if self.holds is not NO_HOLD:
            return
        if self._lines.waiting:
            self._hand_over(self._lines.next())
        elif self.incoming is Incoming.DRAINING or (
            self.incoming is OPEN and not self._registration.interest & READ
        ):
            self._read()

    def _read(self) -> None:
        turns, size = self._turns, self._limits.read_size
        if turns.left <= turns.reserved:
            self._await_turn()  # this turn's work is done; others may have waited for longer (38)
            return
        if turns.unsent:  # what waits for a peer that is held up costs memory, too
            size = min(size, max(turns.room, self._limits.line_size))
        try:
            data = self._sock.recv(size)
        except (BlockingIOError, InterruptedError):  # readiness is only a hint (5)
            if self.incoming is Incoming.DRAINING:
                self._end(Event.EMPTY)
            return
        except OSError as error:  # ECONNRESET, ETIMEDOUT: both directions are gone (13)
            self._lost(Event.RESET, error)
            return
        if data:
            self._received(data)
        elif self.tls is not None and self.incoming in READING and not self.tls.ended():
            self._tls_failed(self.tls)
        else:
            # The peer ended its sending side; it may well still read (3). The socket stays
            # readable for ever, so the read interest goes with this state (4).
            self._end(Event.FIN)

    def _received(self, data: bytes) -> None:
        """The one place where octets come in."""
        self.received += len(data)
        if self.incoming is not OPEN:
            self._allowance -= len(data)
            if self.incoming is Incoming.DISCARDING:
                if self._deadline is Deadline.LINGER and self._allowance <= 0:
                    self.leave()
                return
        if self.tls is not None:
            data = self._opened(data, self.tls)
            if not data:
                return
        lines = self._lines.feed(data)
        if lines is not None:
            self._hand_over(lines)
        elif self._lines.too_long:
            self._too_long()

    def _opened(self, octets: bytes, tls: "Tls") -> bytes:
        """The plaintext in them; what TLS has to say to the peer is kept, and what follows, done.

        The handshake, too, is made of reads, so it waits for its turn and counts as work (51).
        Answers count as unsent: a peer that asks and does not read is read from no more (53).
        """
        plaintext = tls.received(octets)
        answers = tls.pending()
        if answers and self.outgoing in (SENDING, Outgoing.FINISHING):
            self._unsent += answers
        work = (len(octets) + len(answers) - len(plaintext)) // TLS_WORK
        self._turns.left -= max(0, work)
        if tls.error is not None:
            self._tls_failed(tls)
        elif tls.they_ended:
            self._end(Event.FIN)
        elif self.outgoing is Outgoing.FINISHING:
            self._settled = False  # perhaps `half_close` had to wait for the handshake
        return plaintext

    def _tls_failed(self, tls: "Tls") -> None:
        """Nothing that comes can be believed any more. The lines from before are handed over."""
        self._error = tls.error
        self._send()  # an alert says why
        tcp.read_all(self._sock, self._limits.linger_size)  # or `close` would reset it (12)
        self._step(Event.RESET)

    def _hand_over(self, lines: Iterator[bytes]) -> None:
        """Hands lines to the owner, as many as its share of this turn allows."""
        turns, allowed = self._turns, lines
        if turns.unsent or self._limits.scarce:
            # Replies to so many lines fit in what may be left unsent.
            room = max(0, self._high_water() - len(self._unsent))
            allowed = islice(lines, 1 + room // self._limits.line_size)
        self.heard = self._reactor.woken
        share, left = turns.share, turns.left - turns.reserved
        budget = share if share < left else left  # noqa: FURB136 (`min` takes five times as long)
        turns.left -= self._owner.lines_received(allowed, budget)
        if length_hint(lines) or self._lines.rest:
            self._settled = False  # what is left waits for the next turn
        elif self._lines.too_long:
            self._too_long()

    def _too_long(self) -> None:
        self._lines.clear()
        self._owner.line_too_long()

    # Writing

    def _send(self) -> None:
        """Gives the kernel what it takes; the rest goes when the socket is ready."""
        unsent = self._unsent
        if not unsent:
            return
        try:
            # A short count is normal: what is left stays in front (6). The view of the buffer
            # that `send` takes ends with the call, before the buffer shrinks (11).
            sent = self._sock.send(unsent, tcp.NO_SIGNAL)
        except (BlockingIOError, InterruptedError):  # readiness is only a hint (5)
            sent = 0
        except OSError as error:  # ECONNRESET, EPIPE, ETIMEDOUT (13)
            # It says nothing about what can still be read: replies, or commands, that came before
            # the reset are there. They are handed over first, and then the error is told (36).
            self._lost(Event.SEND_FAILED, error)
            return
        self.sent += sent
        if sent == len(unsent):
            self._unsent = b""
            if self._full:
                self._full = self._settled = False
            return
        self._settled = False
        self._full = True
        if isinstance(unsent, bytearray):
            del unsent[:sent]
        else:
            self._unsent = bytearray(unsent[sent:])

    def _high_water(self) -> int:
        return min(self._limits.high_water, self._turns.room)

    def _account(self) -> None:
        """After what is unsent has changed: holds the peer up, or lets it go on."""
        unsent, before = len(self._unsent), self._backlog
        self._turns.unsent += unsent - before
        self._backlog = unsent
        high = self._high_water()
        if Hold.PEER in self.holds:
            if unsent <= min(self._limits.low_water, high):
                self.holds &= ~Hold.PEER
        elif unsent > high and self.incoming in READING:
            self.holds |= Hold.PEER
            self._owner.held_up()
        if before and not unsent and self.outgoing is not Outgoing.BROKEN:
            self._owner.drained()

    # What follows

    def _step(self, event: Event) -> None:
        """The one door for transitions. Raises `RuntimeError` if there is none."""
        before, sending = self.incoming, self.outgoing
        self.incoming, self.outgoing = after(event, before, sending)
        if self.incoming is Incoming.DRAINING and before is OPEN:
            self._allowance = self._limits.linger_size
        elif self.incoming is Incoming.DISCARDING:
            self.holds &= ~Hold.PEER  # a peer that reads only when it has sent all must be read
        if self.outgoing is Outgoing.BROKEN is not sending:
            held = len(self._unsent) + (tcp.unacknowledged(self._sock) or 0)
            farewell = self._farewell - (sending is not Outgoing.SHUT)
            self.undelivered = max(0, held - farewell)
            self._unsent = b""
        self._settle_soon()

    def _end(self, event: Event) -> None:
        """No more lines will come; the owner is told when it has those that there are."""
        if self._told is Told.NOTHING:
            self._told = Told.DUE
        self._step(event)

    def _lost(self, event: Event, error: Exception) -> None:
        self._error = self._error or error
        self._step(event)

    def _await_turn(self) -> None:
        self._settled = False
        self.holds |= Hold.TURN
        self._turns.wait(self)

    def _settle_soon(self) -> None:
        self._settled = False
        if not self._running and Hold.TURN not in self.holds and self._told is not Told.CLOSED:
            self._await_turn()

    def _settle(self) -> None:
        """Does all that follows from what has happened; the owner is told from here."""
        while self._told is not Told.CLOSED and self._follow_up():
            pass
        if self._told is not Told.CLOSED:
            self._look_ahead()
        self._settled = True

    def _follow_up(self) -> bool:
        """The next thing that follows; whether there was one."""
        if self._unsent and not self._full:
            self._send()
        elif len(self._unsent) != self._backlog:
            self._account()
        elif self.outgoing is Outgoing.FINISHING and not self._unsent and not self._shaking():
            self._shut_down()
        elif self._lines.waiting:
            return False
        elif self.incoming is Incoming.DRAINING and self._allowance <= 0:
            self._end(Event.EMPTY)
        elif self._told is Told.DUE and self.outgoing is not Outgoing.BROKEN:
            self._told = Told.END
            self._owner.end_received()
        elif self._is_over():
            if self._sock.fileno() >= 0:
                self._release(self._error)
            self._told = Told.CLOSED
            self._owner.closed(self._error, ours=False)
        else:
            return False
        return True

    def _shaking(self) -> bool:
        """Whether our end waits for the handshake: before it nobody can say close_notify."""
        return self.tls is not None and self.tls.shaking and self.incoming in READING

    def _is_over(self) -> bool:
        shut = self.outgoing is Outgoing.SHUT and self.incoming is Incoming.ENDED
        return over(self.incoming, self.outgoing, shut and bool(tcp.unacknowledged(self._sock)))

    def _look_ahead(self) -> None:
        """Sees to it that the stream is called again: by its turn, its readiness or its timer."""
        more = self._lines.waiting or self.incoming is Incoming.DRAINING
        if more and self.holds is NO_HOLD:
            # No readiness event tells of lines that wait in our own buffer (23), and taking them
            # all now would let one greedy peer starve the others (22).
            self._await_turn()
        wanted = interest(self.incoming, self.holds is not NO_HOLD, bool(self._unsent))
        if wanted != self._registration.interest:
            self._registration.set(wanted)
        due = deadline(self.incoming, self.outgoing, bool(self._unsent))
        if due is not self._deadline:
            self._start_timer(due)

    # Deadlines and the end

    def _start_timer(self, due: Deadline | None) -> None:
        """Starts the one timer that these states have, in place of another."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deadline = due
        if due is not None:
            self._allowance = self._limits.linger_size
            self._mark = self._acknowledged()
            self._until = self._reactor.time() + self._limits.patience(due)
            self._timer = self._reactor.call_later(self._limits.look(due), self._timed_out)

    def _acknowledged(self) -> int:
        """The octets that the peer's kernel has, as far as ours can tell."""
        return self.sent - (tcp.unacknowledged(self._sock) or 0)

    def _deadline_passed(self) -> None:
        """A peer that takes some of what it is owed has not stalled, however slow it is.

        That is seen from what it acknowledges. What `send` accepts says little: the kernel
        reports room when a third of its buffer is free, which a slow reader may need minutes
        for (9). And while the kernel still delivers our last replies, closing can wait (37).
        """
        due, limits, now = self._deadline, self._limits, self._reactor.time()
        assert due is not None
        acknowledged = self._acknowledged()
        if acknowledged > self._mark:
            self._mark = acknowledged
            self._until = now + limits.patience(due)
        if due is Deadline.DELIVERY and (error := tcp.failure(self._sock)):
            # Nothing is asked for any more, so no readiness told of the reset.
            self.leave(error if self._lacks() else None)
        elif now < self._until:
            delay = min(limits.look(due), self._until - now)
            self._timer = self._reactor.call_later(delay, self._timed_out)
        elif due is Deadline.STALL:
            self.abort(Stalled(f"the peer took none of its replies for {limits.stall_timeout:g} s"))
        else:
            self.leave()

    def _shut_down(self) -> None:
        """Everything is sent: ends our side. Comes again when close_notify is sent, too (52)."""
        if self.tls is not None and (octets := self.tls.close_notify()):
            self._farewell += len(octets)
            self._unsent = octets
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # ENOTCONN: the peer has reset the connection meanwhile (13)
            if self.tls is not None and self.tls.they_ended and not self._lacks():
                self.leave()  # it had closed, and our close_notify came to nobody
            else:
                self._lost(Event.SEND_FAILED, error)
        else:
            self._step(Event.SENT)

    def _failed(self, error: Exception) -> None:
        """An exception of this program's own: it ends this connection, and is told."""
        told, self._told = self._told, Told.CLOSED
        try:
            self.abort(error)
            if told is not Told.CLOSED:
                self._owner.closed(error, ours=True)
                return
        except Exception as another:
            error = another
        log.error("an error at the end of a connection", exc_info=error)

    def _lacks(self) -> bool:
        """Whether the peer's kernel has not got everything but our farewell."""
        return (tcp.unacknowledged(self._sock) or 0) > self._farewell

    def _release(self, error: Exception | None) -> None:
        """Closes the socket, and gives back all that belongs to it."""
        self._error = error
        self._start_timer(None)
        self._lines.clear()
        self._step(Event.ABORT)
        self._turns.unsent -= self._backlog
        self._backlog = 0
        try:
            self._registration.set(0)  # before the descriptor's number can be used again (14)
        finally:
            self._sock.close()
