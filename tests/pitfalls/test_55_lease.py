"""A lease that ran out while the process stood still

Whoever holds something for a time, and renews it, must stop using it in time. Nobody says so: it is
the clock that says it. But a process can stand still for longer than that: SIGSTOP, a machine that
sleeps, a virtual machine that is moved, a garbage collector. For the process no time has passed. It
wakes, finds a client's message, and answers, while another server has long been given the same id.

Timers do not help: whatever was ready is handled first, and the timer after it. So whoever is about
to answer looks at the time. The clock has to be one that goes on
while the machine sleeps (CLOCK_BOOTTIME on Linux). And the lease is counted from before the request
was sent: from the answer on, it would last longer here than where it was given.

What you see: two servers that both believe to be the only one, and data that one of them loses.
What a bystander sees: nothing at all, for years.
"""

from collections.abc import Callable

from fake_registry import LEASE, FakeRegistry
from house import house

from kv.registry.claims import Claim, Claims, News
from kv.registry.registry import Registry
from kv.registry.resp import Act

from .pitfall import Failure, Pitfall


def holds(self: Registry, claim: Claim) -> bool:
    """What is usually written: a timer ends the claim when its time is over."""
    return claim.act is Act.RENEW


class TestStoodStill(Pitfall):
    """A server stands still for longer than its lease, and wakes with a message to be read."""

    usually = "it answers under an id that another server has by now"
    wrong = " message GET"
    handled = Registry.holds
    naive = {"kv.registry.registry.Registry.holds": holds}

    def scenario(self) -> str:
        with (
            FakeRegistry() as registry,
            house(registry=registry) as first,
            house(registry=registry) as second,
        ):
            second.settle()
            sleeper = first.guest().connect("alice")
            registry.clock.now += LEASE  # and `first` has no turn
            second.settle()
            second.guest().connect("alice")
            sleeper.unsent += sleeper.key.seal(b"GET k")
            sleeper.read()  # it is in the socket when `first` wakes
            first.settle()
            if sleeper.texts() != ["CONNECT: OK"]:
                raise Failure(f"both serve alice: {sleeper.texts()}")
            return "the sleeper's client is dropped, and its message not answered"


def answered(
    self: Claims, line: bytes, ours: Callable[..., list[News]] = Claims.answered
) -> list[News]:
    """What is usually written: the lease begins when it is granted, which is now."""
    self.awaiting[0] = self.awaiting[0]._replace(sent=self._clock())
    return ours(self, line)


class TestCountedFromTheAnswer(Pitfall):
    """The registry does what it is asked, and the answer takes four seconds."""

    usually = "the server believes in its lease for four seconds too long"
    wrong = " message PUT"
    handled = Claims.answered
    naive = {"kv.registry.claims.Claims.answered": answered}

    def scenario(self) -> str:
        with (
            FakeRegistry() as registry,
            house(registry=registry) as first,
            house(registry=registry) as second,
        ):
            first.settle()
            registry.slow_down(4)
            second.settle()
            slow = first.guest()
            slow.send_raw(slow.key.line)
            slow.send("CONNECT alice")
            first.wait(4)
            if slow.texts() != ["CONNECT: OK"]:
                raise Failure(f"CONNECT is answered {slow.texts()}")
            registry.answers = False  # nothing comes through any more
            first.wait(LEASE - 4)
            registry.answers = True
            second.settle()
            second.guest().connect("alice")
            answers = slow.ask("PUT k", "v")
            if answers:
                raise Failure(f"both serve alice: {answers}")
            return "its client was dropped before the id was free"
