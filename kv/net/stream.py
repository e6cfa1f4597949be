"""One connection whose octets are lines: what comes in, what goes out, whose turn it is.

Generic: knows lines, not what they mean. A `Transport` moves the octets. In the order that they
move:

- `_read` takes what has come, and cuts it into lines. `_hand_over` gives the owner as many as the
  turn allows. They are two steps because one `recv` may bring more lines than one turn can take.
  While lines wait, the stream reads nothing.
- `write` keeps what the owner sends. While more than `high_water` is unsent, the stream hands no
  line over and reads nothing. It goes on when the peer has taken enough to get below `low_water`.
  So a slow peer holds up itself (8).
- `Lifecycle._settle` does what follows. It comes last in a call from the loop, if something has
  `changed`. What the owner calls at other times asks for a turn, and `_settle` comes last in that.

The straight way is one `recv`, one call of the owner with all the lines, one `send` of all replies.
It is not a second way through the code: it only leaves out steps that have nothing to do.
"""

from collections.abc import Iterator
from itertools import islice
from operator import length_hint

from kv.net import tcp
from kv.net.directions import OWNER, TURN, Event, Incoming
from kv.net.lifecycle import Lifecycle
from kv.net.owner import Told
from kv.net.reactor import READ, WRITE
from kv.net.transport import DISCARDING

#: Octets of TLS without plaintext that count as a microsecond of work. So a handshake counts as
#: 500 µs (a signature with an elliptic curve takes 450), and a key update as 27 (it takes 36).
TLS_WORK = 2


class Stream(Lifecycle):
    """A connected socket in the loop. The stream owns the socket and closes it in the end."""

    __slots__ = ()

    # What the owner calls, besides `abort` and `leave`

    @property
    def unsent(self) -> int:
        """Octets written that the kernel has not taken yet."""
        return len(self.transport.unsent) + self.transport.unsealed

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
        return bool(self.holds & TURN)

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

    def wait(self) -> None:
        """Holds further lines back until `go_on`: the owner waits for an answer from elsewhere."""
        self.holds |= OWNER
        self._settle_soon()

    def go_on(self) -> None:
        """Ends `wait`."""
        self.holds &= ~OWNER
        self._settle_soon()

    # What the loop and `Turns` call. An exception in the handling of a peer ends the connection of
    # that peer, not the loop (28).

    def _ready(self, events: int) -> None:
        transport = self.transport
        self._running = True
        try:
            if events & WRITE:
                transport.send()
            if events & READ and (not self.holds or transport.incoming is DISCARDING):
                self._read()
            self._conclude()
        except BaseException as error:
            self._failed(error)
        self._running = False

    def take_turn(self) -> None:
        """The stream's turn has come: hands over lines that wait, or reads if it had to wait."""
        self._guarded(self._turn_has_come)

    # Lines

    def _turn_has_come(self) -> None:
        self.holds &= ~TURN
        late, self._late = self._late, False
        if not self._registration.interest & READ:
            late = self.transport.changed = True  # lines may have come unseen; READ may be on again
        if self.holds:
            return
        incoming = self.transport.incoming
        if self._lines.more:
            lines = self._lines.next()
            if length_hint(lines):
                self._hand_over(lines)
            else:
                self._too_long()
        elif incoming is Incoming.DRAINING or (incoming is Incoming.OPEN and late):
            self._read()

    def _read(self) -> None:
        turns, size = self._turns, self._limits.read_size
        if turns.left <= turns.reserved:
            # The turn's work is done, and others may have waited longer (38). While a few wait,
            # their interest stays on. That saves two system calls, and the loop cannot spin.
            self._late = True
            self._await_turn()
            if self._turns.crowded:
                self.transport.changed = True
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
            if self.holds & OWNER:  # it still has to answer the last line
                self.transport.changed = True
            else:
                self._too_long()

    def _too_long(self) -> None:
        self._lines.clear()
        self._owner.line_too_long()
