"""One connection whose octets are lines: turns, back-pressure, and what the owner is told.

Generic: knows lines, not what they mean. A `Transport` moves the octets. In the order that they
move:

- `_read` takes what has come, and cuts it into lines. `_hand_over` gives the owner as many as the
  turn allows. They are two steps because one `recv` may bring more lines than one turn can take.
  While lines wait, the stream reads nothing.
- `write` keeps what the owner sends. While more than `high_water` is unsent, the stream hands no
  line over and reads nothing. It goes on when the peer has taken enough to get below `low_water`.
  So a slow peer holds up itself (8).
- `_settle` does what follows: FIN after the last octet, the notifications of the owner, the end.
  It comes last in a call from the loop, if something has `changed`. What the owner calls at other
  times asks for a turn (`_settle_soon`), and `_settle` comes last in that.

The straight way is one `recv`, one call of the owner with all the lines, one `send` of all replies.
It is not a second way through the code: it only leaves out steps that have nothing to do.

The stream tells the owner from one place, once for each transition, when its state is consistent.
What the owner calls never calls the owner back. It changes states, and the stream does the rest in
its next turn.
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
    deadline,
    interest,
    over,
)
from kv.net.lines import Lines
from kv.net.owner import Limits, Owner, Stalled, Told
from kv.net.patience import Patience
from kv.net.reactor import READ, WRITE, Reactor
from kv.net.transport import DISCARDING, READING, Transport
from kv.net.turns import Turns

if TYPE_CHECKING:
    from kv.net.tls import Tls

log = logging.getLogger("kv")

#: Octets of TLS without plaintext that count as a microsecond of work. So a handshake counts as
#: 500 µs (a signature with an elliptic curve takes 450), and a key update as 27 (it takes 36).
TLS_WORK = 2


class Stream:
    """A connected socket in the loop. The stream owns the socket and closes it in the end."""

    __slots__ = (
        *("_backlog", "_limits", "_lines", "_owner", "_patience", "_reactor", "_registration"),
        *("_running", "_told", "_turns", "heard", "holds", "transport"),
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
        self.transport = Transport(sock, limits.stall_timeout, limits.linger_size, tls)
        self._reactor = reactor
        self._owner = owner
        self._limits = limits
        self._turns = turns
        self._lines = Lines(limits.line_size)
        self._backlog = 0  # unsent octets, as the account of all streams has them
        self._patience: Patience | None = None
        self._running = False  # the stream itself is at work
        self._told = Told.NOTHING
        self.holds = NO_HOLD
        self.heard = reactor.woken  # when the stream last handed lines over
        self._registration = reactor.register(sock, self._ready)
        self._registration.set(READ)
        if self.transport.unsent:
            self._settle_soon()

    # What the owner calls

    @property
    def unsent(self) -> int:
        """Octets written that the kernel has not taken yet."""
        transport = self.transport
        waiting = transport.tls.waiting if transport.tls is not None else b""
        return len(transport.unsent) + len(waiting)

    @property
    def lines(self) -> int:
        """How many lines the owner has taken."""
        return self._lines.taken

    @property
    def kept(self) -> tuple[int, int]:
        """Octets kept: of an incomplete line, and of complete lines that wait."""
        return self._lines.octets

    @property
    def owes(self) -> bool:
        """Whether we owe the peer something: we hold it up, or its kernel lacks replies."""
        transport = self.transport
        return bool(transport.unsent or self.holds or tcp.unacknowledged(transport.sock))

    @property
    def queued(self) -> bool:
        """Whether the stream waits for its turn: lines may have come that nobody has seen."""
        return Hold.TURN in self.holds

    def write(self, octets: bytes) -> None:
        """Sends whole lines, their LF included: in this turn, or as soon as possible.

        Raises `RuntimeError` after `close` or `half_close`. After a failed `send`, octets are
        dropped. The stream tells the owner of the failure later.
        """
        self.transport.write(octets)
        if not self._running:
            self._settle_soon()

    def flush(self) -> None:
        """Gives the kernel what it takes now. Without this call, that happens later."""
        if not self.transport.full:
            self.transport.send()
        if self.transport.changed:
            self._settle_soon()

    def close(self) -> None:
        """Closes politely: sends what is owed, ignores what comes, and lingers.

        If a program closes a socket with unread input, the kernel sends RST instead of FIN. RST can
        destroy replies that `send` has accepted and the peer has not read. So the stream sends
        everything, and throws away what still comes. Then it ends our side. It goes on throwing
        away until the peer ends its side, too, or until a bound in seconds and octets (12).
        """
        self._lines.clear()
        if self._told is Told.NOTHING:
            self._told = Told.END
        self._step(Event.CLOSE)

    def half_close(self) -> None:
        """Ends our sending side when everything written is sent. Reading goes on."""
        self._step(Event.HALF_CLOSE)

    def finish(self) -> None:
        """Hands over the lines that have arrived by now. Then calls `end_received`."""
        self._step(Event.FINISH)

    def abort(self, error: Exception | None) -> None:
        """Closes at once, with RST. The kernel drops what it still holds for the peer."""
        if self.transport.sock.fileno() >= 0:
            tcp.reset_on_close(self.transport.sock)
            self._release(error)

    def leave(self, error: Exception | None = None) -> None:
        """Closes at once, without RST. The kernel still delivers what it holds (37)."""
        if self.transport.sock.fileno() >= 0:
            tcp.read_all(self.transport.sock, self._limits.linger_size)  # or `close` resets (12)
            self._release(error)

    def wait(self) -> None:
        """Holds further lines back until `go_on`: the owner waits for an answer from elsewhere."""
        self.holds |= Hold.OWNER
        self._settle_soon()

    def go_on(self) -> None:
        """Ends `wait`."""
        self.holds &= ~Hold.OWNER
        self._settle_soon()

    # What the loop and `Turns` call. An exception in the handling of a peer ends the connection of
    # that peer, not the loop (28).

    def _ready(self, events: int) -> None:
        transport = self.transport
        self._running = True
        try:
            if events & WRITE:
                transport.send()
            if events & READ and (self.holds is NO_HOLD or transport.incoming is DISCARDING):
                self._read()
            if transport.unsent and not transport.full:
                transport.send()
            if transport.changed:
                self._settle()
        except Exception as error:
            self._failed(error)
        self._running = False

    def take_turn(self) -> None:
        """The stream's turn has come: hands over lines that wait, or reads if it had to wait."""
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

    # Lines

    def _turn_has_come(self) -> None:
        self.holds &= ~Hold.TURN
        if self.holds is not NO_HOLD:
            return
        incoming = self.transport.incoming
        if self._lines.waiting:
            self._hand_over(self._lines.next())
        elif incoming is Incoming.DRAINING or (
            incoming is Incoming.OPEN and not self._registration.interest & READ
        ):
            self._read()

    def _read(self) -> None:
        turns, size = self._turns, self._limits.read_size
        if turns.left <= turns.reserved:
            self._await_turn()  # the turn's work is done; others may have waited longer (38)
            return
        if turns.reserved:  # others wait: no more than a share may take, or it waits in memory (38)
            size = min(size, turns.share * self._limits.line_size)
        if turns.unsent:  # lines that wait for a slow peer cost memory, too
            size = min(size, max(turns.room, self._limits.line_size))
        transport = self.transport
        data = transport.read(size)
        if transport.overhead:  # a handshake counts as work, too (51)
            turns.left -= transport.overhead // TLS_WORK
            transport.overhead = 0
        if not data:
            return
        lines = self._lines.feed(data)
        if lines is not None:
            if turns.left > turns.reserved:
                self._hand_over(lines)
            else:
                transport.changed = True  # TLS used up the turn, so the lines wait for the next
        elif self._lines.too_long:
            self._too_long()

    def _hand_over(self, lines: Iterator[bytes]) -> None:
        """Hands lines to the owner: as many as fit in its share of this turn.

        The owner counts the work, and stops at `budget`. It gets no more lines than the replies to
        them have room for. The lines that it does not take wait for the stream's next turn.
        """
        turns, allowed = self._turns, lines
        if turns.unsent or self._limits.scarce:
            # One line has one reply, of one line's size at most.
            room = max(0, self._high_water() - len(self.transport.unsent))
            allowed = islice(lines, 1 + room // self._limits.line_size)
        self.heard = self._reactor.woken
        share, left = turns.share, turns.left - turns.reserved
        budget = share if share < left else left  # noqa: FURB136 (`min` takes five times as long)
        turns.left -= self._owner.lines_received(allowed, budget)
        if length_hint(lines) or self._lines.rest:
            self.transport.changed = True  # lines are left: `_look_ahead` asks for a turn
        elif self._lines.too_long:
            self._too_long()

    def _too_long(self) -> None:
        self._lines.clear()
        self._owner.line_too_long()

    # What follows

    def _step(self, event: Event) -> None:
        self.transport.step(event)
        self._settle_soon()

    def _settle_soon(self) -> None:
        self.transport.changed = True
        if not self._running and self._told is not Told.CLOSED:
            self._await_turn()

    def _await_turn(self) -> None:
        self.transport.changed = True
        if Hold.TURN not in self.holds:
            self.holds |= Hold.TURN
            self._turns.wait(self)

    def _settle(self) -> None:
        """Does everything that follows from what has happened, and tells the owner."""
        while self._told is not Told.CLOSED and self._follow_up():
            pass
        if self._told is not Told.CLOSED:
            self._look_ahead()
        self.transport.changed = False

    def _follow_up(self) -> bool:
        """Does the next thing that follows. False if there is none."""
        transport = self.transport
        incoming, outgoing = transport.incoming, transport.outgoing
        if transport.unsent and not transport.full:
            transport.send()
        elif len(transport.unsent) != self._backlog:
            self._account()
        elif outgoing is Outgoing.FINISHING and not transport.unsent and not transport.shaking:
            transport.shut_down()
        elif self._lines.waiting:
            return False
        elif incoming is Incoming.DRAINING and transport.allowance <= 0:
            self._step(Event.EMPTY)
        elif (
            self._told is Told.NOTHING
            and incoming not in READING
            and outgoing is not Outgoing.BROKEN
            and Hold.OWNER not in self.holds  # it still has to answer the last line
        ):
            self._told = Told.END
            self._owner.end_received()
        elif over(incoming, outgoing, transport.delivering):
            if transport.sock.fileno() >= 0:
                self._release(transport.error)
            self._told = Told.CLOSED
            self._owner.closed(transport.error, ours=False)
        elif transport.lingers and transport.allowance <= 0:
            self.leave()
        else:
            return False
        return True

    def _account(self) -> None:
        """The number of unsent octets has changed: holds the peer up, or lets it go on."""
        unsent, before = len(self.transport.unsent), self._backlog
        self._turns.unsent += unsent - before
        self._backlog = unsent
        high = self._high_water()
        if Hold.PEER in self.holds:
            if unsent <= min(self._limits.low_water, high):
                self.holds &= ~Hold.PEER
        elif unsent > high and (self.transport.incoming in READING or self._lines.waiting):
            self.holds |= Hold.PEER
            self._owner.held_up()
        if before and not unsent and self.transport.outgoing is not Outgoing.BROKEN:
            self._owner.drained()

    def _high_water(self) -> int:
        return min(self._limits.high_water, self._turns.room)

    def _look_ahead(self) -> None:
        """Arranges the next call of this stream: by its turn, its readiness or its timer."""
        transport = self.transport
        incoming, unsent = transport.incoming, bool(transport.unsent)
        more = self._lines.waiting or incoming is Incoming.DRAINING
        if more and self.holds is NO_HOLD:
            # No selector reports lines that wait in our own buffer (23). And to take them all now
            # would let one greedy peer starve the others (22).
            self._await_turn()
        self._registration.set(interest(incoming, self.holds is not NO_HOLD, unsent))
        due = deadline(incoming, transport.outgoing, unsent)
        if due is not (self._patience and self._patience.due):
            self._wait_for(due)

    # Deadlines and the end

    def _wait_for(self, due: Deadline | None) -> None:
        """Starts the one timer that these states have, in place of the last one."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if due is not None:
            waits_with = self._reactor, self.transport, self._limits
            self._patience = Patience(due, *waits_with, self._timed_out)

    def _deadline_passed(self) -> None:
        """The timer has come: goes on waiting, or ends the connection.

        While the kernel still delivers our last replies, closing can wait (37).
        """
        patience, transport = self._patience, self.transport
        assert patience is not None
        if patience.due is Deadline.DELIVERY and (error := tcp.failure(transport.sock)):
            # The stream asks for no readiness any more, so no event told of the reset.
            self.leave(error if transport.lacks else None)
        elif not patience.is_over():
            pass
        elif patience.due is Deadline.STALL:
            seconds = self._limits.stall_timeout
            self.abort(Stalled(f"the peer took none of its replies for {seconds:g} s"))
        else:
            self.leave()

    def _failed(self, error: Exception) -> None:
        """An exception of this program: ends this connection, and tells the owner."""
        told, self._told = self._told, Told.CLOSED
        try:
            self.abort(error)
            if told is not Told.CLOSED:
                self._owner.closed(error, ours=True)
                return
        except Exception as another:
            error = another
        log.error("an error at the end of a connection", exc_info=error)

    def _release(self, error: Exception | None) -> None:
        """Closes the socket, and gives back everything that belongs to it."""
        self.transport.error = error
        self._wait_for(None)
        self._lines.clear()
        self._step(Event.ABORT)
        self._turns.unsent -= self._backlog
        self._backlog = 0
        try:
            self._registration.set(0)  # before the descriptor's number can be used again (14)
        finally:
            self.transport.sock.close()
