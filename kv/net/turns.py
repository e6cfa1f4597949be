"""Who is served next, and how much: fair among all, bounded in total.

Generic: knows streams by the one method that it calls, and work by the units that owners count in.

A bound for each of many is no bound for all (38): three hundred peers, each with its millisecond
of work, make a turn of the loop last a third of a second, and everybody waits for that. So a turn
has a `budget` of work for all together. Whoever is ready is served at once while there is some of
it left; the others, and those whose lines were not all taken, wait in a queue, first come, first
served. The more there are in the queue, the less each gets at a time, down to one message. So who
wants little waits for one message of each of those who want much, at the longest.

Between two rounds the loop looks at the descriptors: accepting, timers and whoever has just become
ready come between. Half of each turn belongs to the queue, so these cannot starve it either.

Replies that peers do not take are bounded in the same way, in octets: each may have as much as its
own limit says, and an eighth of what is left for all.
"""

import sys
from collections import deque
from typing import Protocol

from kv.net.reactor import Reactor

#: Units of work that one stream may do at a time: 1 ms, if a unit is about 1 µs.
QUANTUM = 1_000
#: Units of work in one turn of the loop for all together: 10 ms.
BUDGET = 10_000
#: Octets of replies that all peers together may leave unsent.
UNSENT = 32 * 1024 * 1024


class Waiting(Protocol):
    """Whoever waits for its turn."""

    def take_turn(self) -> None:
        """Its turn has come. Must not raise."""


class Turns:
    """The queue of one reactor, and what is left of this turn's work.

    `share` is what whoever is served may do now, in units of work. What it did it takes off `left`.
    Whoever is ready while `left` is not above `reserved` has to `wait`. Plain attributes: they are
    looked at for every message.
    """

    def __init__(
        self,
        reactor: Reactor,
        quantum: int = QUANTUM,
        budget: int = BUDGET,
        unsent_limit: int = UNSENT,
    ) -> None:
        self._reactor = reactor
        self._quantum = quantum
        self._budget = budget
        self._unsent_limit = unsent_limit
        self._queue: deque[Waiting] = deque()
        self._serving = False
        self.share = quantum
        self.left = budget
        self.reserved = 0
        self.unsent = 0  # octets that all streams together have not been able to send
        reactor.each_turn(self._begin)

    @property
    def room(self) -> int:
        """The octets that one stream may leave unsent, as far as the others leave room."""
        return max(0, self._unsent_limit - self.unsent) // 8

    def wait(self, stream: Waiting) -> None:
        """Puts a stream at the end of the queue. The caller sees to it that it is there once."""
        if not self._queue and not self._serving:
            self._reactor.call_soon(self._serve)
        self._queue.append(stream)
        self._divide()

    def _begin(self) -> None:
        """A turn of the loop begins."""
        self.left = self._budget

    def _divide(self) -> None:
        """The more there are, the less each gets, down to one message."""
        self.share = max(1, min(self._quantum, self._budget // (len(self._queue) + 1)))
        if self._serving:
            self.share = max(1, min(self.share, self.left))
            self.reserved = -sys.maxsize  # whose turn has come is not sent back
        else:
            self.reserved = self._budget // 2 if self._queue else 0

    def _serve(self) -> None:
        """Serves those who wait, each once at most, until this turn's work is done."""
        self._serving = True
        # One is served in any case: whoever has just become ready may have used up all.
        for number in range(len(self._queue)):
            if number and self.left <= 0:
                break
            stream = self._queue.popleft()
            self._divide()
            stream.take_turn()
        self._serving = False
        self._divide()
        if self._queue:
            self._reactor.call_soon(self._serve)
