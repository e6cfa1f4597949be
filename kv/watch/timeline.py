"""Draws a trace: a file of trace events in, an SVG picture out. Apart from everything else.

A row for the loop and one for each connection, time from left to right. Work takes microseconds and
is drawn to scale; a sleep may take seconds, so one of more than `LONG` is drawn shorter, by its
logarithm, hatched, and says how long it was. Point at anything to read what it is.
"""

import html
import json
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kv.net.stdio import escaped

#: Pixels: the picture's width, of which so much is names, and the height of a row and the rest.
WIDTH, NAMES, ROW, TOP, BOTTOM = 1600, 130, 34, 74, 24
#: Microseconds of sleep that are drawn to scale.
LONG = 250.0
#: No trace lasts for so many: thirty years.
LONGEST = 1e15

#: What takes time: how it is drawn, and what the legend calls it. Later ones are inside of earlier.
SLICES = {
    "wake-up": ("#dfe5ee", "asleep"),
    "turn": ("#56606e", "awake: a turn of the loop"),
    "message": ("#e9c46a", "a message handled"),
    "open": ("#5aa469", "open: public-key operation"),
    "seal": ("#d1495b", "seal: private-key operation"),
    "recv": ("#4a80c4", "recv"),
    "send": ("#8a63b8", "send"),
}
OTHER = ("#9aa0a6", "something else")

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
font-family="system-ui, sans-serif" font-size="13">
<pattern id="asleep" width="6" height="6" patternUnits="userSpaceOnUse" \
patternTransform="rotate(45)"><rect width="6" height="6" fill="#eef1f6"/>\
<rect width="2" height="6" fill="#d3dae6"/></pattern>
<rect width="{width}" height="{height}" fill="white"/>"""


@dataclass(frozen=True, slots=True)
class Event:
    """A trace event: of phase X a slice, i an instant, M the name of a track. Microseconds."""

    phase: str
    verb: str
    track: int
    start: float
    lasted: float
    text: str

    @classmethod
    def parse(cls, line: str) -> "Event":
        """The event in a line as `Trace` writes them; raises `ValueError`."""
        try:
            event = json.loads(line.rstrip(","))
            phase, args = event["ph"], event["args"]
            text = args["name"] if phase == "M" else args["is"]
            start, lasted = float(event.get("ts", 0)), float(event["dur"] if phase == "X" else 0)
            if not (0 <= start < LONGEST and 0 <= lasted < LONGEST):
                raise ValueError(f"{start} µs, lasting {lasted} µs")
            verb, track = escaped(event["name"]), int(event["tid"])
            return cls(str(phase), verb, track, start, lasted, escaped(text))
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


class Axis:
    """Where a moment is: microseconds to pixels."""

    def __init__(self, events: list[Event], start: float, end: float) -> None:
        self._moments, drawn = [start], [0.0]
        for event in events:
            if event.verb == "wake-up":
                self._moments += [event.start, event.start + event.lasted]
                asleep = event.lasted if event.lasted < LONG else compressed(event.lasted)
                drawn += [drawn[-1] + self._moments[-2] - self._moments[-3]]
                drawn += [drawn[-1] + asleep]
        self._moments.append(end)
        drawn.append(drawn[-1] + end - self._moments[-2])
        scale = (WIDTH - NAMES - 10) / (drawn[-1] or 1)
        self._places = [NAMES + scale * place for place in drawn]

    def __call__(self, moment: float) -> float:
        """The place of a moment, between those around it that are known."""
        after = min(max(1, bisect_right(self._moments, moment)), len(self._moments) - 1)
        (t0, t1), (x0, x1) = (
            self._moments[after - 1 : after + 1],
            self._places[after - 1 : after + 1],
        )
        return x0 + (x1 - x0) * (moment - t0) / (t1 - t0) if t1 > t0 else x0


def compressed(microseconds: float) -> float:
    """How much a long sleep is drawn as."""
    return LONG * (1 + math.log10(microseconds / LONG))


def read(path: str) -> list[Event]:
    """The events in a file that a trace has written; a crash may have cut off the last one.

    Raises `OSError`, and `ValueError` if it is no such file.
    """
    lines = Path(path).read_text().splitlines()
    if lines[:1] != ["["]:
        raise ValueError("it does not begin as a trace does")
    events = []
    for number, line in enumerate(lines[1:], 2):
        try:
            events.append(Event.parse(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"line {number} is no trace event: {error}") from error
    return events


def draw(events: list[Event]) -> str:
    """The picture, as SVG. Raises `ValueError` if there is nothing to draw."""
    names = {event.track: event.text for event in events if event.phase == "M"}
    told = sorted((e for e in events if e.phase in "Xi"), key=lambda e: (e.start, -e.lasted))
    began = [event.start for event in told if event.verb == "wake-up"]
    if not began:
        raise ValueError("the loop never turns in this trace")
    start = began[0]  # what was done before the loop ran is no part of the picture
    told = [event for event in told if event.start >= start]
    end = max(event.start + event.lasted for event in told)
    axis = Axis(told, start, end)
    tracks = sorted({event.track for event in events})
    rows = {track: TOP + ROW * number for number, track in enumerate(tracks)}
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [
        HEAD.format(width=WIDTH, height=height),
        *legend(),
        *(lane(names.get(track, ""), y) for track, y in rows.items()),
    ]
    parts += [
        shape
        for event in told
        for shape in drawn(event, axis, rows[event.track], event.start - start)
    ]
    return "\n".join([*parts, "</svg>"])


def legend() -> Iterator[str]:
    """What the colours mean."""
    x = NAMES
    for colour, text in [*SLICES.values(), OTHER]:
        yield f'<rect x="{x}" y="14" width="14" height="14" rx="2" fill="{colour}"/>'
        yield f'<text x="{x + 20}" y="26">{text}</text>'
        x += 34 + 7 * len(text)


def lane(name: str, y: int) -> str:
    """A row's name and ground."""
    return (
        f'<text x="8" y="{y + 19}">{html.escape(name[:18])}</text>'
        f'<path d="M{NAMES} {y + ROW - 3}H{WIDTH - 10}" stroke="#e3e6ea"/>'
    )


