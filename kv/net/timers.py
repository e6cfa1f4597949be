"""Calls to make later: a heap of timers, ordered by the time when they are due.

Generic: knows neither selectors nor what is called. A server cancels nearly every timer that it
makes, and postpones many. Neither touches the heap. When a timer comes to the top, the loop sees
whether it was cancelled or postponed.
"""

import heapq
import itertools
from collections.abc import Callable

Callback = Callable[[], object]


class Timer:
    """A call to make later."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: "Timers", when: float, callback: Callback) -> None:
        self._timers = timers
        self.when = when
        self.callback: Callback | None = callback

    @property
    def runs(self) -> bool:
        """Whether the call is still to be made."""
        return self.callback is not None

    def postpone(self, delay: float) -> None:
        """Moves the call to `delay` seconds from now, if that is later."""
        self.when = max(self.when, self._timers.time() + delay)

    def cancel(self) -> None:
        """Drops the call. Harmless if the call was already made."""
        if self.callback is not None:
            self.callback = None
            self._timers.ended()


class Timers:
    """The timers of one loop, by its clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.time = clock
        self.heap: list[tuple[float, int, Timer]] = []
        self.live = 0  # timers that neither ran nor were cancelled
        self._serial = itertools.count()  # timers due at the same time run in order of creation

    def later(self, delay: float, callback: Callback) -> Timer:
        """A timer that is due in `delay` seconds."""
        timer = Timer(self, self.time() + delay, callback)
        heapq.heappush(self.heap, (timer.when, next(self._serial), timer))
        self.live += 1
        return timer

    def ended(self) -> None:
        """Counts a timer that ran or was cancelled, so that dead timers do not fill the heap.

        If a dead timer of each connection stayed in the heap for an hour, that would be a leak
        (25). The heap is rebuilt when half are dead, which costs O(1) a timer.
        """
        self.live -= 1
        if len(self.heap) > 2 * self.live + 64:
            self.heap = [entry for entry in self.heap if entry[2].callback is not None]
            heapq.heapify(self.heap)

    def next(self) -> float | None:
        """When the next timer is due, or None. Cancelled timers are removed first."""
        while self.heap and self.heap[0][2].callback is None:
            heapq.heappop(self.heap)
        return self.heap[0][0] if self.heap else None

    def run(self, now: float) -> None:
        """Makes the calls that are due by `now`. Timers that they add wait for the next turn."""
        newest = next(self._serial)
        while self.heap and self.heap[0][0] <= now and self.heap[0][1] < newest:
            timer = heapq.heappop(self.heap)[2]
            callback = timer.callback  # None if cancelled, perhaps by an earlier one
            if callback is None:
                continue
            if timer.when > now:  # the timer was postponed, perhaps by an earlier one
                heapq.heappush(self.heap, (timer.when, next(self._serial), timer))
            else:
                timer.cancel()
                callback()
