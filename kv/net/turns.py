"""Who is served next, and how much: fair among all, bounded in total.

Generic: knows one method of streams, and the units in which owners count work.

A bound for each of many is no bound for all (38). If three hundred peers have a millisecond of work
each, a turn of the loop takes a third of a second, and everybody waits for that. So a turn has a
`budget` of work for all together. While some of it is left, a stream that is ready is served at
once. Other streams wait in a queue, first come, first served. So do streams with lines left. The
longer the queue, the less each gets at a time, down to one message. So a peer that wants little
waits, at the longest, for one message of each peer that wants much.

Between two rounds of the queue, the loop looks at the descriptors: new connections, timers, and
streams that have just become ready. Half of each turn belongs to the queue, so these cannot starve
it either.

Unsent replies are bounded in the same way, in octets. Each stream may have as much as its own limit
says, and at most an eighth of what is left for all.
"""

import sys
from collections import deque
from typing import Protocol

from kv.net.reactor import Reactor

#: Units of work that one stream may do at a time: 1 ms, if a unit is about 1 µs.
QUANTUM = 1_000
#: Units of work in one turn of the loop for all together: 10 ms.
BUDGET = 10_000
#: Streams in the queue. If more of them asked for readiness, each turn would look at them all.
CROWD = 100
#: Octets of replies that all peers together may leave unsent.
UNSENT = 32 * 1024 * 1024


class Waiting(Protocol):
    """A stream, as `Turns` sees it."""

    def take_turn(self) -> None:
        """The stream's turn has come. Must not raise."""


class Turns:
    """The queue of one reactor, and what is left of this turn's work.

    `share` is how much work a stream may do when it is served. The stream subtracts what it did
    from `left`. A stream that is ready has to `wait` unless `left` is above `reserved`. These are
    plain attributes, because every message needs them.
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
        self.unsent = 0  # unsent octets of all streams together
        reactor.each_turn(self._begin)

    @property
    def room(self) -> int:
        """The octets that one stream may leave unsent: an eighth of what the others leave."""
        return max(0, self._unsent_limit - self.unsent) // 8

    @property
    def crowded(self) -> bool:
        """Whether so many wait that they had better ask for no readiness meanwhile."""
        return len(self._queue) > CROWD

    def wait(self, stream: Waiting) -> None:
        """Puts a stream at the end of the queue. The caller must not do so twice."""
        if not self._queue and not self._serving:
            self._reactor.call_soon(self._serve)
        self._queue.append(stream)
        self._divide()

    def _begin(self) -> None:
        """A turn of the loop begins."""
        self.left = self._budget

    def _divide(self) -> None:
        """Sets `share`: the longer the queue, the smaller, down to one message."""
        self.share = max(1, min(self._quantum, self._budget // (len(self._queue) + 1)))
        if self._serving:
            self.share = max(1, min(self.share, self.left))
            self.reserved = -sys.maxsize  # a stream whose turn has come need not wait again
        else:
            self.reserved = self._budget // 2 if self._queue else 0

    def _serve(self) -> None:
        """Serves the streams in the queue, each at most once, until this turn's work is done."""
        self._serving = True
        try:
            # One is served in any case: streams that were just ready may have used up the budget.
            for number in range(len(self._queue)):
                if number and self.left <= 0:
                    break
                stream = self._queue.popleft()
                self._divide()
                stream.take_turn()
        finally:  # also if Ctrl-C interrupts the program, which may go on
            self._serving = False
            self._divide()
            if self._queue:
                self._reactor.call_soon(self._serve)
