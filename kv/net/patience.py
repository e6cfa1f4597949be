"""How long a peer may take: the one timer that a stream has.

`directions` says which states have a time limit, and `Limits` how long it is. This module counts
the time, from when the peer last took something. It looks at the peer's progress only when the
timer comes, so messages cost nothing.
"""

from collections.abc import Callable

from kv.net.directions import Deadline
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.transport import Transport


class Patience:
    """Waits for one peer, for one reason. Calls `look`, which has to ask whether it `is_over`."""

    __slots__ = ("_limits", "_look", "_mark", "_reactor", "_timer", "_transport", "_until", "due")

    def __init__(
        self,
        due: Deadline,
        reactor: Reactor,
        transport: Transport,
        limits: Limits,
        look: Callable[[], None],
    ) -> None:
        self.due = due
        self._reactor = reactor
        self._transport = transport
        self._limits = limits
        self._look = look
        self._mark = transport.acknowledged()  # octets that the peer had at the last look
        self._until = reactor.time() + limits.patience(due)  # the end, if there is no progress
        self._timer = reactor.call_later(limits.look(due), look)

    def is_over(self) -> bool:
        """Whether the time is up. If it is not, `look` is called again.

        A peer that takes some of its replies has not stalled, however slow it is. Its progress
        shows in what it acknowledges. What `send` accepts says little. The kernel reports room only
        when a third of its buffer is free, and a slow reader may need minutes for that (9).
        """
        acknowledged, now = self._transport.acknowledged(), self._reactor.time()
        if acknowledged > self._mark:
            self._mark = acknowledged
            self._until = now + self._limits.patience(self.due)
        if now >= self._until:
            return True
        delay = min(self._limits.look(self.due), self._until - now)
        self._timer = self._reactor.call_later(delay, self._look)
        return False

    def cancel(self) -> None:
        """Ends the waiting."""
        self._timer.cancel()
