"""Shows what the reactor does, while it does it: a microscope, to be put over any of it.

For people, a line for each thing that happens; for programs, the same as events (see `events.py`),
with what has changed by then. It works by wrapping: while a trace is on, the public methods that
`taps.py` and `talks.py` list are replaced by ones that call them and tell. The modules looked at
know nothing of it, so a trace that is off costs nothing. What a connection's figures are is not
told by anybody: it is looked at after each thing that happens, and compared with what it was.

A slice is something that took time, an instant something that happened. One thread does one thing
at a time: whatever the number of connections, never do two of them have a slice at one moment.
"""

import functools
import logging
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Self, TextIO

import kv
from kv.net.log import LogHandler
from kv.net.reactor import Timer
from kv.net.stdio import escaped
from kv.watch.events import Event, Figures, Writer
from kv.watch.figures import Look, duration, sentences
from kv.watch.talks import Talks
from kv.watch.taps import Taps

log = logging.getLogger("kv")
lines = logging.getLogger("kv.watch.trace")

#: Columns of a line for people, and those before its text.
COLUMNS, INDENT = 100, 31
#: SGR parameters (ECMA-48, 8.3.117), one a connection, in turn: colours to be read on any ground.
COLOURS = (36, 33, 35, 32, 34, 31)
#: The selectors of the standard library, whichever is in use.
SELECTORS = {
    kind
    for kind in vars(selectors).values()
    if isinstance(kind, type) and "select" in vars(kind) and kind is not selectors.BaseSelector
}
ROOT = Path(kv.__file__).resolve().parents[1]
HERE = f"{Path(__file__).resolve().parent}/"