def drawn(event: Event, axis: Axis, y: int, since: float) -> Iterator[str]:
    """A slice as a bar, an instant as a tick; a long sleep says how long."""
    verb, x = event.verb, axis(event.start)
    colour, _ = SLICES.get(verb, OTHER)
    text = html.escape(f"{verb}: {event.text}" if event.text else verb)
    title = f"<title>{text}\nat {since / 1000:.3f} ms"
    if event.phase == "i":
        dead = verb in ("closed", "close", "pause")
        yield f'<path d="M{x:.1f} {y - 2}v{ROW - 4}" stroke="{"#d1495b" if dead else "#333"}"'
        yield f' stroke-width="1.5" stroke-opacity="0.6">{title}</title></path>'
        return
    long_sleep = verb == "wake-up" and event.lasted >= LONG
    width = max(axis(event.start + event.lasted) - x, 0.8)
    inset = 4 if verb in ("open", "seal") else 0
    fill = "url(#asleep)" if long_sleep else colour
    yield f'<rect x="{x:.1f}" y="{y + inset}" width="{width:.1f}" height="{ROW - 8 - 2 * inset}"'
    yield f' fill="{fill}">{title}, {duration(event.lasted)}</title></rect>'
    if long_sleep and width > 40:
        yield f'<text x="{x + width / 2:.1f}" y="{y - 6}" text-anchor="middle" font-size="10"'
        yield f' fill="#667">{duration(event.lasted)}</text>'


def duration(microseconds: float) -> str:
    """A duration in the unit that fits."""
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1e3:.1f} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.2f} s"
