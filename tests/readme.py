"""Keeps what the pages say of places in the code true: `python -m tests.readme` rewrites them.

- A link from a name to a line, like [`Stream.flush`](kv/net/stream.py#L1), gets the line where
  that name is defined. The path is relative to the page, as for whoever clicks on it.
- A link from a number to a pitfall, like [6](test_06_.py), gets the name of that pitfall's file.
- `make: *** [Makefile:1: run-client]` gets the line of that target's recipe.
- The table of pitfalls is made from the gallery, the state diagrams from the tables of states.
- The picture of the ladder is drawn from its grid.

It says which names and numbers lead nowhere, and leaves those as they are.
"""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from diagrams import diagram
from ladder import picture
from pitfalls.gallery import Entry, gallery, grouped
from pitfalls.pitfall import ROOT, line_of, place

#: The front page, the course, the tests, the pitfalls.
PAGES = [ROOT / folder / "README.md" for folder in ("", "kv", "tests", "tests/pitfalls")]

NAME = re.compile(r"\[`([\w.]+)`\]\(([\w./]+\.py)#L\d+\)")
NUMBER = re.compile(r"\[(\d+)\]\([\w./]*\btest_\d+_\w*\.py\)")
RECIPE = re.compile(r"(?<=make: \*\*\* \[Makefile:)\d+(?=: ([\w-]+)\])")
DIAGRAM = re.compile(r"<!-- (Incoming|Outgoing) -->\n.*?(?=<!-- end of \1 -->)", re.S)
TABLE = re.compile(r"(?<=<!-- pitfalls -->\n).*?(?=<!-- end of pitfalls -->)", re.S)


def relative(path: str, page: Path) -> str:
    """`path`, which is relative to the repository, as `page` links to it."""
    return os.path.relpath(ROOT / path, page.parent)


def table(entries: list[Entry], page: Path) -> str:
    """The pitfalls by groups, a row for each way to fall into one."""
    rows: list[str] = []
    for group, members in grouped(entries).items():
        rows += ["", f"### {group}", ""]
        rows += ["| | the pitfall | what happens to the usual code | handled in |"]
        rows += ["|---|---|---|---|"]
        for entry in members:
            head = f"[{entry.number}]({relative(entry.path, page)}) | {entry.title}"
            for way in entry.ways:
                path, line, name = place(way.handled)
                usually = way.usually.replace("|", r"\|")
                link = f"[`{name}`]({relative(path, page)}#L{line})"
                rows.append(f"| {head} | {usually} | {link} |")
                head = " | "
    return "\n".join(rows) + "\n\n"


def renewed(page: Path) -> tuple[str, list[str]]:
    """The page as it should be, and what in it leads nowhere."""
    entries = gallery()
    files = {str(entry.number): relative(entry.path, page) for entry in entries}
    nowhere: list[str] = []

    def name(match: re.Match[str]) -> str:
        source = (page.parent / match[2]).resolve()
        try:
            return f"[`{match[1]}`]({match[2]}#L{line_of(source, match[1])})"
        except (OSError, LookupError):
            nowhere.append(f"{match[1]} is not in {match[2]}")
            return match[0]

    def number(match: re.Match[str]) -> str:
        if match[1] in files:
            return f"[{match[1]}]({files[match[1]]})"
        nowhere.append(f"there is no pitfall {match[1]}")
        return match[0]

    def recipe(match: re.Match[str]) -> str:
        lines = (ROOT / "Makefile").read_text().splitlines()
        return str(2 + next(i for i, line in enumerate(lines) if line.startswith(f"{match[1]}:")))

    text = TABLE.sub(lambda _: table(entries, page), page.read_text())
    text = DIAGRAM.sub(lambda match: f"<!-- {match[1]} -->\n{diagram(match[1])}", text)
    return RECIPE.sub(recipe, NUMBER.sub(number, NAME.sub(name, text))), nowhere


def main() -> int:
    """Rewrites the pages; 1 if something leads nowhere."""
    status = 0
    picture.PATH.write_text(picture.draw())
    for page in PAGES:
        text, nowhere = renewed(page)
        page.write_text(text)
        for what in nowhere:
            print(f"{page.relative_to(ROOT)}: {what}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
