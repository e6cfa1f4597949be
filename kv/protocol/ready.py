"""Ready answers: the reply line to a GET line, until the key changes or goes.

Sans-I/O: knows nothing of sockets, of RSA or of what lines carry. Under an honestly made key one
text has one line, so a GET line that was answered with a value needs neither opening nor sealing
when it comes again: one look-up is the whole message.

All that is remembered together has a bound, and no session can take remembering away from another.
The bound is divided among the sessions there are; what is not used may be borrowed. When a session
that has less than its part needs room, there must be one that has more, and that one gives back.
Parts are powers of two, so that one with more than its part is found at once: sessions are kept by
the number of bits of what they are charged, and whoever has the most bits has more than its part.
"""

#: Octets charged for a ready answer besides its two lines and its key: three string headers and a
#: place in two hash tables that are half empty.
REMEMBERED = 256
#: Octets charged for the first answer of a session besides: the two tables have eight places even
#: for one, and the account here has an entry for whoever remembers anything.
TABLES = 384
#: The most that one session may remember, in octets, however few others there are: some 450
#: answers of one block. So to forget all that one session remembers takes some 50 µs at the most.
SHARE = 192 * 1024


class Memory:
    """The account of all that is remembered, and who remembers how much. Sizes are in octets."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self.freed = 0  # given back since somebody last set it to 0
        self.sessions = 0
        # By the number of bits of what they are charged, and by their ids.
        self._levels: list[dict[int, Answers]] = [{} for _ in range(SHARE.bit_length() + 1)]

    def part(self) -> int:
        """Each session's part, a power of two: who is charged as much or more is over it."""
        return 1 << min(SHARE, self.capacity // max(1, self.sessions)).bit_length() >> 1

    def has_room(self, octets: int) -> bool:
        """Whether there is room for so many octets."""
        return self.used + octets <= self.capacity

    def make_room(self) -> None:
        """Makes one that has most forget everything; to be called if one is over its part."""
        most = next(filter(None, reversed(self._levels)))
        next(iter(most.values())).clear()

    def charge(self, answers: "Answers", octets: int) -> None:
        """A session remembers so many octets more, or less."""
        before, after = answers.charged, answers.charged + octets
        answers.charged = after
        self.used += octets
        self.freed += max(0, -octets)
        if before.bit_length() != after.bit_length():
            self._levels[before.bit_length()].pop(id(answers), None)
            if after:
                self._levels[after.bit_length()][id(answers)] = answers


class Answers(dict[bytes, bytes]):
    """One session's: GET line -> reply line."""

    __slots__ = ("_lines", "_memory", "charged")

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._memory = memory
        self._lines: dict[str, bytes] | None = None  # the way back: key -> its GET line
        self.charged = 0

    def keep(self, key: str, line: bytes, reply: bytes) -> None:
        """Remembers that `line`, which asks for `key`, is answered with `reply`, if it may."""
        self.forget(key)  # a dishonestly made key may have two lines for one text
        memory = self._memory
        octets, part = cost(key, line, reply), memory.part()
        if TABLES + octets >= part:
            return
        # Who is not over its part is never told to give back; who is can only have what is free.
        if self.charged + octets >= (SHARE if memory.has_room(octets) else part):
            self.clear()
        if self._lines is None:  # most sessions never need one
            self._lines = {}
            octets += TABLES
        if not memory.has_room(octets):
            memory.make_room()  # all have less than their parts, or one is over its own
        self[line] = reply
        self._lines[key] = line
        memory.charge(self, octets)

    def forget(self, key: str) -> None:
        """The value under `key` changes or goes."""
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
        """Moves everything to where the allocator has room, as `Table.copy_bucket` does."""
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
