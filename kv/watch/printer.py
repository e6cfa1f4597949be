"""A trace for people: a line on standard error for each event.

The lines are written as the log is: what standard error cannot take at once is dropped and counted.
"""

import logging
from contextlib import ExitStack

from kv.net.log import LogHandler
from kv.net.stdio import escaped
from kv.watch.events import Event
from kv.watch.figures import duration

lines = logging.getLogger("kv.watch.trace")

#: Columns of a line, and those before its text.
COLUMNS, INDENT = 100, 31
#: SGR parameters (ECMA-48, 8.3.117): colours for connections, readable on black and on white.
COLOURS = (36, 33, 35, 32, 34, 31)


class Printer:
    """Writes lines. `undo` gets the calls for the end. `colour` gives each connection its own."""

    def __init__(self, undo: ExitStack, colour: bool) -> None:
        self._colour = colour
        self._said = ("", "", "")  # the last line
        self._repeated = 0  # how often the last line was repeated
        handler = LogHandler(2)
        handler.setFormatter(logging.Formatter("%(message)s"))  # `_line` escapes, and colours
        lines.addHandler(handler)
        undo.callback(lines.removeHandler, handler)
        lines.propagate = False
        lines.setLevel(logging.INFO)

    def write(self, event: Event) -> None:
        """Writes an event's line. A line that repeats the last one is only counted."""
        if event.track == "loop" and event.verb != "sleep":
            return
        text = event.text
        if event.verb == "sleep":
            text = f"{duration(event.lasted or 0)}, {text}" if event.now["most"] else text
        said = (event.track, event.verb, text)
        if said == self._said:
            self._repeated += 1
            return
        if self._repeated:
            again = f"(the same {self._repeated} times more)"
            self._line(event.end, *self._said[:2], again)
        self._said, self._repeated = said, 0
        self._line(event.end, *said)

    def _line(self, now: float, who: str, verb: str, text: str) -> None:
        text = escaped(text)
        if len(text) > COLUMNS - INDENT:
            text = text[: COLUMNS - INDENT - 1] + "…"
        line = f"{now / 1e6:10.6f}  {who:8}  {verb:8} {text}".rstrip()
        if self._colour and who[0] == "#":
            line = f"\x1b[{COLOURS[int(who[1:]) % len(COLOURS)]}m{line}\x1b[m"
        lines.info("%s", line)
