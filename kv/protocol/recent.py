"""A memory of the results of arithmetic, bounded in octets.

Sans-I/O. Under one key, one text always has the same line, so a result need not be computed again.
Each conversation has its own memory. If sessions shared one, a client could learn by timing what
another has said.
"""

from typing import TypeVar

K = TypeVar("K", str, bytes)
V = TypeVar("V", str, bytes)

#: Octets charged for an entry besides its two texts: their headers, and a place in a hash table.
ENTRY = 192
#: Octets that one memory may take: about 3,000 lines of one block.
CAPACITY = 1024 * 1024


class Recent(dict[K, V]):
    """The latest results. When it is full, it is emptied: the simplest rule."""

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
