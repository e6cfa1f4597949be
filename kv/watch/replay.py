"""Makes a page of a trace: one HTML file that shows the loop turn by turn, in any browser.

What the page looks like and does is in `replay.html`, `replay.css` and `replay.js`; here they are
put together with the events. They are written down once each: words in tables, moments as the time
since the one before, and of the source only the functions that did something.

A page has one lane, or two that are shown in step: the same scenario with different code.
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

#: What a page says of a trace that does not end as one does.
UNFINISHED = (
    "This trace has no end: it is still being written, or whatever wrote it was killed."
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
    """Words, each once, by the order in which they turned up."""

    words: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, word: str) -> int:
        return self.words.setdefault(word, len(self.words))


def page(title: str, lanes: list[Lane], note: str = "", source: str = "") -> str:
    """The page. `note` is what a reader has to know of it, such as that a trace was cut off."""
    data = {
        "title": title,
        "note": note,
        "lanes": [packed(lane) for lane in lanes],
        "source": source,
        "sources": sources({event.place for lane in lanes for event in lane.events}),
    }
    # In a script element only `</` could end it, and only `<!--` change what ends it.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    parts = {"style": "replay.css", "script": "replay.js"}
    html = (HERE / "replay.html").read_text(encoding="utf-8")
    for name, file in parts.items():
        html = html.replace(f"<!-- {name} -->", (HERE / file).read_text(encoding="utf-8"))
    # A trace may have half a character in it (a lone surrogate), which no file can hold.
    return html.replace("<!-- data -->", text.encode(errors="replace").decode())


def packed(lane: Lane) -> dict[str, object]:
    """A lane as the page takes it.

    A step is a list: microseconds since the end of the one before, duration or null, track, verb,
    text, place, what has changed.
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
    """The functions that the places are in, if of this program: where each begins, and its text."""
    found = {}
    for place in sorted(places):
        path, _, rest = place.partition(":")
        line, _, name = rest.partition(" ")
        if line.isdecimal() and len(line) < 9 and (source := function_at(path, int(line))):
            found[f"{path} {name}"] = source
    return found


def function_at(path: str, line: int) -> tuple[int, str] | None:
    """The innermost function around a line: its first line, and its text."""
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
    """The lines of a file of this program. A trace may name any other: that is empty here."""
    try:
        file = (ROOT / path).resolve()
        if file.is_relative_to(ROOT) and file.suffix == ".py" and file.is_file():
            return file.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):  # it is no name that a file could have
        pass
    return []
