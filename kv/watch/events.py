"""The form of a trace: what `--trace-file` writes, and `replay` reads.

The file is one JSON array in the Trace Event Format, so Perfetto and chrome://tracing open it. Each
event is a line. The lines are in the order in which the events ended:

    {"ph": "X", "name": "recv", "pid": 1, "tid": 2, "ts": 1572867.1, "dur": 3.2, "args": {
     "is": "takes 178 octets", "at": "kv/net/transport.py:94 Transport.read", "now": {"line": 0}}}

    ph      X is a slice, which took `dur` microseconds; i an instant; M gives a track its name
    tid     the track: the loop, the listener, a connection
    is      what happened, in words
    at      the line of source that did it
    now     the figures of the track that have changed by the end of the event

`FIGURES` lists the figures of a connection. Those of the loop are `turn`, `part` (of the four in
`Reactor.turn`), `slept` and `most` (microseconds), `woken` and `queue` (names). A figure that is
missing keeps its last value, so a reader has to start at the beginning.

The comma behind a line is written together with the next line. So the array is valid JSON after a
clean end. A file that was cut off (kill -9, a full disk, or still being written) lacks at most its
last line and the bracket.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeAlias

Figure: TypeAlias = str | float | bool | list[str] | dict[str, float] | None
Figures: TypeAlias = dict[str, Figure]

#: The figures of a connection, and what each says.
FIGURES = {
    "name": "the client's id, once it has one",
    "state": "the state of the protocol",
    "in": "the state of the direction in",
    "out": "the state of the direction out",
    "holds": "why no line is handed over now, or nothing",
    "line": "octets of a line that is not complete",
    "lines": "octets of lines that wait to be handed over",
    "unsent": "octets of replies that the kernel has not taken",
    "arrived": "octets in the kernel that were not read (simulator)",
    "undelivered": "octets in the kernel that the peer has not got (simulator)",
    "limits": "the most that each of the five above may be",
    "interest": "the readiness that is asked for: read, write",
    "why": "why it asks for read or not, and why for write or not",
    "timers": "what is to happen when: name -> microseconds on the clock of `ts`",
    "handled": "how many of its lines were handed over",
    "closed": "true when the socket is closed",
}
#: What is neither text nor a number, or has to be a text; and those figures of the loop.
KINDS: dict[str, Any] = {"why": list, "woken": list, "queue": list, "most": int | float | None}
KINDS |= {"limits": dict, "timers": dict, "interest": str, "part": str}
#: The parts of a turn.
PARTS = ("sleeping", "ready", "timers", "deferred")
#: Raises `ValueError` for NaN and infinity. Python's JSON has them, and no browser's.
STRICT = json.JSONEncoder(allow_nan=False)
#: No trace lasts this long, in microseconds: thirty years.
LONGEST = 1e15
#: The number of the process, for programs that show several.
PID = 1


@dataclass(frozen=True, slots=True)
class Event:
    """Something that ended at `end` and `lasted` so long, in µs. None means an instant."""

    track: str
    verb: str
    text: str
    end: float
    lasted: float | None
    place: str
    now: Figures


class Writer:
    """Writes a trace. If the file takes no more, calls `failed` once, and writes no more.

    The file is buffered. After `flush`, it has all events so far.
    """

    def __init__(self, file: TextIO, failed: Callable[[OSError], object]) -> None:
        self._file: TextIO | None = file
        self._failed = failed
        self._tracks: dict[str, int] = {}
        self._between = "[\n"

    def write(self, event: Event) -> None:
        """Adds an event."""
        if event.track not in self._tracks:
            self.rename(event.track, event.track)
        args: dict[str, object] = {"is": event.text, "at": event.place, "now": event.now}
        line: dict[str, object] = {"ph": "i", "name": event.verb, "pid": PID}
        line |= {"tid": self._tracks[event.track], "ts": round(event.end, 1)}
        if event.lasted is None:
            line["s"] = "t"
        else:
            start = round(event.end - event.lasted, 1)
            line |= {"ph": "X", "ts": start, "dur": round(event.end - start, 1)}
        self._put(line | {"args": {name: value for name, value in args.items() if value}})

    def rename(self, track: str, name: str) -> None:
        """Gives a track a new name, which viewers show."""
        number = self._tracks.setdefault(track, len(self._tracks))
        args = {"name": name, "track": track}
        self._put({"ph": "M", "name": "thread_name", "pid": PID, "tid": number, "args": args})

    def flush(self) -> None:
        """Writes the buffered events to the file."""
        self._try(lambda file: file.flush())

    def close(self) -> None:
        """Ends the array and closes the file."""
        end = "\n]\n" if self._tracks else "[\n]\n"
        self._try(lambda file: file.write(end))
        self._try(lambda file: file.close())
        self._file = None

    def _put(self, line: dict[str, object]) -> None:
        text = self._between + json.dumps(line)
        self._between = ",\n"
        self._try(lambda file: file.write(text))

    def _try(self, act: Callable[[TextIO], object]) -> None:
        try:
            if self._file is not None:
                act(self._file)
        except OSError as error:
            file, self._file = self._file, None
            if file is not None:
                with suppress(OSError):  # the rest of the buffer cannot be written, either
                    file.close()
            self._failed(error)


def read(path: str | Path) -> tuple[list[Event], bool]:
    """The events in a file, and whether it is whole: whether its writer ended cleanly.

    Raises `OSError`, and `ValueError` if the file is not a trace.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("it is not text") from error
    head, *lines = text.split("\n")
    if head not in ("[", "[]"):
        raise ValueError("it does not begin as a trace does")
    whole = lines[-2:] == ["]", ""]
    if whole:
        del lines[-2:]
    events, tracks = [], dict[int, str]()
    for number, line in enumerate(lines, 2):
        try:
            event = parsed(line.removesuffix(","), tracks)
        except ValueError as error:
            if number <= len(lines):
                raise ValueError(f"line {number} is no trace event: {error}") from error
            whole = False  # the file was cut off in the middle of this line
        else:
            if event is not None:
                events.append(event)
    if not any(event.verb == "sleep" for event in events):
        raise ValueError("the loop never turns in it")
    return events, whole


