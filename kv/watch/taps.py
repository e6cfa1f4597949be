"""Where the microscope is put on: the methods of the loop, of sockets and of streams.

A tap stands between a method and its callers: it calls the one for the other, and tells the trace.
Every method is public, so there are few: what goes on inside of a stream is seen from the figures
that it changes. The taps of messages are in `talks.py`.
"""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kv.connection import Connection
from kv.link import Link
from kv.net.address import shown
from kv.net.listener import Listener
from kv.net.reactor import Reactor, Registration
from kv.net.stream import Stream
from kv.net.timers import Timer
from kv.net.turns import Turns
from kv.watch.events import Figures
from kv.watch.figures import INTEREST, Look, duration, named, why

if TYPE_CHECKING:
    from kv.watch.trace import Trace

Tap = Callable[..., object]


class Taps:
    """What stands between the methods and their callers while a trace is on."""

    def __init__(self, trace: "Trace", sockets: tuple[type, ...], kinds: tuple[type, ...]) -> None:
        self._trace = trace
        self._sockets, self._selectors = sockets, kinds
        self._names: dict[object, str] = {}  # of sockets, streams and registrations: #1, #2, …
        self._registrations: dict[str, Registration] = {}
        self._count = 0
        self._turn, self._part = 0, ""
        self._woken, self._asleep = 0.0, False
        self._ready: list[str] = []
        self._queue: list[str] = []  # those who wait for their turn
        self.who = "loop"  # on whose behalf the thread works now

    def all(self) -> Iterator[tuple[type, str, Tap]]:
        """Each method, and the tap for it."""
        yield from ((kind, "select", self._select) for kind in self._selectors)
        for kind in self._sockets:
            yield from ((kind, "recv", self._recv), (kind, "send", self._send))
            yield from ((kind, "shutdown", self._shutdown), (kind, "close", self._close))
        yield from (
            (Reactor, "register", self._register),
            (Registration, "set", self._set),
            (Reactor, "call_soon", self._call_soon),
            (Reactor, "call_later", self._call_later),
            (Timer, "postpone", self._postpone),
            (Timer, "cancel", self._cancel),
            (Listener, "__init__", self._listener),
            (Listener, "pause", self._says("pause", "at the limit: the kernel queues")),
            (Listener, "resume", self._says("resume", "there is room again")),
            (Turns, "wait", self._wait),
            (Stream, "__init__", self._stream),
            (Stream, "take_turn", self._take_turn),
            (Stream, "close", self._says("close", "politely: what is owed is sent first")),
            (Stream, "half_close", self._says("half-close", "FIN after the last octet")),
            (Stream, "finish", self._says("finish", "what has arrived is answered first")),
            (Stream, "abort", self._says("abort", "with RST")),
            (Stream, "leave", self._says("leave", "what the kernel has is still delivered")),
            (Connection, "held_up", self._says("held up", "its owner is told")),
            (Connection, "drained", self._says("drained", "its owner is told")),
            (
                Connection,
                "end_received",
                self._says("end", "nothing more will come, as its owner is told"),
            ),
            (Connection, "closed", self._gone),
            (Link, "closed", self._gone),
        )

    @property
    def latest(self) -> str:
        """The connection that was made last."""
        return f"#{self._count}"

    def name(self, thing: object) -> str:
        """Whose socket, stream or registration that is, or whose stream's owner."""
        stream = getattr(thing, "stream", None) or getattr(thing, "_stream", None)
        return self._names.get(thing) or self._names.get(stream, "")

    # The loop

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
        """The callback, which will run in this part of a turn, on somebody's behalf."""

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
        self._names[registration], self._registrations[who] = who, registration
        return registration

    def _set(self, call: Any, registration: Registration, interest: int) -> None:
        before, who = registration.interest, self.name(registration) or OTHER
        self._trace.begin(who)
        call(registration, interest)
        if interest != before:
            look = self._trace.looks.get(who)
            reason = f": {'; '.join(why(interest, look.figures()))}" if look else ""
            self._trace.tell(who, "watch", INTEREST[interest] + reason)

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
        text = f"{self._queue[-1]} waits for its turn, behind {len(self._queue) - 1} others"
        self._trace.tell("loop", "queue", text, queue=list(self._queue))

    def _take_turn(self, call: Any, stream: Stream) -> None:
        self.who = self.name(stream)
        if self.who in self._queue:
            self._queue.remove(self.who)
        self._trace.tell("loop", "turn of", self.who, queue=list(self._queue))
        call(stream)
        self._trace.settle()

    # Sockets

    def _recv(self, call: Any, sock: Any, size: int, *flags: int) -> bytes:
        if not self.name(sock):  # the one that ends the loop's sleep, or none of this program's
            return bytes(call(sock, size, *flags))
        with self._trace.timed(self.name(sock), "recv", "") as text:
            data: bytes = call(sock, size, *flags)
            text.append(f"{len(data)} of {size} octets" if data else "the end: their FIN")
            return data

    def _send(self, call: Any, sock: Any, data: bytes, *flags: int) -> int:
        if not self.name(sock):
            return int(call(sock, data, *flags))
        with self._trace.timed(self.name(sock), "send", "") as text:
            sent: int = call(sock, data, *flags)
            text.append(f"{sent} of {len(data)} octets")
            return sent

    def _shutdown(self, call: Any, sock: Any, how: int) -> None:
        self._trace.begin(self.name(sock))
        call(sock, how)
        if who := self.name(sock):
            self._trace.tell(who, "shutdown", "all is sent: FIN")

    def _close(self, call: Any, sock: Any) -> None:
        who, number = self.name(sock), sock.fileno()
        self._trace.begin()
        call(sock)
        if self._trace.looks.pop(who, None) is not None:
            del self._names[sock]
            self._trace.tell(who, "close", f"descriptor {number} is free again", **CLOSED)

    def _listener(self, call: Any, listener: Any, reactor: Any, sock: Any, then: Any) -> None:
        self._names[sock] = self._names[listener] = "listener"
        call(listener, reactor, sock, then)

    def _says(self, verb: str, text: str) -> Tap:
        """Something that needs no more than saying so, before it is done."""

        def tap(call: Any, thing: Any, *args: object) -> object:
            if self.name(thing) in self._trace.looks or isinstance(thing, Listener):
                self._trace.tell(self.name(thing), verb, text)
            return call(thing, *args)

        return tap

    def _stream(self, call: Any, stream: Stream, reactor: Any, sock: Any, *rest: Any) -> None:
        self._count += 1
        who = self.who = self._names[sock] = self._names[stream] = f"#{self._count}"
        try:
            peer = f" with {shown(sock.getpeername())}"
        except (AttributeError, OSError):  # it may be gone already
            peer = ""
        self._trace.tell(who, "accept", f"descriptor {sock.fileno()}: a connection{peer}")
        self._trace.begin()
        call(stream, reactor, sock, *rest)
        limits, kernel = rest[1], functools.partial(self._trace.kernel, sock)
        look = self._trace.looks[who] = Look(stream, limits, kernel)
        look.registration = self._registrations[who]

    def _gone(
        self, call: Any, owner: Any, error: Exception | None, *rest: Any, **ours: Any
    ) -> None:
        who = self.name(owner)
        call(owner, error, *rest, **ours)
        for thing in [thing for thing, name in self._names.items() if name == who]:
            del self._names[thing]
        self._trace.tell(
            who or "loop", "gone", f"with an error: {error}" if error else "without an error"
        )


#: Those who register descriptors that are no connection, and what they are called.
MAKERS = {"Listener": "listener", "Reactor": "signals", "World": "signals", "Input": "stdin"}
MAKERS |= {"Output": "stdout", "Connector": "connector"}
#: The figures of a connection whose socket is closed.
CLOSED: dict[str, Any] = {
    "closed": True,
    "in": "ENDED",
    "out": "BROKEN",
    "holds": "",
    "interest": "nothing",
    "why": [],
}
CLOSED |= {"line": 0, "lines": 0, "unsent": 0, "timers": {}}
#: Who was there before the trace.
OTHER = "another"
#: The parts of a turn, after the sleep.
PARTS = {
    "ready": "calls back whoever is ready",
    "timers": "runs the timers that are due",
    "deferred": "runs the calls that were deferred before this turn",
}
