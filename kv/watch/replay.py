"""Makes a page of a trace: one HTML file that shows the loop turn by turn, in any browser.

`replay.html`, `replay.css` and `replay.js` say how the page looks and what it does. This module
puts them together with the events, in a short form: each word once, in a table; each time as the
difference to the last; and only the functions of the source that did something.

A page has one lane, or two that go in step: the same scenario with different code.
"""

import ast
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import kv
from kv.watch.events import Event

HERE = Path(__file__).resolve().parent
ROOT = Path(kv.__file__).resolve().parents[1]

#: What a page says of a trace without a clean end.
UNFINISHED = (
    "This trace has no end: it is still being written, or the program that wrote it was killed."
    " The page shows what there is."
)


@dataclass(slots=True)
class Lane:
    """A trace, what stands above it, and the step (if any) at which it goes wrong, and how."""

    events: list[Event]
    title: str = ""
    says: str = ""
    wrong: int | None = None
    because: str = ""


@dataclass(slots=True)
class Table:
    """Words, each once, in the order of their first use."""

    words: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, word: str) -> int:
        return self.words.setdefault(word, len(self.words))


def page(title: str, lanes: list[Lane], note: str = "", source: str = "") -> str:
    """The page. `note` is for the reader, such as that the trace was cut off."""
    data = {
        "title": title,
        "note": note,
        "lanes": [packed(lane) for lane in lanes],
        "source": source,
        "sources": sources({event.place for lane in lanes for event in lane.events}),
    }
    # In a script element, `</` could end the element, and `<!--` could change how it ends. The JSON
    # is ASCII: a trace may have half a character in it (a lone surrogate), which no file can hold.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"style": "replay.css", "script": "replay.js"}
    html = (HERE / "replay.html").read_text(encoding="utf-8")
    for name, file in parts.items():
        html = html.replace(f"<!-- {name} -->", (HERE / file).read_text(encoding="utf-8"))
    return html.replace("<!-- data -->", text)


def packed(lane: Lane) -> dict[str, object]:
    """A lane in the form that the page reads.

    A step is a list: microseconds since the end of the last step, duration or null, track, verb,
    text, place, changed figures.
    """
    tracks, verbs, texts, places = Table(), Table(), Table(), Table()
    steps: list[list[object]] = []
    before = 0.0
    for event in lane.events:
        lasted = None if event.lasted is None else round(event.lasted, 1)
        step = [round(event.end - before, 1), lasted, tracks[event.track], verbs[event.verb]]
        steps.append([*step, texts[event.text], places[event.place], event.now or 0])
        before += round(event.end - before, 1)
    named = {"tracks": tracks, "verbs": verbs, "texts": texts, "places": places}
    told: dict[str, object] = {name: list(table.words) for name, table in named.items()}
    told |= {"wrong": lane.wrong, "because": lane.because}
    return told | {"title": lane.title, "says": lane.says, "steps": steps}


def sources(places: set[str]) -> dict[str, tuple[int, str]]:
    """The functions of this program around the places: the first line and the text of each."""
    found = {}
    for place in sorted(places):
        path, _, rest = place.partition(":")
        line, _, name = rest.partition(" ")
        if line.isdecimal() and len(line) < 9 and (source := function_at(path, int(line))):
            found[f"{path} {name}"] = source
    return found


def function_at(path: str, line: int) -> tuple[int, str] | None:
    """The innermost function around a line: its first line and its text."""
    around = [(first, last) for first, last in functions(path) if first <= line <= last]
    if not around:
        return None
    first, last = max(around)
    return first, "\n".join(lines(path)[first - 1 : last])


@cache
def functions(path: str) -> list[tuple[int, int]]:
    """First and last line of each function in a file."""
    tree = ast.parse("\n".join(lines(path)))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(n.lineno, n.end_lineno or 0) for n in ast.walk(tree) if isinstance(n, kinds)]


@cache
def lines(path: str) -> list[str]:
    """The lines of a file of this program. None of any other file that a trace may name."""
    try:
        file = (ROOT / path).resolve()
        if file.is_relative_to(ROOT) and file.suffix == ".py" and file.is_file():
            return file.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):  # no file can have this name
        pass
    return []
