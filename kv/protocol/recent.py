"""A memory of what arithmetic has given, bounded in octets.

Sans-I/O. One key gives one text one line, always, so a line that was sealed or opened once need
not be computed again. Only one's own conversation may use such a memory: what is shared between
sessions tells one of them, by timing, what another has said.
"""

from typing import TypeVar

K = TypeVar("K", str, bytes)
V = TypeVar("V", str, bytes)

#: Octets charged for an entry besides its two texts: their headers, and a place in a hash table.
ENTRY = 192
#: Octets that one memory may take: some 3,000 lines of one block.
CAPACITY = 1024 * 1024


class Recent(dict[K, V]):
    """What was computed lately. When it is full it begins anew, which costs nothing to decide."""

    __slots__ = ("charged",)

    def __init__(self) -> None:
        super().__init__()
        self.charged = 0

    def keep(self, given: K, result: V) -> V:
        """Remembers a result, and returns it."""
        cost = ENTRY + len(given) + len(result)
        if self.charged + cost > CAPACITY:
            self.clear()
            self.charged = 0
        self[given] = result
        self.charged += cost
        return result
