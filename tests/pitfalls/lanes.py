"""A pitfall happens twice on one page: with what is usually written, and with this project's code.

    make pitfalls N=22 REPLAY=page.html
    make gallery                              ten of them, in the folder `gallery`

The scenario runs under a trace, once with each code. What it does itself (connect, send, wait) is
in the trace, too, as an act: the page keeps the lanes together by that.
"""

import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket
from typing import Any
from unittest import mock

import house

from kv.watch.events import Event, read
from kv.watch.replay import Lane, page
from kv.watch.trace import Trace

from .gallery import Entry
from .pitfall import Pitfall

#: The events of a lane that are shown. Who spins or hangs makes more, and no others.
MOST = 6000
#: Those that teach most, in this order.
GALLERY = (22, 8, 6, 1, 3, 4, 7, 12, 16, 24)

#: What to look for in the events of the usual code, as a regular expression over "who verb text":
#: where it goes wrong. Without one, it is where the scenario sees it, at the end.
WRONG: dict[str, str] = {}


class Acts:
    """Tells a trace what the scenario does, and what time it makes pass."""

    def __init__(self) -> None:
        self.trace: Trace | None = None
        self.passed = 0.0  # seconds that were not waited for

    def clock(self) -> float:
        """Seconds, those that passed by hand included."""
        return time.perf_counter() + self.passed

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """While this lasts, what a scenario does is told."""
        with contextlib.ExitStack() as stack:
            for owner, name, say in (
                (house.Guest, "__init__", lambda *_, **__: "a client connects"),
                (
                    house.Guest,
                    "send_raw",
                    lambda guest, data: f"{at(guest.socket)} sends {size(data)}",
                ),
                (house.Guest, "read_on", lambda guest, *_: f"{at(guest.socket)} begins to read"),
                (house.House, "wait", self._pass),
                (socket, "send", lambda sock, data, *_: f"{at(sock)} sends {size(data)}"),
                (socket, "shutdown", lambda sock, _: f"{at(sock)} ends its side"),
                (socket, "close", lambda sock: f"{at(sock)} closes"),
            ):
                stack.enter_context(mock.patch.object(owner, name, self._telling(owner, name, say)))
            yield

    def _pass(self, _: house.House, seconds: float) -> str:
        self.passed += seconds
        return f"{seconds:g} s pass"

    def _telling(self, owner: type, name: str, say: Callable[..., str]) -> Any:
        original = getattr(owner, name)

        def wrapped(thing: Any, *args: Any, **named: Any) -> Any:
            # Of the calls of a socket, those of the scenario itself; the rest is the house's.
            here = Path(sys._getframe(1).f_code.co_filename)
            if self.trace is not None and (owner is not socket or here.match("pitfalls/test_*.py")):
                self.trace.begin()
                start = self.trace.now()
                self.trace.tell("scenario", "act", say(thing, *args, **named), start)
            return original(thing, *args, **named)

        return wrapped


def at(sock: socket) -> str:
    """A client's socket, by its port; `named` puts its connection's name there."""
    try:
        return f":{sock.getsockname()[1]}"
    except OSError:
        return "a client"


def size(data: bytes) -> str:
    """How much `data` is, in words."""
    lines = data.count(b"\n")
    return f"{len(data):,} octets" + (f", {lines:,} lines" if lines > 1 else "")


def named(events: list[Event]) -> list[Event]:
    """The events, with connections in place of the ports of clients."""
    ports: dict[str, str] = {}
    for event in events:
        if event.verb == "accept" and (port := re.search(r":\d+$", event.text)):
            ports[port[0]] = event.track
    for i, event in enumerate(events):
        if event.verb == "act":
            text = re.sub(r"^:\d+", lambda port: ports.get(port[0], "a client"), event.text)
            events[i] = Event(
                *[getattr(event, f) if f != "text" else text for f in event.__slots__]
            )
    return events


def lane(title: str, run: Callable[[], str], wrong: str = "") -> Lane:
    """What a scenario does, and says, when it is run by `run`."""
    acts = Acts()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        with acts.told(), open(path, "w") as file:
            with Trace(False, file, clock=acts.clock, code=("kv", "tests/pitfalls")) as acts.trace:
                says = run()
            acts.trace = None
        events = named(read(path)[0])
    first = next((i for i, event in enumerate(events) if event.verb == "sleep"), 0)
    events = [event for event in events[:first] if event.track != "loop"] + events[first:]
    if len(events) > MOST:
        says += f" (the first {MOST:,} of {len(events):,} steps are here)"
        del events[MOST:]
    found = None
    if wrong:
        told = (f"{event.track} {event.verb} {event.text}" for event in events)
        found = next((i for i, text in enumerate(told) if re.search(wrong, text)), None)
    return Lane(events, title, says, found)


def page_of(entry: Entry, way: type[Pitfall], source: str = "") -> str:
    """Both lanes. Raises `ValueError`, with the reason, if there is nothing to be seen of them."""
    if not way.naive:
        raise ValueError("no code falls into it where a test could see that")
    usual = lane("What is usually written", way().fails, WRONG.get(way.__name__, "."))
    if usual.wrong is not None and way.__name__ not in WRONG:
        usual.wrong = len(usual.events) - 1
    here = lane("Here", way().holds)
    return page(f"{entry.number}. {entry.title}", [usual, here], source=source)


def write(entry: Entry, path: Path) -> Iterator[str]:
    """Writes a page for each way to fall; sentences about what was written, and what not."""
    for number, way in enumerate(entry.ways, 1):
        target = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            target.write_text(page_of(entry, way), encoding="utf-8")
        except ValueError as error:
            yield f"{way.__name__} has no page: {error}"
        else:
            yield f"{target} shows it: {' '.join((way.__doc__ or '').split())}"
