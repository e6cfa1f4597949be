"""The simulated kernel: time, descriptors, the selector, and the dice.

Everything here obeys one rule: the only sources of change are the seed's random numbers and the
calls that the server makes. There is no real clock, no iteration over a set, no `id()`; so one
seed is one history.

Time. `now` moves in two places only. `Selector.select` moves it to the next event of the simulated
world or to the timeout, whichever is first. In some worlds, each system call moves it by a few
microseconds of `cost`. So an hour without traffic costs nothing.

This kernel does everything that POSIX allows. It wakes late or for no reason, and reports a batch
in any order. It names a descriptor twice in a batch, as kqueue does, even if the server has closed
it in between. It gives the lowest free number, which is often a closed descriptor's, to the next
that asks. What a kernel would refuse is an error in the server: the first `Failure` ends the world.
"""

import errno
import heapq
import os
import selectors
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

#: Turns in a row that may move nothing, before that is called spinning.
IDLE_TURNS = 4
#: accept(2): the connection that was about to be accepted is dead; the listener is not.
DEAD = ("ECONNABORTED", "EPROTO", "EPERM", "ENETDOWN", "ENETUNREACH", "EHOSTUNREACH", "ETIMEDOUT")
#: accept(2): the process or the machine has run out of something.
EXHAUSTED = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")


class Failure(BaseException):
    """The server did what it must not. No `except Exception` on the way out can hide it."""


@dataclass(slots=True)
class Dice:
    """How hostile this world's kernel is: chances from 0 to 1, durations in seconds.

    Each world has some of them at 0. A world in which everything goes wrong all the time never
    gets far enough for the interesting mistakes (FoundationDB's lesson).
    """

    short: float = 0.0  # recv and send take fewer octets than they could
    blocked: float = 0.0  # "would block" after readiness
    spurious: float = 0.0  # readiness of what is not ready
    early: float = 0.0  # select returns empty-handed before its timeout
    late: float = 0.0  # select returns up to so much after its timeout
    cost: float = 0.0  # every system call
    dead: float = 0.0  # accept finds a dead connection
    full: float = 0.0  # the selector has no room for a descriptor, or no memory for a change
    tells: bool = True  # what it has not delivered yet
    bsd: bool = False  # two events for a descriptor; a reset takes what was not read yet with it

    @classmethod
    def roll(cls, rng: Random) -> "Dice":
        return cls(
            short=rng.choice((0, 0.2, 0.9)),
            blocked=rng.choice((0, 0, 0.05, 0.3)),
            spurious=rng.choice((0, 0, 0.05, 0.2)),
            early=rng.choice((0, 0, 0.1)),
            late=rng.choice((0, 0.001, 0.2)),
            cost=rng.choice((0, 0, 0.00002)),
            dead=rng.choice((0, 0, 0.2)),
            full=0.0 if rng.random() < 0.8 else rng.choice((0.01, 0.1)),
            tells=rng.random() < 0.9,
            bsd=rng.random() < 0.4,
        )


class File(Protocol):
    """What has a descriptor here: a socket, a listening socket, the bell of the loop."""

    fd: int

    def ready(self) -> int:
        """The readiness that the kernel sees now, READ and WRITE or'd."""


