"""The life of one connection: what follows from what has happened, up to the end.

Generic. This is the lower half of a `Stream`. Whatever happens changes states, and sets `changed`.
Then `_settle` does what follows: FIN after the last octet, back-pressure, the notifications of the
owner, the end. It also arranges when the stream is called next.

The owner is told from one place, once for each transition, when the states are consistent. What
the owner calls never calls the owner back. It changes states, and the stream does the rest in its
next turn.
"""

import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from kv.net import tcp
from kv.net.directions import (
    OWNER,
    PEER,
    TURN,
    Deadline,
    Event,
    Incoming,
    Outgoing,
    deadline,
    interest,
    over,
)
from kv.net.lines import Lines
from kv.net.owner import Limits, Owner, Stalled, Told
from kv.net.patience import Patience
from kv.net.reactor import READ, Reactor
from kv.net.transport import READING, Transport
from kv.net.turns import Turns

if TYPE_CHECKING:
    from kv.net.tls import Tls

log = logging.getLogger("kv")


class Lifecycle(ABC):
    """A connected socket, from the first octet to the last. `Stream` adds the lines."""

    __slots__ = (
        *("_backlog", "_late", "_limits", "_lines", "_owner", "_patience", "_reactor"),
        *("_registration", "_running", "_told", "_turns", "heard", "holds", "transport"),
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
        self._late = False  # it was ready when the turn's work was done
        self._told = Told.NOTHING
        self.holds = 0  # of the numbers of `Hold`
        self.heard = reactor.woken  # when the stream last handed lines over
        self._registration = reactor.register(sock, self._ready)
        self._registration.set(READ)
        if self.transport.unsent:
            self._settle_soon()

    @abstractmethod
    def _ready(self, events: int) -> None:
        """The selector reports readiness. Must not raise."""

    @abstractmethod
    def take_turn(self) -> None:
        """The turn that was asked for has come. Must not raise."""

    # What the owner calls

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

    # What follows

    def _step(self, event: Event) -> None:
        self.transport.step(event)
        self._settle_soon()

    def _settle_soon(self) -> None:
        self.transport.changed = True
        if not self._running and self._told is not Told.CLOSED:
            self._await_turn()

    def _await_turn(self) -> None:
        if not self.holds & TURN:
            self.holds |= TURN
            self._turns.wait(self)

    def _conclude(self) -> None:
        """Comes last in each call from the loop: sends replies, and settles what has changed."""
        transport = self.transport
        if transport.unsent and not transport.full:
            transport.send()
        if transport.changed:
            self._settle()

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
        elif self._lines.more:
            return False
        elif incoming is Incoming.DRAINING and transport.allowance <= 0:
            self._step(Event.EMPTY)
        elif (
            self._told is Told.NOTHING
            and incoming not in READING
            and outgoing is not Outgoing.BROKEN
            and not self.holds & OWNER  # it still has to answer the last line
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
        if self.holds & PEER:
            if unsent <= min(self._limits.low_water, high):
                self.holds &= ~PEER
        elif unsent > high and (self.transport.incoming in READING or self._lines.more):
            self.holds |= PEER
            self._owner.held_up()
        if before and not unsent and self.transport.outgoing is not Outgoing.BROKEN:
            self._owner.drained()

    def _high_water(self) -> int:
        return min(self._limits.high_water, self._turns.room)

    def _look_ahead(self) -> None:
        """Arranges the next call of this stream: by its turn, its readiness or its timer."""
        transport = self.transport
        incoming, unsent = transport.incoming, bool(transport.unsent)
        more = self._lines.more or incoming is Incoming.DRAINING
        if more and not self.holds:
            # No selector reports lines that wait in our own buffer (23). And to take them all now
            # would let one greedy peer starve the others (22).
            self._await_turn()
        self._registration.set(interest(incoming, bool(self.holds), unsent))
        due = deadline(incoming, transport.outgoing, unsent)
        if due is not (self._patience and self._patience.due):
            self._wait_for(due)

    # Deadlines

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
        transport.changed = True  # the kernel may have delivered everything
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

    def _timed_out(self) -> None:
        self._guarded(self._deadline_passed)

    def _guarded(self, act: Callable[[], object]) -> None:
        self._running = True
        try:
            act()
            self._conclude()
        except BaseException as error:
            self._failed(error)
        self._running = False

    # The end

    def _failed(self, error: BaseException) -> None:
        """An exception of this program: ends this connection, and tells the owner (28)."""
        if not isinstance(error, Exception):  # Ctrl-C, say: the program may catch it and go on
            self._running = False
            self._settle_soon()
            raise error
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
