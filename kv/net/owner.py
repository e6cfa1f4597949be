"""What a stream and its owner agree on: what the stream tells, and what a peer may cost.

Only the contract lives here: no behaviour.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from kv.net.directions import Deadline
from kv.net.lines import BATCH

#: Seconds between two looks at whether the kernel has delivered everything.
DELIVERY = 0.1


class Stalled(TimeoutError):
    """The peer does not read."""


class TlsError(ConnectionError):
    """TLS with this peer failed, or was cut off."""


class Owner(Protocol):
    """The calls that a stream makes to its owner. An exception ends this connection only (28)."""

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Complete lines, without LF. Returns the work that it did, in its own units.

        The owner takes at least one line, and goes on until it has done `budget` units. Lines that
        it does not take come again.
        """

    def line_too_long(self) -> None:
        """The peer has sent too many octets without LF. The owner has to close or abort.

        This comes after all lines before it, and not while the owner waits.
        """

    def held_up(self) -> None:
        """The peer does not take its replies. Until it does, no line is handed over."""

    def drained(self) -> None:
        """The kernel has taken the last of the octets that it did not take at once."""

    def end_received(self) -> None:
        """No more lines will come: the peer ended its side, or `finish` found no more."""

    def closed(self, error: Exception | None, ours: bool) -> None:
        """The socket is closed. The last call.

        `error` is None after a polite end. Otherwise it is the argument of `abort` or `leave`, what
        the kernel says of this socket, or a `TlsError`. If `ours`, an exception of this program.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may cost, in octets, seconds and units of work."""

    line_size: int = 511  # the longest line, LF included
    read_size: int = 16 * 1024  # the most of one `recv`
    high_water: int = 64 * 1024  # above so many unsent octets, reading stops
    low_water: int = 16 * 1024  # down to so many, reading goes on
    stall_timeout: float = 60.0  # for the peer to take any of its replies
    linger_timeout: float = 2.0  # for the peer to end its side after we ended ours
    linger_size: int = 1024 * 1024  # the most to throw away then; also the most that `finish` reads
    scarce: bool = field(init=False)  # the replies to a batch of lines may exceed high_water

    def __post_init__(self) -> None:
        scarce = self.high_water < BATCH * self.line_size
        object.__setattr__(self, "scarce", scarce)

    def patience(self, due: Deadline) -> float:
        """Seconds that a peer may acknowledge nothing, for this deadline."""
        if due is Deadline.LINGER:
            return min(self.stall_timeout, self.linger_timeout)
        return self.stall_timeout

    def look(self, due: Deadline) -> float:
        """Seconds until the next look at what the peer has acknowledged."""
        return DELIVERY if due is Deadline.DELIVERY else self.patience(due) / 4


class Told(Enum):
    """What the stream has told its owner: NOTHING -> END -> CLOSED, or at once CLOSED."""

    NOTHING = "nothing"
    END = "end_received, or the owner itself has closed"
    CLOSED = "closed"
