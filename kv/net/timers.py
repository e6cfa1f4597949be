"""Calls to be made later: a heap of timers, ordered by when they are due.

Generic: knows neither selectors nor what is called. A server cancels nearly every timer that it
makes, and postpones many. Both leave the heap alone: what was cancelled or postponed is found out
when the timer comes to the top.
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

    def postpone(self, delay: float) -> None:
        """Makes the call `delay` seconds from now; never sooner than before."""
        self.when = max(self.when, self._timers.time() + delay)

    def cancel(self) -> None:
        """Forgets the call; harmless after it was made."""
        if self.callback is not None:
            self.callback = None
            self._timers.ended()


class Timers:
    """The timers of one loop, by its clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.time = clock
        self.heap: list[tuple[float, int, Timer]] = []
        self.live = 0  # those that were neither run nor cancelled
        self._serial = itertools.count()  # two that are due at one moment run in order of making

    def later(self, delay: float, callback: Callback) -> Timer:
        """A timer that is due in `delay` seconds."""
        timer = Timer(self, self.time() + delay, callback)
        heapq.heappush(self.heap, (timer.when, next(self._serial), timer))
        self.live += 1
        return timer

    def ended(self) -> None:
        """Counts a timer that was cancelled or ran, and keeps dead ones from filling the heap.

        One left lying for an hour per connection would be a leak (25). Rebuilding when half are
        dead costs O(1) per timer.
        """
        self.live -= 1
        if len(self.heap) > 2 * self.live + 64:
            self.heap = [entry for entry in self.heap if entry[2].callback is not None]
            heapq.heapify(self.heap)

    def next(self) -> float | None:
        """When the loop must look again, if ever. A cancelled timer is no reason to wake."""
        while self.heap and self.heap[0][2].callback is None:
            heapq.heappop(self.heap)
        return self.heap[0][0] if self.heap else None

    def run(self, now: float) -> None:
        """Makes the calls that are due by `now`."""
        due: list[Timer] = []  # first collected, then run: what they add waits for the next turn
        while self.heap and self.heap[0][0] <= now:
            timer = heapq.heappop(self.heap)[2]
            if timer.callback is not None and timer.when > now:  # it was postponed
                heapq.heappush(self.heap, (timer.when, next(self._serial), timer))
            else:
                due.append(timer)
        for timer in due:
            callback = timer.callback  # None if cancelled, perhaps by the one before
            if callback is not None:
                timer.cancel()
                callback()
