"""Draws the grid: `python -m tests.readme` leaves it beside this file, for the front page."""

from html import escape

from .grid import LEGEND, STEPS, expected
from .server import HERE
from .troupe import TROUPE

PATH = HERE / "grid.svg"

NAMES, COLUMN, ROW, HEAD = 120, 76, 22, 40
#: Of a cell: green, or red; white text is to be read on both, and they on white and on black.
SURVIVES, FAILS, GREY = "#1a7f37", "#b3261e", "#8b949e"


def text(x: float, y: float, words: str, anchor: str = "middle", colour: str = "white") -> str:
    """Words at a place."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def draw() -> str:
    """The grid as SVG."""
    width, height = NAMES + COLUMN * len(STEPS), HEAD + ROW * len(TROUPE)
    font = 'font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {font}>',
        "<title>Nine steps of one server, and what becomes of each when peers try it</title>",
    ]
    for column, step in enumerate(STEPS):
        middle = NAMES + COLUMN * (column + 0.5)
        parts.append(text(middle, 14, str(step.number), colour=GREY))
        parts.append(text(middle, 30, step.name, colour=GREY))
    for row, peer in enumerate(TROUPE):
        top = HEAD + ROW * row
        parts.append(text(NAMES - 8, top + 15, peer.name, "end", GREY))
        for column, step in enumerate(STEPS):
            word = expected(step)[peer.name]
            colour = SURVIVES if word == "ok" else FAILS
            left = NAMES + COLUMN * column
            parts.append(
                f'<g><title>{escape(LEGEND[word])}</title><rect x="{left + 1}" y="{top + 1}"'
                f' width="{COLUMN - 2}" height="{ROW - 2}" rx="3" fill="{colour}"/>'
                f"{text(left + COLUMN / 2, top + 15, word)}</g>"
            )
    return "\n".join([*parts, "</svg>", ""])
