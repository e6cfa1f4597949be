"""A pitfall happens twice on one page: with the usual code, and with this project's code.

    make pitfalls N=22 REPLAY=page.html
    make gallery                              ten of them, in the folder `gallery`

The scenario runs under a trace, once with each code. What it does itself (connect, send, wait) is
in the trace, too, as an act: the page keeps the lanes together by that.
"""

import contextlib
import html
import re
import sys
import tempfile
import time
from collections import Counter
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
from .pitfall import ROOT, Pitfall

#: The page that leads to the others.
INDEX = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Pitfalls, step by step</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui; max-width: 44em; margin: 2em auto; padding: 0 1em; }}
dt {{ font-weight: bold; margin-top: 1em; }}
</style>
<h1>Pitfalls, step by step</h1>
<p>Each page shows one scenario twice: on the left with the usual code, on the right with this
project's code.</p>
<dl>{}</dl>
"""
#: The most events of a lane that are shown. A program that spins makes more, but no new ones.
MOST = 6000
#: The pitfalls in the gallery, in this order.
GALLERY = (22, 8, 6, 1, 3, 4, 7, 12, 16, 24)


def greedy(events: list[Event]) -> int | None:
    """Where somebody gets more than a hundred messages handled in a turn, while others wait."""
    handled: Counter[tuple[int, str]] = Counter()
    turn = 0
    for i, event in enumerate(events):
        turn += event.verb == "sleep"
        handled[turn, event.track] += event.verb == "message"
        if handled[turn, event.track] > 100:
            return i
    return None


def first(pattern: str) -> Callable[[list[Event]], int | None]:
    """Finds the first event of which "verb text" matches."""

    def found(events: list[Event]) -> int | None:
        told = (f"{event.verb} {event.text}" for event in events)
        return next((i for i, text in enumerate(told) if re.search(pattern, text)), None)

    return found


def above(figure: str, limit: int) -> Callable[[list[Event]], int | None]:
    """Finds where a figure is above a limit."""
    sizes = lambda event: event.now.get(figure, 0)  # noqa: E731
    return lambda events: next((i for i, e in enumerate(events) if int(sizes(e)) > limit), None)


#: Where it goes wrong with the usual code. Of the others it is where the scenario sees it: the end.
WRONG: dict[str, Callable[[list[Event]], int | None]] = {
    "TestGreedy": greedy,
    "TestUnreadReplies": above("unsent", 100_000),
    "TestPieces": first("^state .* -> CLOSED"),
}


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


def lane(title: str, run: Callable[[], str]) -> Lane:
    """What a scenario does, and says, when it is run by `run`."""
    acts = Acts()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        with acts.told(), open(path, "w") as file:
            with Trace(False, file, clock=acts.clock, code=("kv", "tests/pitfalls")) as acts.trace:
                says = run()
            acts.trace = None
        events = named(read(path)[0])
    start = next((i for i, event in enumerate(events) if event.verb == "sleep"), 0)
    events = [event for event in events[:start] if event.track != "loop"] + events[start:]
    if len(events) > MOST:
        says += f" (the first {MOST:,} of {len(events):,} steps are here)"
        del events[MOST:]
    return Lane(events, title, says)


def page_of(entry: Entry, way: type[Pitfall], source: str = "") -> str:
    """Both lanes. Raises `ValueError`, with the reason, if there is nothing to be seen of them."""
    if not way.naive:
        raise ValueError("no code falls into it where a test could see that")
    usual = lane("The usual code", way().fails)
    found = WRONG[way.__name__](usual.events) if way.__name__ in WRONG else None
    usual.wrong = len(usual.events) - 1 if found is None else found
    here = lane("Here", way().holds)
    return page(f"{entry.number}. {entry.title}", [usual, here], source=source)


def scene(way: type[Pitfall]) -> str:
    """What the scenario does."""
    return " ".join((way.__doc__ or "").split())


def write(entry: Entry, path: Path) -> Iterator[str]:
    """Writes a page for each way to fall; sentences about what was written, and what not."""
    source = "" if path.resolve().parent == ROOT else "../"
    for number, way in enumerate(entry.ways, 1):
        target = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            target.write_text(page_of(entry, way, source), encoding="utf-8")
        except ValueError as error:
            yield f"No page of this: {scene(way)} The reason: {error}."
        else:
            yield f"{target}: {scene(way)}"


def write_gallery(entries: list[Entry], folder: Path) -> Iterator[str]:
    """Writes the pages of those that teach most, and one that names them."""
    folder.mkdir(exist_ok=True)
    items = []
    for entry in sorted(entries, key=lambda entry: entry.number):
        if entry.number in GALLERY:
            way, path = entry.ways[0], folder / f"{entry.number:02}.html"
            path.write_text(page_of(entry, way, "../"), encoding="utf-8")
            title, text = html.escape(f"{entry.number}. {entry.title}"), html.escape(scene(way))
            then = html.escape(way.usually)
            items.append(f'<dt><a href="{path.name}">{title}</a><dd>{text} Usually: {then}.')
            yield str(path)
    index = folder / "index.html"
    index.write_text(INDEX.format("\n".join(items)), encoding="utf-8")
    yield f"{index} leads to them"
