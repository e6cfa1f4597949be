"""Shows what the reactor does while it does it: a microscope.

People get a line for each event (`printer.py`). Programs get the same events in a file (see
`events.py`), with the figures that have changed. The trace works by wrapping. While it is on, it
replaces the methods that `loop.py`, `taps.py` and `talks.py` list by functions that call them and
tell the trace. The watched modules know nothing of this, so a trace that is off costs nothing. The
trace reads a connection's figures after each event, and compares them with the last ones.

A slice is an event that took time. An instant is one that took none. One thread does one thing at a
time, so two connections never have a slice at the same moment.
"""

import functools
import logging
import math
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
from kv.net.timers import Timer
from kv.watch.events import Event, Figures, Writer
from kv.watch.figures import Look, sentences
from kv.watch.loop import LoopTaps
from kv.watch.printer import Printer
from kv.watch.talks import Talks
from kv.watch.taps import Taps

log = logging.getLogger("kv")

#: All selectors of the standard library.
SELECTORS = {
    kind
    for kind in vars(selectors).values()
    if isinstance(kind, type) and "select" in vars(kind) and kind is not selectors.BaseSelector
}
ROOT = Path(kv.__file__).resolve().parents[1]
HERE = f"{Path(__file__).resolve().parent}/"


class Trace:
    """A trace, on inside its `with`: lines on standard error, events in `file`, or both.

    `file` is buffered, and closed at the end. With `colour`, each connection has its own.

    The simulator gives its own world: `clock` returns seconds, and `sockets` and `selectors` are
    its classes. `kernel` returns figures of a socket. Places are named in the folders of `code`.
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
        self._loop = LoopTaps(self, tuple(selectors))
        self._taps = Taps(self, self._loop, tuple(sockets))
        self._seen: dict[str, Figures] = {}  # the figures as they were last told
        self._last: Event | None = None  # the latest event, written when the next one begins
        self._sleep: Event | None = None  # the latest sleep, written before the next event
        self._printer: Printer | None = None
        self.looks: dict[str, Look] = {}  # the open connections
        self.touched: dict[str, None] = {}  # the connections of this callback
        self.timers: dict[Timer, tuple[str, str, float]] = {}  # connection, purpose, time

    def __enter__(self) -> Self:
        if self._lines:
            self._printer = Printer(self._undo, self._colour)
        if self._writer is not None:
            self._undo.callback(self._writer.close)
        for taps in (self._loop, self._taps, Talks(self, self._loop)):
            for owner, name, tap in taps.all():
                self._wrap(owner, name, tap)
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        self._wake()
        self._undo.close()

    def _wrap(self, owner: type, name: str, tap: Callable[..., object]) -> None:
        """Replaces a method by `tap`, which gets the original method and its arguments."""
        original: Callable[..., object] = getattr(owner, name)
        own = vars(owner).get(name)  # None if the method is inherited

        @functools.wraps(original)
        def wrapped(*args: Any, **named: Any) -> object:
            return tap(original, *args, **named)

        setattr(owner, name, wrapped)
        self._undo.callback(*((setattr, owner, name, own) if own else (delattr, owner, name)))

    def name(self, sock: object) -> str:
        """The name of the connection that a socket belongs to, or an empty text."""
        return self._loop.name(sock)

    # Telling

    def now(self) -> float:
        """Microseconds since the trace began."""
        return 1e6 * (self._clock() - self._start)

    def tell(self, who: str, verb: str, text: str, start: float | None = None, **now: Any) -> None:
        """Tells an event that happened now or, with `start`, lasted from then until now.

        The event is written when the next one begins. So it includes the changes that it made.
        """
        self.begin(who if start is None else "")
        end = self.now()
        took = None if start is None else end - start
        self._last = Event(who, verb, text, end, took, self._place(), now)

    def begin(self, who: str = "") -> None:
        """An event of `who` begins, so the last event is over."""
        last, self._last = self._last, None
        if last is not None:
            self.touched[last.track] = None
            self._put_with_changes(last, self._place())
        if who in self._seen and (last is None or last.track != who):
            now = self.looks[who].figures()
            self._put_sentences(Event(who, "", "", self.now(), None, self._place(), {}), now)

    def forget(self, who: str) -> None:
        """The socket of a connection is closed, so it has no figures any more."""
        del self.looks[who]
        self._seen.pop(who, None)

    def settle(self) -> None:
        """A callback is over: tells the changes that belong to no event."""
        last, self._last = self._last, None
        touched, self.touched = self.touched, {}
        if last is not None:
            self._put_with_changes(last, last.place)
            touched.pop(last.track, None)
        for who in touched:
            self._put_with_changes(Event(who, "changes", "", self.now(), None, "", {}), "")

    def slept(self, text: str, start: float, now: Figures) -> None:
        """Tells a sleep. A sleep without a ready descriptor is joined with the next one."""
        if self._sleep is not None and not self._sleep.now["woken"]:
            start = self._sleep.end - (self._sleep.lasted or 0)
        end, place = self.now(), self._place()
        self._sleep = Event("loop", "sleep", text, end, end - start, place, now)

    @contextmanager
    def timed(self, who: str, verb: str, text: str) -> Iterator[list[str]]:
        """Tells a slice. Its text is the last item of the list that this yields."""
        self.begin(who)
        start, better = self.now(), [text]
        try:
            yield better
        except BlockingIOError:
            better.append("would block")
            raise
        except BaseException as error:
            better.append(str(error) or type(error).__name__)
            raise
        finally:
            self.tell(who, verb, better[-1], start)

    def flush(self) -> None:
        """Writes the events to the file, because the loop is going to sleep."""
        if self._writer is not None:
            self._writer.flush()

    def _put_with_changes(self, event: Event, place: str) -> None:
        """Writes an event with the changed figures. Some changes, made at `place`, stand alone."""
        who, look = event.track, self.looks.get(event.track)
        if look is None:
            if event.text or event.now:
                self._put(event)
            return
        before, now = self._seen.get(who, {}), look.figures()
        timers = [(what, due) for whose, what, due in self.timers.values() if whose == who]
        now["timers"] = {what: due for what, due in timers if due < math.inf}  # no JSON has it
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
        """Writes the changes that get a sentence of their own, as events."""
        before = self._seen.get(event.track)
        for verb, text, figures in sentences(before, now) if before else ():
            self._put(replace(event, verb=verb, text=text, now=figures))
            self._seen[event.track] = self._seen[event.track] | figures

    def _wake(self) -> None:
        """Writes the last sleep, which is over now."""
        if self._sleep is not None:
            sleep, self._sleep = self._sleep, None
            sleep.now["slept"] = round(sleep.lasted or 0, 1)
            self._put(sleep)

    def _put(self, event: Event) -> None:
        self._wake()
        if self._writer is not None:
            self._writer.write(event)
        if self._printer is not None:
            self._printer.write(event)

    def _place(self) -> str:
        """The line of source, outside this folder, at which the thread is."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            path = frame.f_code.co_filename
            if path.startswith(self._code) and not path.startswith(HERE):
                name = frame.f_code.co_qualname
                return f"{path[len(str(ROOT)) + 1 :]}:{frame.f_lineno} {name}"
            frame = frame.f_back
        return ""


def failed(error: OSError) -> None:
    """The trace's file takes no more: logs it once, and the program goes on."""
    log.warning("the trace file ends here: %s", error.strerror)
