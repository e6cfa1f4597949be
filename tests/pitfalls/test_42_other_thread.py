"""A call from another thread does not wake the loop

The loop belongs to one thread. Another one has a result for it, and puts a call into its queue. In
Python `deque.append` is atomic, so this seems to be safe. But the loop looks at the queue before it
sleeps, and then it sleeps. The call is made when something else is ready: at once under load,
minutes later at night. And if the loop counts its queue and then empties it, another thread may
append between the two.

There is one way in from other threads: a queue of its own, and an octet through a socket that the
loop watches. The mechanism is that of signals (41).

What you see: work that was handed over is done when the next client comes. What a bystander sees:
a reply that comes late, and together with another's.
"""

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

from house import Selector

from kv.net.reactor import Reactor

from .pitfall import Pitfall


class Meanwhile(Selector):
    """Another thread asks for something when it goes to sleep."""

    call: Callable[[], None]

    def select(self, timeout: float | None = None) -> list[Any]:
        threading.Timer(0.02, self.call).start()
        return super(Selector, self).select(timeout)


def call_soon(self: Reactor, callback: Callable[[], object]) -> None:
    self.call_soon(callback)


class TestOtherThread(Pitfall):
    """An idle loop sleeps, and another thread wants it to stop."""

    usually = "the call waits until something else wakes the loop"
    wrong = "^loop sleep .*; ready: nobody"
    handled = Reactor.call_soon_threadsafe
    naive = {"kv.net.reactor.Reactor.call_soon_threadsafe": call_soon}
    patience = 0.3

    def scenario(self) -> str:
        selector = Meanwhile()
        with closing(Reactor(selector)) as reactor:
            reactor.wakeable()
            selector.call = lambda: reactor.call_soon_threadsafe(reactor.stop)
            reactor.run()
            return f"the call ends the sleep, and is made in turn {reactor.turns}"
