"""Timers: the wrong clock, the dead that stay, a sleep that is too short

`time.time()` is the time of day, and somebody sets it. An hour back, and every deadline comes an
hour late.

A heap of timers has no cheap way to remove one from its middle. So a cancelled timer stays until it
is due. A server cancels nearly every timer that it sets, and an idle deadline is an hour away.

`poll` and `epoll_wait` count in whole milliseconds. Half a millisecond becomes zero. A loop that
sleeps so comes back at once, finds nothing due, and asks again.

What you see: deadlines that move with the clock, memory that grows with traffic, or short bursts
of 100 % CPU. What a bystander sees: slower replies, or a deadline of its own that passes too early
or too late.
"""

import time
from types import SimpleNamespace
from typing import Any

from kv.net.reactor import Reactor
from kv.net.timers import Timers

from .pitfall import Failure, Pitfall


class Wall:
    """The time of day, as somebody has set it."""

    put_forward = 0.0

    def __call__(self) -> float:
        return time.time() + self.put_forward

    def __repr__(self) -> str:
        return "time.time"


WALL = Wall()


class TestClock(Pitfall):
    """A timer is set to 5 s; then somebody puts the clock back by an hour."""

    usually = "a deadline moves with the time of day"
    unseen = "it is about a timer, and the loop does not turn"
    handled = Reactor.__init__
    naive = {"kv.net.reactor.Reactor.__init__.__defaults__": (None, WALL)}

    def scenario(self) -> str:
        reactor = Reactor()
        assert reactor.time is not time.time  # which no test can put back: WALL stands in for it
        try:
            reactor.call_later(5, lambda: None)
            WALL.put_forward -= 3600
            sleep = reactor._sleep() or 0
        finally:
            WALL.put_forward = 0.0
            reactor.close()
        told = f"the loop would sleep {sleep:,.0f} s for a timer that is due in 5"
        if sleep > 5:
            raise Failure(told)
        return told


def ended(self: Timers) -> None:
    pass  # it is thrown away when it is due


class TestDead(Pitfall):
    """10,000 clients come and go, each with a deadline in an hour that is cancelled."""

    shown = "m"
    usually = "cancelled timers fill the memory"
    unseen = "it is about timers, and the loop does not turn"
    handled = Timers.ended
    naive = {"kv.net.timers.Timers.ended": ended}

    def scenario(self) -> str:
        reactor = Reactor()
        for _ in range(10_000):
            reactor.call_later(3600, lambda: None).cancel()
        kept = len(reactor.timers.heap)
        reactor.close()
        told = f"{kept:,} of 10,000 cancelled timers are kept"
        if kept > 100:
            raise Failure(told)
        return told


class Milliseconds:
    """A selector that sleeps for whole milliseconds, rounded up; a look at it takes 10 µs."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float) -> list[Any]:
        """Nobody is ever ready."""
        self.now += max(1e-5, -(-round(timeout * 1e6) // 1000) / 1000)
        return []


def sleep(self: Reactor) -> float:
    milliseconds = int(1000 * (self.timers.heap[0][0] - self.time()))
    return milliseconds / 1000


class TestRounding(Pitfall):
    """A timer is due in 10.5 ms."""

    shown = "m"
    usually = "the loop spins through the last millisecond before each timer"
    unseen = "it is about a timer, and the loop does not turn"
    handled = Reactor._sleep
    naive = {"kv.net.reactor.Reactor._sleep": sleep}

    def scenario(self) -> str:
        selector = Milliseconds()
        reactor = Reactor(selector, lambda: selector.now)
        due = SimpleNamespace(yet=False)
        reactor.call_later(0.0105, lambda: setattr(due, "yet", True))
        while not due.yet:
            reactor.turn()
        told = f"wake-ups for one timer: {reactor.turns}"
        if reactor.turns > 2:
            raise Failure(told)
        return told
