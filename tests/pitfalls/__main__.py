"""Prints the gallery, or one pitfall of it in full, or marks an exercise: `make pitfalls`."""

import argparse
import itertools
import logging
import shutil
import sys
import textwrap
from pathlib import Path
from pkgutil import resolve_name

from tests.program import run as program

from . import lanes
from .exercise import mark, write
from .gallery import Entry, gallery
from .pitfall import Failure, Pitfall, place, sources


def told(way: type[Pitfall]) -> tuple[str, str]:
    """What happened with the usual code, and with this project's. It runs both."""
    pitfall = way()
    usual = pitfall.fails() if way.naive else "(out of a test's reach)"
    return usual, pitfall.holds()


def brief(entry: Entry) -> str:
    """An entry of the list."""
    lines = [f"{entry.number:2}  {entry.title}"]
    for way in entry.ways:
        usual, here = told(way)
        path, line, name = place(way.handled)
        lines += paragraph("", scene(way))
        lines += paragraph("usually  ", usual) + paragraph("here     ", here)
        lines.append(f"    where    {path}:{line} {name}")
    return "\n".join(lines)


def scene(way: type[Pitfall]) -> str:
    """What the scenario does."""
    return " ".join((way.__doc__ or "").split())


def paragraph(label: str, text: str) -> list[str]:
    """`text` under a label, within 100 columns."""
    return textwrap.wrap(
        text, 100, initial_indent=f"    {label}", subsequent_indent=" " * (4 + len(label))
    )


def in_full(entry: Entry, width: int) -> str:
    """An entry with its situation, both codes and both outcomes; side by side if they fit."""
    parts = [f"{entry.number}. {entry.title}", entry.situation, f"({entry.path})"]
    for way in entry.ways:
        usual, here = told(way)
        path, line, name = place(way.handled)
        parts.append(textwrap.fill(scene(way), 100))
        left = ["The usual code:", "", *sources(way.naive.items()).splitlines()]
        handled = resolve_name(way.handled) if isinstance(way.handled, str) else way.handled
        right = [f"Here: {path}:{line}", "", *sources([(name, handled)]).splitlines()]
        left += ["", *textwrap.wrap(f"=> {usual}", 80)]
        right += ["", *textwrap.wrap(f"=> {here}", 80)]
        parts.append(beside(left, right, width))
    return "\n\n".join(parts)


def beside(left: list[str], right: list[str], width: int) -> str:
    """Two texts in columns, or one under the other where `width` is not enough for that."""
    column = max(map(len, left))
    if column + 3 + max(map(len, right)) > width:
        return "\n".join([*left, "", *right])
    rows = itertools.zip_longest(left, right, fillvalue="")
    return "\n".join(f"{one:{column}} | {other}".rstrip() for one, other in rows)


def main() -> int:
    """Runs; 1 if an entry is not what it says."""
    parser = argparse.ArgumentParser(prog="make pitfalls", description=__doc__)
    parser.add_argument("number", type=int, nargs="?", help="the pitfall to show in full")
    attempts = parser.add_mutually_exclusive_group()
    attempts.add_argument(
        "--start", type=Path, metavar="FILE", help="write the usual code to a file"
    )
    attempts.add_argument(
        "--try", type=Path, metavar="FILE", dest="attempt", help="say whether that file holds"
    )
    attempts.add_argument(
        "--replay", type=Path, metavar="FILE", help="write a page that shows both codes, in step"
    )
    attempts.add_argument(
        "--gallery", type=Path, metavar="FOLDER", help="write such pages of ten pitfalls"
    )
    parser.add_argument("--all", action="store_true", help="write those of all others, too")
    options = parser.parse_args()
    number = options.number
    if number is None and (options.start or options.attempt or options.replay):
        parser.error("which pitfall? Name it with N=")
    entries = gallery()
    if number is not None:
        entries = [entry for entry in entries if entry.number == number]
        if not entries:
            parser.error(f"there is no pitfall {number}")
    logging.getLogger("kv").addHandler(logging.NullHandler())  # the log would only distract
    if options.start:
        return write(entries[0], options.start)
    if options.attempt:
        return mark(entries[0], options.attempt)
    if options.replay:
        print(*lanes.write(entries[0], options.replay), sep="\n")
        return 0
    if options.gallery:
        print(*lanes.write_gallery(entries, options.gallery, options.all), sep="\n")
        return 0
    for entry in entries:
        try:
            text = (
                brief(entry)
                if number is None
                else in_full(entry, shutil.get_terminal_size().columns)
            )
        except (Exception, Failure) as error:
            print(f"{entry.number}  {entry.title}: {error!r}", file=sys.stderr)
            return 1
        print(text, end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    program(main)