class Kernel:
    """One world's time, descriptors and dice."""

    def __init__(self, rng: Random, dice: Dice, trace: list[str] | None) -> None:
        self.rng = rng
        self.dice = dice
        self.trace = trace
        self.now = 1000.0
        self.files: dict[int, File] = {}
        self.descriptor_limit = 1024
        self.exhausted_until = 0.0  # while out of some resource, accept fails with `exhausted_by`
        self.exhausted_by = "EMFILE"
        self.activity = 0  # grows with everything that is no idle turn
        self.interrupts: list[Callable[[], object]] = []  # signals, in the midst of a call
        self.bound_to_finish = False  # a graceful stop takes "would block" for "nothing came"
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = 0
        self._free: list[int] = []
        self._next_fd = 3
        self.running = False  # the loop is: the server has started
        self.selector = Selector(self)

    def time(self) -> float:
        """The simulated monotonic clock."""
        return self.now

    def say(self, who: str, what: str) -> None:
        """A line of the trace. Callers look at `trace` first: most worlds are not watched."""
        if self.trace is not None:
            self.trace.append(f"{self.now - 1000:12.6f}  {who:<12} {what}")

    def at(self, delay: float, event: Callable[[], object]) -> None:
        """Makes `event` happen in the world outside, `delay` seconds from now."""
        self._serial += 1
        heapq.heappush(self._events, (self.now + delay, self._serial, event))

    def chance(self, probability: float) -> bool:
        """True that often. A chance that is 0 costs no random number."""
        return probability > 0 and self.rng.random() < probability

    def system_call(self) -> None:
        """What every call into the kernel costs; and a signal may come during it."""
        self.now += self.dice.cost
        while self.interrupts:
            self.interrupts.pop()()

    def open(self, file: File) -> int:
        """The lowest free number for `file`."""
        fd = heapq.heappop(self._free) if self._free else self._next_fd
        self._next_fd = max(self._next_fd, fd + 1)
        self.files[fd] = file
        return fd

    def close(self, fd: int) -> None:
        """The number is free again."""
        if fd in self.selector.registered:
            raise Failure(f"descriptor {fd} is closed and still registered")
        del self.files[fd]
        heapq.heappush(self._free, fd)
        self.activity += 1

    def next_event(self) -> float:
        """When the next event is due; infinity if nothing will ever happen by itself."""
        return self._events[0][0] if self._events else float("inf")

    def run_events(self) -> None:
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()

    def settle(self, settled: Callable[[], bool]) -> None:
        """Lets the world go on without the server until `settled()`."""
        while not settled() and self._events:
            self.now = max(self.now, self.next_event())
            self.run_events()


