"""Keeps what the README says of places in the code true: `python -m tests.readme` rewrites it.

A link from a name to a line, like [`Stream.flush`](kv/net/stream.py#L1), gets
the line where that name is defined; the table of pitfalls is made from the gallery.
"""

import importlib
import re
import sys
from operator import attrgetter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pitfalls.gallery import Entry, gallery
from pitfalls.pitfall import place

README = Path(__file__).resolve().parent.parent / "README.md"
LINK = re.compile(r"\[`([\w.]+)`\]\((kv/([\w/]+)\.py)#L\d+\)")
TABLE = re.compile(r"(?<=<!-- pitfalls -->\n).*?(?=<!-- end of pitfalls -->)", re.S)


def relinked(text: str) -> str:
    """`text`, every link to a line of the code leading where its name is defined."""

    def target(match: re.Match[str]) -> str:
        module = importlib.import_module("kv." + match[3].replace("/", "."))
        thing = attrgetter(match[1])(module)
        code = isinstance(thing, property) or hasattr(thing, "__qualname__")
        here = thing if code else f"{module.__name__}.{match[1]}"
        return f"[`{match[1]}`]({match[2]}#L{place(here)[1]})"

    return LINK.sub(target, text)


def table(entries: list[Entry]) -> str:
    """The table of pitfalls, a row for each way to fall into one."""
    rows = ["| | the pitfall | what becomes of the usual code | handled in |", "|---|---|---|---|"]
    for entry in entries:
        head = f"[{entry.number}]({entry.path}) | {entry.title}"
        for way in entry.ways:
            path, line, name = place(way.handled)
            usually = way.usually.replace("|", r"\|")
            rows.append(f"| {head} | {usually} | [`{name}`]({path}#L{line}) |")
            head = " | "
    return "\n" + "\n".join(rows) + "\n\n"


def renewed(text: str) -> str:
    """The README as it should be."""
    return TABLE.sub(lambda _: table(gallery()), relinked(text))


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
