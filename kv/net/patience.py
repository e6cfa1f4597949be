"""How long a peer may take: the one timer that a stream has.

Which states have a time limit stands in `directions`, how long it is in `Limits`. Here is how the
time is counted: from when the peer last took something. Whether it did is looked at when the timer
comes, and not on the way of each message.
"""

from collections.abc import Callable

from kv.net.directions import Deadline
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.transport import Transport


class Patience:
    """Waits with one peer, for one thing. Calls `look`, which is to ask whether it `is_over`."""

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
        self._mark = transport.acknowledged()  # octets, when the peer was last looked at
        self._until = reactor.time() + limits.patience(due)  # it may acknowledge no more than that
        self._timer = reactor.call_later(limits.look(due), look)

    def is_over(self) -> bool:
        """Whether the time is up. If it is not, `look` is called again.

        A peer that takes some of what it is owed has not stalled, however slow it is. That is seen
        from what it acknowledges. What `send` accepts says little: the kernel reports room when a
        third of its buffer is free, which a slow reader may need minutes for (9).
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
        """Waits no more."""
        self._timer.cancel()