class Selector:
    """A level-triggered selector, of which the reactor uses four calls and `close`."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.registered: dict[int, tuple[int, Any]] = {}
        self.before_turn: Callable[[], object] = lambda: None  # where the invariants are checked
        self._batch: list[tuple[int, int, Any]] = []  # descriptor, events and file, last reported
        self.turns = 0
        self._activity = -1
        self._idle_turns = 0
        self._last_look = False
        self.failures: list[OSError] = []  # what `register` and `modify` have raised
        self.failed_at: dict[int, float] = {}  # when, by descriptor

    def register(self, fileobj: Any, events: int, data: Any) -> None:
        """As in `selectors`: an empty interest and a registered descriptor are errors."""
        fd = self._open_descriptor(fileobj)
        if not events:
            raise Failure(f"descriptor {fd} is registered with an empty interest")
        if fd in self.registered:
            raise Failure(f"descriptor {fd} is registered twice")
        self._may_fail(fd, "ENOSPC")
        self.registered[fd] = events, data

    def modify(self, fileobj: Any, events: int, data: Any) -> None:
        fd = self._open_descriptor(fileobj)
        if not events or fd not in self.registered:
            raise Failure(f"descriptor {fd} cannot be modified to {events}")
        _, old = self.registered.pop(fd)
        self._may_fail(fd, "ENOMEM")  # then `selectors` has forgotten it
        self.registered[fd] = events, data
        assert old is data

    def unregister(self, fileobj: Any) -> None:
        """As in `selectors`, which find an object that is closed already only by luck."""
        fd = self._open_descriptor(fileobj)
        if fd not in self.registered:
            raise Failure(f"descriptor {fd} is unregistered and was not registered")
        del self.registered[fd]

    def _may_fail(self, fd: int, name: str) -> None:
        if self._kernel.running and self._kernel.chance(self._kernel.dice.full):
            self._kernel.say(f"fd {fd}", f"the selector fails: {name}")
            self._kernel.activity += 1
            self.failures.append(error(name))
            self.failed_at[fd] = self._kernel.now
            raise self.failures[-1]

    def is_failure(self, error: BaseException | None) -> bool:
        """Whether `error` is what `register` or `modify` has raised."""
        return any(error is failure for failure in self.failures)

    def close(self) -> None:
        """Whoever closes a selector has nothing registered any more."""
        if self.registered:
            raise Failure(f"the selector is closed with {list(self.registered)} registered")

    def select(self, timeout: float | None) -> list[tuple[Any, int]]:
        """Sleeps for `timeout` seconds, or until something is ready; what is ready."""
        kernel, rng = self._kernel, self._kernel.rng
        if kernel.trace is not None:
            self._tell_of_stale_events()
        self.before_turn()
        kernel.system_call()
        self._look_for_spinning(timeout)
        self.turns += 1
        kernel.run_events()
        ready = self._ready()
        if not ready and (timeout is None or timeout > 0):
            self._sleep(timeout)
            ready = self._ready()
        if kernel.dice.spurious and self.registered and kernel.chance(kernel.dice.spurious):
            fd = rng.choice(list(self.registered))
            if all(fd != other for other, _ in ready):
                ready.append((fd, self.registered[fd][0]))
                kernel.activity += 1
                kernel.say(f"fd {fd}", "spurious readiness")
        if kernel.dice.bsd:
            ready = [(fd, one) for fd, events in ready for one in (READ, WRITE) if events & one]
        if len(ready) > 1:
            rng.shuffle(ready)
            if kernel.dice.bsd and rng.random() < 0.5:
                # The order that tempts fate: all WRITEs, on which dead sockets are closed; then
                # the listener, which has the lowest descriptor and gives their numbers away; then
                # the READs of the closed ones.
                ready.sort(key=lambda event: 0 if event[1] == WRITE else event[0])
        self._batch = [(fd, events, kernel.files[fd]) for fd, events in ready]
        return [(SimpleNamespace(data=self.registered[fd][1]), events) for fd, events in ready]

    def _tell_of_stale_events(self) -> None:
        seen: dict[int, int] = {}
        for fd, _, file in self._batch:
            seen[fd] = seen.get(fd, 0) + 1
            if seen[fd] > 1 and self._kernel.files.get(fd) is not file:
                again = ", whose number is in use again" if fd in self._kernel.files else ""
                self._kernel.say(f"fd {fd}", f"that batch had an event for a closed socket{again}")

    def _ready(self) -> list[tuple[int, int]]:
        files = self._kernel.files
        return [
            (fd, events)
            for fd, (interest, _) in self.registered.items()
            if (events := files[fd].ready() & interest)
        ]

    def _sleep(self, timeout: float | None) -> None:
        kernel = self._kernel
        kernel.activity += 1
        end = float("inf") if timeout is None else kernel.now + timeout
        if kernel.chance(kernel.dice.early):
            end = min(end, kernel.now + kernel.rng.random())
        elif timeout is not None:
            end += kernel.rng.random() * kernel.dice.late
        while (event := kernel.next_event()) <= end:
            if event == float("inf"):
                if self._last_look:
                    raise Failure("the loop goes to sleep for ever, and nothing will wake it")
                self._last_look = True  # the world may have come to its end in this very sleep
                return
            kernel.now = max(kernel.now, event)
            kernel.run_events()
            if self._ready():
                return
            kernel.system_call()  # a signal ends the sleep
            if self._ready():
                return
        kernel.now = max(kernel.now, end)

    def _look_for_spinning(self, timeout: float | None) -> None:
        """A turn that moved nothing is followed by sleep, and soon."""
        kernel = self._kernel
        self._idle_turns = self._idle_turns + 1 if kernel.activity == self._activity else 0
        self._activity = kernel.activity
        if self._idle_turns > IDLE_TURNS:
            shown = ", ".join(f"{fd}: {events}" for fd, events, _ in self._batch) or "nothing"
            raise Failure(f"the loop spins: timeout {timeout}, ready descriptors {shown}")

    def _open_descriptor(self, fileobj: Any) -> int:
        fd: int = fileobj.fileno()
        if self._kernel.files.get(fd) is not fileobj:
            raise Failure(f"a selector is asked for {fd}, which is closed")
        return fd


def error(name: str) -> OSError:
    """The `OSError`, of the subclass that Python has for it, of one errno by name."""
    number: int = getattr(errno, name)
    return OSError(number, os.strerror(number))
