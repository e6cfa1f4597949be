"""The methods that the microscope watches, second part: sockets and connections. See `loop.py`.

All these methods are public, and they are few. What happens inside a stream is seen from the
figures that change.
"""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kv.connection import Connection
from kv.link import Link
from kv.net.address import shown
from kv.net.listener import Listener
from kv.net.stream import Stream
from kv.watch.figures import Look
from kv.watch.loop import LoopTaps, Tap

if TYPE_CHECKING:
    from kv.watch.trace import Trace

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


class Taps:
    """The taps between the methods and their callers, while a trace is on."""

    def __init__(self, trace: "Trace", loop: LoopTaps, sockets: tuple[type, ...]) -> None:
        self._trace, self._loop, self._sockets = trace, loop, sockets

    def all(self) -> Iterator[tuple[type, str, Tap]]:
        """Each method, and the tap for it."""
        for kind in self._sockets:
            yield from ((kind, "recv", self._recv), (kind, "send", self._send))
            yield from ((kind, "shutdown", self._shutdown), (kind, "close", self._close))
        yield from (
            (Listener, "__init__", self._listener),
            (Listener, "pause", self._says("pause", "at the limit: the kernel queues")),
            (Listener, "resume", self._says("resume", "there is room again")),
            (Stream, "__init__", self._stream),
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

    def _recv(self, call: Any, sock: Any, size: int, *flags: int) -> bytes:
        if not self._loop.name(sock):  # the bell of the loop, or a socket of another program
            return bytes(call(sock, size, *flags))
        with self._trace.timed(self._loop.name(sock), "recv", "") as text:
            data: bytes = call(sock, size, *flags)
            text.append(f"{len(data)} of {size} octets" if data else "the end: their FIN")
            return data

    def _send(self, call: Any, sock: Any, data: bytes, *flags: int) -> int:
        if not self._loop.name(sock):
            return int(call(sock, data, *flags))
        with self._trace.timed(self._loop.name(sock), "send", "") as text:
            sent: int = call(sock, data, *flags)
            text.append(f"{sent} of {len(data)} octets")
            return sent

    def _shutdown(self, call: Any, sock: Any, how: int) -> None:
        self._trace.begin(self._loop.name(sock))
        call(sock, how)
        if who := self._loop.name(sock):
            self._trace.tell(who, "shutdown", "all is sent: FIN")

    def _close(self, call: Any, sock: Any) -> None:
        who, number = self._loop.name(sock), sock.fileno()
        self._trace.begin()
        call(sock)
        if who in self._trace.looks:
            self._trace.forget(who)
            del self._loop.names[sock]
            self._trace.tell(who, "close", f"descriptor {number} is free again", **CLOSED)

    def _listener(self, call: Any, listener: Any, reactor: Any, sock: Any, then: Any) -> None:
        self._loop.names[sock] = self._loop.names[listener] = "listener"
        call(listener, reactor, sock, then)

    def _says(self, verb: str, text: str) -> Tap:
        """A tap that tells a fixed text before the call."""

        def tap(call: Any, thing: Any, *args: object) -> object:
            if self._loop.name(thing) in self._trace.looks or isinstance(thing, Listener):
                self._trace.tell(self._loop.name(thing), verb, text)
            return call(thing, *args)

        return tap

    def _stream(self, call: Any, stream: Stream, reactor: Any, sock: Any, *rest: Any) -> None:
        self._loop.connections += 1
        names = self._loop.names
        who = self._loop.who = names[sock] = names[stream] = self._loop.latest
        try:
            peer = f" with {shown(sock.getpeername())}"
        except (AttributeError, OSError):  # the peer may be gone already
            peer = ""
        self._trace.tell(who, "accept", f"descriptor {sock.fileno()}: a connection{peer}")
        self._trace.begin()
        call(stream, reactor, sock, *rest)
        limits, kernel = rest[1], functools.partial(self._trace.kernel, sock)
        registration = self._loop.registrations[who]
        self._trace.looks[who] = Look(stream, registration, limits, kernel)

    def _gone(
        self, call: Any, owner: Any, error: Exception | None, *rest: Any, **ours: Any
    ) -> None:
        who = self._loop.name(owner)
        call(owner, error, *rest, **ours)
        self._loop.forget(who)
        self._trace.tell(
            who or "loop", "gone", f"with an error: {error}" if error else "without an error"
        )
