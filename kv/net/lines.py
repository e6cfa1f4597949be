"""Octets in, lines out. Sans-I/O: knows neither sockets nor what a line means.

What is wanted:

- `feed` takes octets, wherever they were cut (1). `next` gives an iterator of complete lines
  without LF. A line that is not taken from the iterator stays there.
- At most one `feed` and one incomplete line are kept (2). A line that is too long is noticed at
  once, and reported after the lines before it.
- The work is O(n) in the octets fed. A `bytearray` collects an incomplete line: appending to it is
  amortised O(1) an octet. Only new octets are searched for LF, because the old ones have none.

How: one `split` cuts BATCH lines, which costs a fraction of cutting them off one by one. The octets
behind them wait uncut, and are copied once for each BATCH lines.
"""

from collections.abc import Iterator
from copy import copy
from operator import length_hint

#: Lines cut at a time. To cut a whole feed at once would make many small objects, which take far
#: more memory than the octets.
BATCH = 64


class Lines:
    """The lines in what one peer sends. A line, its LF included, has at most `size` octets."""

    __slots__ = ("_cut", "_lines", "_longest", "_partial", "rest", "too_long")

    def __init__(self, size: int) -> None:
        self._longest = size - 1  # without LF
        self._partial: bytes | bytearray = b""  # an incomplete line, if not empty a bytearray
        self.rest = b""  # octets with lines that are not cut yet: empty, or they have an LF
        self._lines: Iterator[bytes] = iter(())  # lines that are cut and not taken
        self._cut = 0
        self.too_long = False  # a line that is too long follows the complete lines

    def feed(self, data: bytes) -> Iterator[bytes] | None:
        """Adds at least one octet. Call it only when no line is `waiting`.

        Returns what `next` would return, or None if there is no complete line.
        """
        if self._partial:
            self._partial += data
            if b"\n" not in data:
                self.too_long = len(self._partial) > self._longest
                return None
            data = bytes(self._partial)
            self._partial = b""
        lines = data.split(b"\n", BATCH)
        rest = lines.pop()
        if rest:
            if b"\n" in rest:
                self.rest = rest
            else:
                self._partial = bytearray(rest)
                self.too_long = len(rest) > self._longest
        if len(data) > self._longest and lines:
            self._check(lines)
        if not lines:
            return None
        self._cut += len(lines)
        self._lines = cut = iter(lines)
        return cut

    def _check(self, lines: list[bytes]) -> None:
        """Removes the first line that is too long, and everything behind it."""
        if max(map(len, lines)) > self._longest:
            number = next(n for n, line in enumerate(lines) if len(line) > self._longest)
            del lines[number:]
            self.rest = self._partial = b""
            self.too_long = True

    def next(self) -> Iterator[bytes]:
        """Up to BATCH complete lines, in order. Lines that are not taken from it stay.

        There are none if the next one is too long.
        """
        if self.rest and not length_hint(self._lines):
            rest, self.rest = self.rest, b""
            return self.feed(rest) or self._lines
        return self._lines

    @property
    def waiting(self) -> bool:
        """Whether there is a complete line."""
        return length_hint(self._lines) > 0 or self.rest != b""

    @property
    def more(self) -> bool:
        """Whether there is anything to tell: a complete line, or that one is too long."""
        return self.waiting or self.too_long

    @property
    def octets(self) -> tuple[int, int]:
        """Octets kept: of an incomplete line, and of complete lines with their LFs."""
        cut = list(copy(self._lines))
        return len(self._partial), sum(map(len, cut)) + len(cut) + len(self.rest)

    @property
    def taken(self) -> int:
        """How many lines have been taken."""
        return self._cut - length_hint(self._lines)

    def clear(self) -> None:
        """Forgets every octet that was not taken. The iterator that `next` gave ends."""
        self._cut = self.taken
        for _ in self._lines:  # whoever has closed while taking lines gets no more of them
            pass
        self.rest = self._partial = b""
        self.too_long = False
