"""Octets in, lines out. Sans-I/O: knows neither sockets nor what a line means.

What is wanted:

- `feed` takes octets however they were cut (1); `next` gives an iterator of complete lines without
  LF. What is not taken from the iterator stays there.
- No more than one `feed` and one incomplete line is ever kept (2). A line too long is noticed as
  soon as that is certain. Whoever takes lines hears of it after the lines before it.
- O(n) in the octets fed. An incomplete line is collected in a `bytearray`, to which appending is
  amortised O(1) an octet. Only what is new is searched for LF, as what is old has none.

How: one `split` cuts BATCH lines at a fraction of what cutting them off one by one costs. What is
behind them waits uncut, and is copied once for each BATCH lines.
"""

from collections.abc import Iterator
from copy import copy
from operator import length_hint

#: Lines cut at a time. Cutting all of a feed at once would make many small objects of it, which
#: take far more memory than the octets did.
BATCH = 64


class Lines:
    """The lines in what one peer sends; none, with its LF, has more than `size` octets."""

    __slots__ = ("_cut", "_lines", "_longest", "_partial", "rest", "too_long")

    def __init__(self, size: int) -> None:
        self._longest = size - 1  # without LF
        self._partial: bytes | bytearray = b""  # an incomplete line; a bytearray if there is one
        self.rest = b""  # lines that are not cut yet: empty, or there is an LF in it
        self._lines: Iterator[bytes] = iter(())  # cut, and not taken
        self._cut = 0
        self.too_long = False  # what follows the lines that are there is too long for a line

    def feed(self, data: bytes) -> Iterator[bytes] | None:
        """Adds octets, at least one; to be called when no line is `waiting`.

        Returns what `next` would, or None if there is no complete line.
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
        """Cuts what is too long off `lines`, and forgets all that is behind it."""
        if max(map(len, lines)) > self._longest:
            number = next(n for n, line in enumerate(lines) if len(line) > self._longest)
            del lines[number:]
            self.rest = self._partial = b""
            self.too_long = True

    def next(self) -> Iterator[bytes]:
        """Up to BATCH complete lines, in order; those that are not taken from it stay."""
        if self.rest and not length_hint(self._lines):
            rest, self.rest = self.rest, b""
            return self.feed(rest) or self._lines
        return self._lines

    @property
    def waiting(self) -> bool:
        """Whether there is a complete line."""
        return length_hint(self._lines) > 0 or self.rest != b""

    @property
    def octets(self) -> tuple[int, int]:
        """How many are kept: of an incomplete line, and of lines that wait, LFs included."""
        cut = list(copy(self._lines))
        return len(self._partial), sum(map(len, cut)) + len(cut) + len(self.rest)

    @property
    def taken(self) -> int:
        """How many lines were taken so far."""
        return self._cut - length_hint(self._lines)

    def clear(self) -> None:
        """Forgets everything that was not taken."""
        self._cut = self.taken
        self._lines = iter(())
        self.rest = self._partial = b""
        self.too_long = False