class Trace:
    """A trace, on while in its `with`: lines on standard error, events in `file`, or both.

    The lines go the way of the log: what standard error cannot take at once is dropped, and
    counted. `file` is buffered, and closed at the end. `colour` gives each connection its own.

    For worlds that are not this one: `clock` gives seconds, `sockets` and `selectors` are the
    classes that stand for those, `kernel` gives what it knows of a socket as figures, and `code`
    are the folders whose lines are named.
    """

    def __init__(
        self,
        lines: bool,
        file: TextIO | None,
        colour: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        sockets: Iterable[type] = (socket.socket,),
        selectors: Iterable[type] = SELECTORS,
        kernel: Callable[[Any], Figures] = lambda _: {},
        code: tuple[str, ...] = ("kv",),
    ) -> None:
        self._lines = lines
        self._writer = Writer(file, failed) if file is not None else None
        self._colour = colour
        self._clock = clock
        self._start = clock()
        self.kernel = kernel
        self._code = tuple(f"{ROOT / folder}/" for folder in code)
        self._undo = ExitStack()
        self._taps = Taps(self, tuple(sockets), tuple(selectors))
        self._seen: dict[str, Figures] = {}  # the figures as they were last told
        self._last: Event | None = None  # is told when it is over
        self._sleep: Event | None = None  # the last one, until something else is told
        self._said = ("", "", "")  # the last line, and how often it was said again
        self._repeated = 0
        self.looks: dict[str, Look] = {}  # connections that are open
        self.touched: dict[str, None] = {}  # those for whom something was done in this callback
        self.timers: dict[Timer, tuple[str, str, float]] = {}  # whose, what for, and when

    def __enter__(self) -> Self:
        if self._lines:
            handler = LogHandler(2)
            handler.setFormatter(logging.Formatter("%(message)s"))  # `_line` escapes, and colours
            lines.addHandler(handler)
            self._undo.callback(lines.removeHandler, handler)
            lines.propagate = False
            lines.setLevel(logging.INFO)
        if self._writer is not None:
            self._undo.callback(self._writer.close)
        for owner, name, tap in (*self._taps.all(), *Talks(self, self._taps).all()):
            self._wrap(owner, name, tap)
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        self._undo.close()

    def _wrap(self, owner: type, name: str, tap: Callable[..., object]) -> None:
        """Replaces a method by `tap`, which gets the original and what it was called with."""
        original: Callable[..., object] = getattr(owner, name)
        own = vars(owner).get(name)  # None if it is inherited

        @functools.wraps(original)
        def wrapped(*args: Any, **named: Any) -> object:
            return tap(original, *args, **named)

        setattr(owner, name, wrapped)
        self._undo.callback(*((setattr, owner, name, own) if own else (delattr, owner, name)))

    def name(self, sock: object) -> str:
        """Whose socket that is: a connection, or nobody's."""
        return self._taps.name(sock)

    # Telling

    def now(self) -> float:
        """Microseconds since the trace began."""
        return 1e6 * (self._clock() - self._start)

    def tell(self, who: str, verb: str, text: str, start: float | None = None, **now: Any) -> None:
        """Something that happened now or, with `start`, took from then until now.

        It is written when the next thing begins: so what it changes is part of it.
        """
        self.begin(who if start is None else "")
        end = self.now()
        took = None if start is None else end - start
        self._last = Event(who, verb, text, end, took, self._place(), now)

    def begin(self, who: str = "") -> None:
        """Something begins, for `who`: what was told last is over."""
        last, self._last = self._last, None
        if last is not None:
            self.touched[last.track] = None
            self._put_with_changes(last, self._place())
        if who in self._seen and (last is None or last.track != who):
            now = self.looks[who].figures() if who in self.looks else {}
            self._put_sentences(Event(who, "", "", self.now(), None, self._place(), {}), now)

    def settle(self) -> None:
        """A callback is over: tells what it has changed, and not told."""
        last, self._last = self._last, None
        touched, self.touched = self.touched, {}
        if last is not None:
            self._put_with_changes(last, last.place)
            touched.pop(last.track, None)
        for who in touched:
            self._put_with_changes(Event(who, "changes", "", self.now(), None, "", {}), "")

    def slept(self, text: str, start: float, now: Figures) -> None:
        """A sleep. One that finds nobody is one with the next, unless something is done then."""
        if self._sleep is not None and not self._sleep.now["woken"]:
            start = self._sleep.end - (self._sleep.lasted or 0)
        end, place = self.now(), self._place()
        self._sleep = Event("loop", "sleep", text, end, end - start, place, now)

    @contextmanager
    def timed(self, who: str, verb: str, text: str) -> Iterator[list[str]]:
        """A slice; what is put into the list that it gives is its text instead."""
        self.begin(who)
        start, better = self.now(), [text]
        try:
            yield better
        except BlockingIOError:
            better.append("would block")
            raise
        except Exception as error:
            better.append(str(error))
            raise
        finally:
            self.tell(who, verb, better[-1], start)

    def flush(self) -> None:
        """Nothing will be told for a while: what was told is to be in the file."""
        if self._writer is not None:
            self._writer.flush()

    def _put_with_changes(self, event: Event, place: str) -> None:
        """Tells an event, with what has changed; some changes, made at `place`, by themselves."""
        who, look = event.track, self.looks.get(event.track)
        if look is None:
            if event.text or event.now:
                self._put(event)
            return
        before, now = self._seen.get(who, {}), look.figures()
        now["timers"] = {what: due for whose, what, due in self.timers.values() if whose == who}
        apart = {name for _, _, said in sentences(before, now) for name in said} if before else ()
        changed = {
            name: figure
            for name, figure in now.items()
            if before.get(name) != figure and name not in apart
        }
        if event.text or changed:
            self._put(replace(event, now=changed | event.now))
        self._put_sentences(replace(event, lasted=None, place=place), now)
        self._seen[who] = now
        if before.get("name", "") != now.get("name", "") and self._writer is not None:
            self._writer.rename(who, f"{who} {now['name']}")

    def _put_sentences(self, event: Event, now: Figures) -> None:
        """Tells the changes that are worth a sentence, in events like this one."""
        before = self._seen.get(event.track)
        for verb, text, figures in sentences(before, now) if before and now else ():
            self._put(replace(event, verb=verb, text=text, now=figures))
            self._seen[event.track] = self._seen[event.track] | figures

    def _put(self, event: Event) -> None:
        if self._sleep is not None:
            sleep, self._sleep = self._sleep, None
            sleep.now["slept"] = round(sleep.lasted or 0, 1)
            self._put(sleep)
        if self._writer is not None:
            self._writer.write(event)
        if not self._lines or (event.track == "loop" and event.verb != "sleep"):
            return
        text = event.text
        if event.verb == "sleep":
            text = f"{duration(event.lasted or 0)}, {text}" if event.now["most"] else text
        said = (event.track, event.verb, text)
        if said == self._said:
            self._repeated += 1
            return
        if self._repeated:
            again = f"(the same {self._repeated} times more)"
            self._line(event.end, *self._said[:2], again)
        self._said, self._repeated = said, 0
        self._line(event.end, *said)

    def _line(self, now: float, who: str, verb: str, text: str) -> None:
        text = escaped(text)
        if len(text) > COLUMNS - INDENT:
            text = text[: COLUMNS - INDENT - 1] + "…"
        line = f"{now / 1e6:10.6f}  {who:8}  {verb:8} {text}".rstrip()
        if self._colour and who[0] == "#":
            line = f"\x1b[{COLOURS[int(who[1:]) % len(COLOURS)]}m{line}\x1b[m"
        lines.info("%s", line)

    def _call_later(self, call: Any, reactor: Reactor, delay: float, callback: Any) -> Timer:
        owner = getattr(callback, "__self__", None)
        stream = getattr(owner, "stream", None) or getattr(owner, "_stream", None) or owner
        who = self._names.get(stream, "loop")
        what = callback.__qualname__

        def due() -> None:
            self._tell(who, "timer", f"{what} is due")
            callback()

        self._tell(who, "timer", f"{what} in {delay:g} s")
        timer: Timer = call(reactor, delay, due)
        return timer

    # Sockets

    def _recv(self, call: Any, sock: socket.socket, size: int) -> bytes:
        who = self._names.get(sock)
        if who is None:  # the socket that signals wake the loop with
            return bytes(call(sock, size))
        with self._timed(who, "recv", "") as text:
            data: bytes = call(sock, size)
            text.append(f"{len(data)} of {size} octets" if data else "the end of their sending")
            return data

    def _send(self, call: Any, sock: socket.socket, data: bytes, *flags: int) -> int:
        with self._timed(self._names.get(sock, ""), "send", "") as text:
            sent: int = call(sock, data, *flags)
            text.append(f"{sent} of {len(data)} octets")
            return sent

    def _listener(self, call: Any, listener: Listener, reactor: Any, sock: Any, then: Any) -> None:
        self._names[sock] = self._names[listener] = "listener"
        call(listener, reactor, sock, then)

    def _says(self, verb: str, text: str, call: Any, thing: Any, *args: object) -> None:
        """Something that needs no more than saying so, before it is done."""
        self._tell(self._of(thing), verb, text or str(args[0]))
        call(thing, *args)

    def _stream(self, call: Any, stream: Stream, reactor: Any, sock: Any, *rest: Any) -> None:
        self._streams += 1
        who = self._who = self._names[sock] = self._names[stream] = f"#{self._streams}"
        with suppress(OSError):  # the peer may be gone already
            peer = shown(sock.getpeername())
            self._tell(who, "open", f"descriptor {sock.fileno()}: a connection with {peer}")
        call(stream, reactor, sock, *rest)

    def _on_behalf(self, call: Any, stream: Stream, *events: int) -> None:
        self._who = self._of(stream)
        call(stream, *events)

    def _account(self, call: Any, stream: Stream) -> None:
        before = Hold.PEER in stream.holds
        call(stream)
        if before != (Hold.PEER in stream.holds):
            verb, then = ("resume", "reads again") if before else ("pause", "reads no more")
            text = f"{stream.unsent} octets of replies wait: {then}"
            self._tell(self._of(stream), verb, text)

    def _close(self, call: Any, stream: Stream) -> None:
        if stream.incoming is Incoming.OPEN:
            self._tell(self._of(stream), "close", f"{stream.unsent} octets are owed")
        call(stream)

    def _release(self, call: Any, stream: Stream, error: Exception | None) -> None:
        who, number = self._of(stream), stream._sock.fileno()
        call(stream, error)
        for thing in (stream, stream._sock):
            self._names.pop(thing, None)
        reason = f"{error}; " if error else ""
        self._tell(who, "closed", f"{reason}descriptor {number} is free again")

    # TLS

    def _records(self, call: Any, tls: Tls, octets: bytes) -> bytes:
        what = f"{'the handshake, ' if tls.shaking else ''}{len(octets)} octets"
        with self._timed(self._who, "tls", what) as text:
            plaintext: bytes = call(tls, octets)
            text.append(f"{what}: {len(plaintext)} of plaintext")
            return plaintext

    def _record(self, call: Any, tls: Tls, plaintext: bytes) -> bytes:
        what = f"{len(plaintext)} octets of plaintext"
        with self._timed(self._who, "tls", what) as text:
            octets: bytes = call(tls, plaintext)
            text.append(f"{what}: {f'{len(octets)} octets' if octets else 'they wait'}")
            return octets

    def _tls_state(self, call: Any, tls: Tls, event: TlsEvent) -> None:
        before = tls.state
        call(tls, event)
        why = f": {tls.error}" if tls.error else ""
        self._tell(self._who, "tls", f"{before.value} -> {tls.state.value}{why}")

    # Messages

    def _open(self, call: Any, key: PublicKey, line: bytes) -> bytes:
        with self._timed(self._who, "open", f"a line of {len(line)} octets, with their public key"):
            return bytes(call(key, line))

    def _seal(self, call: Any, key: PrivateKey, text: bytes) -> bytes:
        with self._timed(self._who, "seal", f"{len(text)} octets, with the private key"):
            return bytes(call(key, text))

    def _execute(self, call: Any, talk: ServerConversation, message: Message, text: str) -> Reply:
        self._message = f"{message} {shortened(text)}".strip()
        reply: Reply = call(talk, message, text)
        self._message += f": {reply}"
        return reply

    def _receive(self, call: Any, talk: ServerConversation, line: bytes) -> bytes:
        before, self._message = talk.state, ""
        with self._timed(self._who, "message", "") as text:
            reply: bytes = call(talk, line)
            text.append(self._message.replace(": ", " -> ", 1))
        if talk.state is not before:
            self._tell(self._who, "state", f"{before} -> {talk.state}")
            self._rename(self._who, f"{self._who} {talk.client_id}".strip())
        return reply

    def _command(self, call: Any, talk: ClientConversation, command: Command) -> list[bytes]:
        self._who = f"#{self._streams}"  # a client has one; a command may come from its input
        texts = " and ".join(shortened(text) for text in command.texts)
        with self._timed(self._who, "command", texts):
            return list(call(talk, command))  # it is lazy, and the sealing belongs here

    def _reply(
        self, call: Any, talk: ClientConversation, line: bytes
    ) -> tuple[Command, str] | None:
        with self._timed(self._who, "reply", "the server's key line") as text:
            answered: tuple[Command, str] | None = call(talk, line)
            if answered is not None:
                text.append(f"{shortened(answered[0].texts[0])} -> {shortened(answered[1])}")
            return answered

    def _fill(self, call: Any, source: Input) -> None:
        with self._timed("stdin", "read", "") as text:
            before = len(source._buffer)
            call(source)
            text.append("the end" if source.ended else f"{len(source._buffer) - before} octets")

    def _write(self, call: Any, output: Output, data: bytes) -> None:
        with self._timed("stdout", "write", f"{len(data)} octets"):
            call(output, data)


def failed(error: OSError) -> None:
    """The trace's file takes no more: said once, and the program goes on."""
    log.warning("the trace file ends here: %s", error.strerror)
