"""Ready answers: the reply line to a GET line, until the key changes or goes.

Sans-I/O: knows nothing of sockets, of RSA or of what lines carry. Under an honestly made key, one
text has one line. So when a GET line comes again, its reply needs no opening and no sealing: one
look-up is enough.

All answers together have a bound, and no session can take another's part of it. The bound is
divided among the sessions. A session may borrow what others do not use. When a session below its
part needs room, some other session is above its own, and that one gives back. Parts are powers of
two, so such a session is found at once: sessions are sorted by the number of bits of their charge,
and one with the most bits is above its part.
"""

#: Octets charged for a ready answer besides its two lines and its key: three string headers, and a
#: place in two hash tables that are half empty.
REMEMBERED = 256
#: Octets charged for the first answer of a session besides. The two tables have eight places even
#: for one answer, and the account has an entry for each session with answers.
TABLES = 384
#: The most that one session may remember, in octets: some 450 answers of one block. So to forget
#: them all takes 50 µs at most.
SHARE = 192 * 1024


class Memory:
    """The account of all ready answers, and the share of each session. Sizes are in octets."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self.freed = 0  # octets given back; the store reads and resets this
        self.sessions = 0
        # By the number of bits of the charge, and by `id`.
        self._levels: list[dict[int, Answers]] = [{} for _ in range(SHARE.bit_length() + 1)]

    def part(self) -> int:
        """The part of each session, a power of two. A session charged that much is over it."""
        return 1 << min(SHARE, self.capacity // max(1, self.sessions)).bit_length() >> 1

    def has_room(self, octets: int) -> bool:
        """Whether there is room for this many octets more."""
        return self.used + octets <= self.capacity

    def make_room(self) -> None:
        """Has a session with the most forget everything. Call it if one is over its part."""
        most = next(filter(None, reversed(self._levels)))
        next(iter(most.values())).clear()

    def charge(self, answers: "Answers", octets: int) -> None:
        """A session remembers this many octets more, or less."""
        before, after = answers.charged, answers.charged + octets
        answers.charged = after
        self.used += octets
        self.freed += max(0, -octets)
        if before.bit_length() != after.bit_length():
            self._levels[before.bit_length()].pop(id(answers), None)
            if after:
                self._levels[after.bit_length()][id(answers)] = answers


class Answers(dict[bytes, bytes]):
    """The ready answers of one session: GET line -> reply line."""

    __slots__ = ("_lines", "_memory", "charged")

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._memory = memory
        self._lines: dict[str, bytes] | None = None  # the way back: key -> its GET line
        self.charged = 0

    def keep(self, key: str, line: bytes, reply: bytes) -> None:
        """Remembers that `reply` answers `line`, which asks for `key`, if there is room."""
        self.forget(key)  # under a dishonest RSA key, one text may have two lines
        memory = self._memory
        octets, part = cost(key, line, reply), memory.part()
        if TABLES + octets >= part:
            return
        # A session below its part never has to give back. One above it can only use free room.
        if self.charged + octets >= (SHARE if memory.has_room(octets) else part):
            self.clear()
        if self._lines is None:  # most sessions never need one
            self._lines = {}
            octets += TABLES
        if not memory.has_room(octets):
            memory.make_room()  # this one is below its part, so another is above its own
        self[line] = reply
        self._lines[key] = line
        memory.charge(self, octets)

    def forget(self, key: str) -> None:
        """Drops the answer: the value under `key` changes or goes."""
        line = self._lines.pop(key, None) if self._lines else None
        if line is not None:
            self._memory.charge(self, -cost(key, line, self.pop(line)))
            if not self:
                self.clear()  # the tables go, too

    def clear(self) -> None:
        """Forgets everything."""
        super().clear()
        self._lines = None
        self._memory.charge(self, -self.charged)

    def copy_all(self) -> None:
        """Copies everything to other memory, as `Table.copy_bucket` does."""
        if self._lines is None:
            return
        found = [
            (key.encode("ascii").decode("ascii"), bytes(memoryview(line)), self[line])
            for key, line in self._lines.items()
        ]
        super().clear()
        self._lines = {}
        for key, line, reply in found:
            self[line] = bytes(memoryview(reply))
            self._lines[key] = line


def cost(key: str, line: bytes, reply: bytes) -> int:
    """What a ready answer is charged, in octets."""
    return REMEMBERED + len(key) + len(line) + len(reply)