def parsed(line: str, tracks: dict[int, str]) -> Event | None:
    """The event in a line. None for a line that names a track. Raises `ValueError`."""
    try:
        event = json.loads(line)
        args, number = event["args"], int(event["tid"])
        if event["ph"] == "M":
            tracks.setdefault(number, str(args["track"]))
            return None
        lasted = float(event["dur"]) if event["ph"] == "X" else None
        end = float(event["ts"]) + (lasted or 0.0)
        if not (0 <= (lasted or 0.0) < LONGEST and 0 <= end < LONGEST):
            raise ValueError(f"it ends at {end} µs, having lasted {lasted} µs")
        verb, text, place = (
            str(one) for one in (event["name"], args.get("is", ""), args.get("at", ""))
        )
        return Event(tracks[number], verb, text, end, lasted, place, figures(args.get("now", {})))
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def figures(now: object) -> Figures:
    """The `now` of an event, if a page can show it. Raises `ValueError`."""
    if not isinstance(now, dict):
        raise ValueError("its figures are no object")
    for name, figure in now.items():
        kind: Any = str if isinstance(figure, list) else int | float
        inner: Any = figure.values() if isinstance(figure, dict) else figure
        inner = inner if isinstance(figure, dict | list) else ()
        good = isinstance(figure, KINDS.get(name, str | int | float))
        if not good or not all(isinstance(one, kind) for one in inner):
            raise ValueError(f"{name} is {figure!r}")
    if now.get("part", "ready") not in PARTS:
        raise ValueError(f"there is no part {now['part']!r}")
    STRICT.encode(now)
    return now
