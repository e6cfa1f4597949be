"""The methods that the microscope watches, first part: those of the loop and its parts.

A tap stands between a method and its callers. It calls the method, and tells the trace. The taps of
connections are in `taps.py`, those of messages in `talks.py`.
"""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kv.net.reactor import Reactor, Registration
from kv.net.stream import Stream
from kv.net.timers import Timer
from kv.net.turns import Turns
from kv.protocol.recent import Recent
from kv.watch.events import Figures
from kv.watch.figures import INTEREST, duration, named, why

if TYPE_CHECKING:
    from kv.watch.trace import Trace

Tap = Callable[..., object]

#: Classes that register descriptors other than connections, and a name for each.
MAKERS = {"Listener": "listener", "Reactor": "signals", "World": "signals", "Input": "stdin"}
MAKERS |= {"Output": "stdout", "Connector": "connector"}
#: The name of a connection that is older than the trace.
OTHER = "another"
#: The parts of a turn, after the sleep.
PARTS = {
    "ready": "calls the callbacks of ready descriptors",
    "timers": "runs the timers that are due",
    "deferred": "runs the calls that were deferred before this turn",
}


class LoopTaps:
    """The taps between the methods and their callers, while a trace is on. Knows all names."""

    def __init__(self, trace: "Trace", selectors: tuple[type, ...]) -> None:
        self._trace, self._selectors = trace, selectors
        self._turn, self._part = 0, ""
        self._woken, self._asleep = 0.0, False
        self._queue: list[str] = []  # the connections that wait for their turn
        self.names: dict[object, str] = {}  # of sockets, streams and registrations: #1, #2, …
        self.registrations: dict[str, Registration] = {}
        self.known: dict[str, Recent[bytes, str]] = {}  # the messages that lines of whom were
        self.connections = 0  # how many there have been
        self.who = "loop"  # the connection that the thread works for now

    def all(self) -> Iterator[tuple[type, str, Tap]]:
        """Each method, and the tap for it."""
        yield from ((kind, "select", self._select) for kind in self._selectors)
        yield from (
            (Reactor, "register", self._register),
            (Registration, "set", self._set),
            (Reactor, "call_soon", self._call_soon),
            (Reactor, "call_later", self._call_later),
            (Timer, "postpone", self._postpone),
            (Timer, "cancel", self._cancel),
            (Turns, "wait", self._wait),
            (Stream, "take_turn", self._take_turn),
        )

    @property
    def latest(self) -> str:
        """The connection that was made last."""
        return f"#{self.connections}"

    def name(self, thing: object) -> str:
        """The name of the connection that a socket, stream, registration or owner belongs to."""
        stream = getattr(thing, "stream", None) or getattr(thing, "_stream", None)
        return self.names.get(thing) or self.names.get(stream, "")

    def forget(self, who: str) -> None:
        """The connection is gone: a trace may be on for long, and many may come."""
        for thing in [thing for thing, name in self.names.items() if name == who]:
            del self.names[thing]
        self.registrations.pop(who, None)
        self.known.pop(who, None)

    def _select(self, call: Any, selector: Any, timeout: float | None = None) -> object:
        """A turn has ended, and the next one begins with a sleep."""
        if self._asleep:  # one selector within another
            return call(selector, timeout)
        self._asleep, trace, self.who = True, self._trace, "loop"
        if self._part:
            trace.tell("loop", "turn", "is over", self._woken, part="sleeping")
        trace.settle()
        if timeout != 0:
            trace.flush()
        start, ready = trace.now(), []
        try:
            ready = call(selector, timeout)
        finally:
            woken = [f"{self.name(key.data) or OTHER} {INTEREST[events]}" for key, events in ready]
            if timeout == 0:
                text = "only looks, as calls are deferred"
            else:
                most = "until somebody comes" if timeout is None else duration(1e6 * timeout)
                text = most if timeout is None else f"at most {most}"
            if self._part or not self._turn:
                self._turn += 1
            self._part = ""
            now: Figures = {"turn": self._turn, "part": "sleeping", "woken": woken}
            now |= {"queue": list(self._queue), "most": None if timeout is None else 1e6 * timeout}
            trace.slept(f"{text}; ready: {', '.join(woken) or 'nobody'}", start, now)
            self._woken, self._asleep = trace.now(), False
        return ready

    def _in_part(self, part: str, who: str, callback: Tap) -> Tap:
        """The callback, wrapped to tell in which part of a turn it runs, and for whom."""

        @functools.wraps(callback)
        def called(*args: Any) -> object:
            if self._part != part:
                self._part = part
                self._trace.tell("loop", part, PARTS[part], part=part)
            self.who = who
            try:
                return callback(*args)
            finally:
                self._trace.settle()

        return called

    def _register(self, call: Any, reactor: Any, fileobj: Any, callback: Any) -> Registration:
        who = self.name(fileobj) or MAKERS.get(callback.__qualname__.partition(".")[0], "loop")
        registration: Registration = call(reactor, fileobj, self._in_part("ready", who, callback))
        self.names[registration], self.registrations[who] = who, registration
        return registration

    def _set(self, call: Any, registration: Registration, interest: int) -> None:
        before, who = registration.interest, self.name(registration) or OTHER
        self._trace.begin(who)
        call(registration, interest)
        if interest != before:
            look = self._trace.looks.get(who)
            reason = f": {'; '.join(why(interest, look.figures()))}" if look else ""
            self._trace.tell(who, "asks for", INTEREST[interest] + reason)

    def _call_soon(self, call: Any, reactor: Any, callback: Any) -> None:
        who = self.name(getattr(callback, "__self__", None)) or "loop"
        call(reactor, self._in_part("deferred", who, callback))

    def _call_later(self, call: Any, reactor: Any, delay: float, callback: Any) -> Timer:
        owner = getattr(callback, "__self__", None)
        who = self.name(owner) or "loop"
        look = self._trace.looks.get(who)
        what = look.due() if look and owner is look.stream else named(callback)

        @functools.wraps(callback)
        def due() -> None:
            self._trace.tell(who, "timer", f"{what}: it is time")
            callback()

        timer: Timer = call(reactor, delay, self._in_part("timers", who, due))
        self._trace.timers[timer] = who, what, round(self._trace.now() + 1e6 * delay, 1)
        self._trace.tell(who, "timer", f"{what} in {delay:g} s")
        return timer

    def _postpone(self, call: Any, timer: Timer, delay: float) -> None:
        call(timer, delay)
        if timer in self._trace.timers:
            who, what, due = self._trace.timers[timer]
            due = max(due, round(self._trace.now() + 1e6 * delay, 1))
            self._trace.timers[timer] = who, what, due
            self._trace.touched[who] = None

    def _cancel(self, call: Any, timer: Timer) -> None:
        call(timer)
        self._trace.timers.pop(timer, None)

    def _wait(self, call: Any, turns: Turns, stream: Stream) -> None:
        call(turns, stream)
        self._queue.append(self.name(stream))
        text = f"{self._queue[-1]} waits for its turn; before it: {len(self._queue) - 1}"
        self._trace.tell("loop", "queue", text, queue=list(self._queue))

    def _take_turn(self, call: Any, stream: Stream) -> None:
        self.who = self.name(stream)
        if self.who in self._queue:
            self._queue.remove(self.who)
        self._trace.tell("loop", "turn of", self.who, queue=list(self._queue))
        call(stream)
        self._trace.settle()
