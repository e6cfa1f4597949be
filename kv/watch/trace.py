"""Shows what the reactor does, while it does it: a microscope, to be put over any of it.

For people, a line for each thing that happens; for Perfetto and chrome://tracing, the same as trace
events, which `timeline.py` draws, too. It works by wrapping: while a trace is on, the methods that
`Trace.__enter__` lists are replaced by ones that call them and tell. The modules that it looks at
know nothing of it, so a trace that is off costs nothing.

A slice is something that took time, an instant something that happened. One thread does one thing
at a time: whatever the number of connections, never do two of them have a slice at one moment.
"""

import json
import logging
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial, wraps
from typing import Any, Self, TextIO

from kv.net.address import shown
from kv.net.directions import Hold, Incoming
from kv.net.listener import Listener
from kv.net.log import LogHandler
from kv.net.reactor import READ, WRITE, Reactor, Registration, Timer
from kv.net.stdio import Input, Output, escaped
from kv.net.stream import Stream
from kv.net.tls import Event as TlsEvent
from kv.net.tls import Tls
from kv.protocol.cipher import PrivateKey, PublicKey
from kv.protocol.conversation import ClientConversation, ServerConversation
from kv.protocol.messages import Command, Message, Reply

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
INTEREST = {0: "nothing", READ: "read", WRITE: "write", READ | WRITE: "read, write"}


