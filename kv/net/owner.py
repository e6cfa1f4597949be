"""What a stream and its owner agree on: what is told, what a peer may cost.

Only the contract lives here: no behaviour.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from kv.net.directions import Deadline
from kv.net.lines import BATCH

#: Seconds between two looks at whether the kernel has delivered all.
DELIVERY = 0.1


class Stalled(TimeoutError):
    """The peer does not read."""


class TlsError(ConnectionError):
    """TLS with this peer failed, or was cut off."""


class Owner(Protocol):
    """Whom a stream tells what happens to it. An exception ends this connection, no other (28)."""

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Complete lines, without LF. Returns the units of work that those it took were.

        Takes one at least, and goes on until `budget` units are done. What it does not take comes
        again.
        """

    def line_too_long(self) -> None:
        """More octets than a line may have, and no LF among them. To be closed or aborted."""

    def held_up(self) -> None:
        """The peer does not take its replies: no line is handed over until it does."""

    def drained(self) -> None:
        """The kernel has taken the last of what it did not take at once."""

    def end_received(self) -> None:
        """No more lines will come: the peer ended its side, or `finish` found nothing more."""

    def closed(self, error: Exception | None, ours: bool) -> None:
        """The socket is closed. The last call.

        `error` is None after a polite end, what `abort` was given, or what `recv` or `send` on
        this socket raised. Is it `ours`, then an exception of this program came to the stream.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may cost, in octets, seconds and units of work."""

    line_size: int = 511  # the longest line, LF included
    read_size: int = 16 * 1024  # asked of one `recv`
    high_water: int = 64 * 1024  # unsent replies, above which reading stops
    low_water: int = 16 * 1024  # and down to which they must go before it goes on
    stall_timeout: float = 60.0  # for the peer to take anything that waits for it
    linger_timeout: float = 2.0  # for the peer to end its side after we ended ours
    linger_size: int = 1024 * 1024  # octets thrown away meanwhile; also the cap of `finish`
    scarce: bool = field(init=False)  # replies to a batch of lines may exceed high_water

    def __post_init__(self) -> None:
        scarce = self.high_water < BATCH * self.line_size
        object.__setattr__(self, "scarce", scarce)

    def patience(self, due: Deadline) -> float:
        """Seconds that a peer may acknowledge nothing while `due` is waited for."""
        if due is Deadline.LINGER:
            return min(self.stall_timeout, self.linger_timeout)
        return self.stall_timeout

    def look(self, due: Deadline) -> float:
        """Seconds after which to look whether it has."""
        return {
            Deadline.STALL: self.stall_timeout / 4,
            Deadline.LINGER: self.patience(due),
            Deadline.DELIVERY: DELIVERY,
        }[due]


class Told(Enum):
    """What the owner has been told: NOTHING -> END -> CLOSED, or at once CLOSED."""

    NOTHING = "nothing"
    END = "end_received, or it closed by itself"
    CLOSED = "closed"
