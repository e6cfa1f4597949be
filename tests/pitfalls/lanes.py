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
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket
from typing import Any
from unittest import mock

import house
from simulation.kernel import Selector
from simulation.sockets import Socket

from kv.watch.events import Event, read
from kv.watch.replay import Lane, page
from kv.watch.trace import SELECTORS, Trace

from .gallery import Entry
from .moments import moment
from .pitfall import ROOT, Failure, Pitfall

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
CLOCK = house.Clock.__init__
#: The most events of a lane that are shown. A program that spins makes more, but no new ones.
MOST = 6000
#: The pitfalls in the gallery.
GALLERY = (22, 8, 6, 1, 3, 4, 7, 12, 16, 24)


class Acts:
    """Tells a trace what the scenario does, and what time it makes pass."""

    def __init__(self) -> None:
        self.trace: Trace | None = None
        self._clocks: list[house.Clock] = []  # those that a scenario puts on
        self.over: float | None = None  # when the scenario was, in microseconds

    def clock(self) -> float:
        """Seconds, with those by which the scenario's own clock was put on."""
        return time.perf_counter() + sum(clock.now for clock in self._clocks)

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
                (house.House, "wait", lambda _, seconds: f"{seconds:g} s pass"),
                (house.House, "close", self._end),
                (Failure, "__init__", self._end),
                (socket, "send", lambda sock, data, *_: f"{at(sock)} sends {size(data)}"),
                (socket, "shutdown", lambda sock, _: f"{at(sock)} ends its side"),
                (socket, "close", lambda sock: f"{at(sock)} closes"),
            ):
                stack.enter_context(mock.patch.object(owner, name, self._telling(owner, name, say)))
            made = lambda clock: (CLOCK(clock), self._clocks.append(clock))[0]  # noqa: E731
            stack.enter_context(mock.patch.object(house.Clock, "__init__", made))
            yield

    def _end(self, *_: object) -> str:
        """The scenario has seen what it was to see. What follows is tidying up."""
        if self.trace is not None:
            self.over = self.trace.now()
        return ""

    def _telling(self, owner: Any, name: str, say: Callable[..., str]) -> Any:
        original = getattr(owner, name)

        def wrapped(thing: Any, *args: Any, **named: Any) -> Any:
            # Of the calls of a socket, those of the scenario itself; the rest is the house's.
            here = Path(sys._getframe(1).f_code.co_filename)
            if self.trace is not None and (owner is not socket or here.match("pitfalls/test_*.py")):
                self.trace.begin()
                start, text = self.trace.now(), say(thing, *args, **named)
                if text:
                    self.trace.tell("scenario", "act", text, start)
                    self.over = None
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


def lane(title: str, pitfall: Pitfall, run: Callable[[], str]) -> Lane:
    """What happens in a scenario, and what it says, when it is run by `run`.

    Raises `ValueError` if the loop never turns in it.
    """
    acts, scenario = Acts(), pitfall.scenario
    worlds: dict[str, Any] = {
        "sockets": (socket, Socket),
        "selectors": (*SELECTORS, house.Selector, Selector),
    }
    worlds |= {"clock": acts.clock, "code": ("kv", "tests/pitfalls")}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"

        def traced() -> str:
            """The scenario, with the code that is to be seen in its place by now."""
            with acts.told(), Trace(False, path.open("w"), **worlds) as acts.trace:
                return scenario()

        with mock.patch.object(pitfall, "scenario", traced):
            says = run()
        events = named(read(path)[0])
    if acts.over is not None:
        events = [event for event in events if event.end - (event.lasted or 0) <= acts.over]
    start = next((i for i, event in enumerate(events) if event.verb == "sleep"), 0)
    events = [event for event in events[:start] if event.track != "loop"] + events[start:]
    if len(events) > MOST:
        says += f" (the first {MOST:,} of {len(events):,} steps are here)"
        del events[MOST:]
    return Lane(events, title, says)


def page_of(entry: Entry, way: type[Pitfall], source: str = "") -> str:
    """Both lanes. Raises `ValueError`, with the reason, if there is nothing to be seen of them."""
    if way.wrong is None:
        raise ValueError(way.unseen)
    pitfall = way()
    usual = lane("The usual code", pitfall, pitfall.fails)
    found = moment(way.wrong, usual.events)
    usual.wrong, usual.because = found, f"It goes wrong: {way.usually}"
    here = lane("Our code", pitfall, pitfall.holds)
    return page(f"{entry.number}. {entry.title}", [usual, here], scene(way), source)


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


def write_gallery(entries: list[Entry], folder: Path, every: bool) -> Iterator[str]:
    """Writes the pages of those that teach most, or of all if `every`, and one that names them."""
    folder.mkdir(exist_ok=True)
    items = []
    for entry in entries:
        for number, way in enumerate(entry.ways if every or entry.number in GALLERY else (), 1):
            path = folder / f"{entry.number:02}{f'-{number}' if number > 1 else ''}.html"
            title, text = html.escape(f"{entry.number}. {entry.title}"), html.escape(scene(way))
            try:
                path.write_text(page_of(entry, way, "../"), encoding="utf-8")
            except ValueError as error:
                if every:
                    items.append(
                        f"<dt>{title}<dd>{text} No page of this: {html.escape(str(error))}."
                    )
                continue
            then = html.escape(way.usually)
            items.append(f'<dt><a href="{path.name}">{title}</a><dd>{text} Usually: {then}.')
            yield str(path)
    index = folder / "index.html"
    index.write_text(INDEX.format("\n".join(items)), encoding="utf-8")
    yield f"{index} leads to them"