class Trace:
    """A trace, on while in its `with`: lines on standard error, events in `file`, or both.

    The lines go the way of the log: what standard error cannot take at once is dropped, and
    counted. `file` is buffered, and closed at the end. `colour` gives each connection its own.
    """

    def __init__(self, lines: bool, file: TextIO | None, colour: bool = False) -> None:
        self._lines = lines
        self._file = file
        self._colour = colour
        self._undo = ExitStack()
        self._start = self._woken = time.perf_counter()
        self._names: dict[object, str] = {}  # of sockets and streams: #1, #2, …
        self._tracks: dict[str, int] = {}  # name -> thread id in the events
        self._streams = 0
        self._who = "loop"  # on whose behalf the thread works now
        self._message = ""  # what it is working on
        self._said = ("", "", "")  # the last line, and how often it was said again
        self._repeated = 0

    def __enter__(self) -> Self:
        if self._lines:
            handler = LogHandler(2)
            handler.setFormatter(logging.Formatter("%(message)s"))  # `_line` escapes, and colours
            lines.addHandler(handler)
            self._undo.callback(lines.removeHandler, handler)
            lines.propagate = False
            lines.setLevel(logging.INFO)
        if self._file is not None:
            self._undo.callback(close, self._file)
            self._file.write("[\n")  # which nobody has to close: after a crash it is still valid
        wrapped: tuple[tuple[type, str, Callable[..., object]], ...] = (
            *((kind, "select", self._select) for kind in SELECTORS),
            (Registration, "set", self._set),
            (Reactor, "call_later", self._call_later),
            (socket.socket, "recv", self._recv),
            (socket.socket, "send", self._send),
            (Listener, "__init__", self._listener),
            (Listener, "pause", partial(self._says, "pause", "at the limit: the kernel queues")),
            (Listener, "resume", partial(self._says, "resume", "there is room again")),
            (Listener, "_back_off", partial(self._says, "pause", "")),
            (Stream, "__init__", self._stream),
            (Stream, "_ready", self._on_behalf),
            (Stream, "take_turn", self._on_behalf),
            (Stream, "_account", self._account),
            (Stream, "_await_turn", partial(self._says, "later", "goes on in its turn")),
            (Stream, "close", self._close),
            (Stream, "_shut_down", partial(self._says, "shutdown", "all is sent: our side ends")),
            (Stream, "_release", self._release),
            (Tls, "received", self._records),
            (Tls, "write", self._record),
            (Tls, "_enter", self._tls_state),
            (PublicKey, "open", self._open),
            (PrivateKey, "seal", self._seal),
            (ServerConversation, "receive", self._receive),
            (ServerConversation, "_execute", self._execute),
            (ClientConversation, "lines", self._command),
            (ClientConversation, "receive", self._reply),
            (Input, "_fill", self._fill),
            (Output, "write", self._write),
        )
        for owner, name, wrapper in wrapped:
            self._wrap(owner, name, wrapper)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _wrap(self, owner: type, name: str, wrapper: Callable[..., object]) -> None:
        """Replaces a method by `wrapper`, which gets the original and what it was called with."""
        original: Callable[..., object] = getattr(owner, name)
        own = vars(owner).get(name)  # None if it is inherited

        @wraps(original)
        def wrapped(*args: Any) -> object:
            return wrapper(original, *args)

        setattr(owner, name, wrapped)
        self._undo.callback(*((setattr, owner, name, own) if own else (delattr, owner, name)))

    # Telling

    def _tell(self, who: str, verb: str, text: str, start: float | None = None) -> None:
        """Something that happened now or, with `start`, took from then until now."""
        now = time.perf_counter()
        self._event(who, verb, text, start, now)
        said = (who, verb, text)
        if self._lines and said == self._said:
            self._repeated += 1
        elif self._lines:
            if self._repeated:
                self._line(now, *self._said[:2], f"(the same {self._repeated} times more)")
            self._said, self._repeated = said, 0
            self._line(now, *said)

    def _line(self, now: float, who: str, verb: str, text: str) -> None:
        text = escaped(text)
        if len(text) > COLUMNS - INDENT:
            text = text[: COLUMNS - INDENT - 1] + "…"
        line = f"{now - self._start:10.6f}  {who:8}  {verb:8} {text}".rstrip()
        if self._colour and who[0] == "#":
            line = f"\x1b[{COLOURS[int(who[1:]) % len(COLOURS)]}m{line}\x1b[m"
        lines.info("%s", line)

    def _event(self, who: str, verb: str, text: str, start: float | None, end: float) -> None:
        """One of the Trace Event Format: X is a slice, i an instant, M data about a track."""
        if self._file is None:
            return
        if who not in self._tracks:
            self._tracks[who] = len(self._tracks)
            self._rename(who, who)
        event: dict[str, object] = {"name": verb, "args": {"is": text}}
        if start is None:
            self._dump("i", who, **event, ts=self._microseconds(end), s="t")
        else:
            ts = self._microseconds(start)
            self._dump("X", who, **event, ts=ts, dur=self._microseconds(end) - ts)

    def _microseconds(self, moment: float) -> float:
        return 1e6 * (moment - self._start)

    def _rename(self, who: str, name: str) -> None:
        if who in self._tracks:
            self._dump("M", who, name="thread_name", args={"name": name})

    def _dump(self, phase: str, who: str, **event: object) -> None:
        event |= {"ph": phase, "pid": 1, "tid": self._tracks[who]}
        try:
            if self._file is not None:
                self._file.write(json.dumps(event) + ",\n")
        except OSError as error:
            self._file = None
            log.warning("the trace file ends here: %s", error.strerror)

    @contextmanager
    def _timed(self, who: str, verb: str, text: str) -> Iterator[list[str]]:
        """A slice; what is put into the list that it gives is its text instead."""
        start, better = time.perf_counter(), [text]
        try:
            yield better
        except BlockingIOError:
            better.append("would block")
            raise
        except Exception as error:
            better.append(str(error))
            raise
        finally:
            self._tell(who, verb, better[-1], start)

    def _of(self, thing: object) -> str:
        """Whose it is; a call that was deferred may come when its stream is closed."""
        return self._names.get(thing, "loop")

    def _name(self, registration: Registration) -> str:
        """Who a registration is for: a stream by its number, others by what made them."""
        name = self._names.get(registration._fileobj)
        maker = registration.callback.__qualname__.partition(".")[0].lower()
        return name or ("signals" if maker == "reactor" else maker)

    # The loop

    def _select(self, select: Any, selector: Any, timeout: float | None = None) -> object:
        """A turn has ended, and the next one begins with a sleep."""
        start = time.perf_counter()
        self._who = "loop"
        self._event("loop", "turn", "", self._woken, start)
        ready = select(selector, timeout)
        slept = f"slept {duration(time.perf_counter() - start)}; " if timeout != 0 else ""
        found = ", ".join(f"{self._name(key.data)} {INTEREST[events]}" for key, events in ready)
        if found or slept:
            self._tell("loop", "wake-up", f"{slept}ready: {found or 'nobody'}", start)
        self._woken = time.perf_counter()
        return ready

    def _set(self, call: Any, registration: Registration, interest: int) -> None:
        before = registration.interest
        call(registration, interest)
        if interest != before:
            self._tell(self._name(registration), "watch", INTEREST[interest])

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


def close(file: TextIO) -> None:
    """Closes the file of events, and says what could not be written."""
    try:
        file.close()
    except OSError as error:
        log.warning("the trace file is not whole: %s", error.strerror)


def shortened(text: str) -> str:
    """Keys and values can be long, and a line is short."""
    return text if len(text) <= 30 else f"{text[:24]}… ({len(text)} characters)"


def duration(seconds: float) -> str:
    """A duration in the unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1e6:.0f} µs"
