"""Sessions and their data, within a bound on memory.

Sans-I/O: knows nothing of sockets, of RSA or of the protocol's words. A session's data lives
exactly as long as the session, until `Store.end`.

Three classes, three questions. `Store`: which sessions are there, and how much memory may they take
together? `Session`: what has this client stored? `Table`: how can a mapping with a million entries
never make the loop pause? Read `Table` as a `dict`, and its own module last.

The account. An entry costs more memory than its octets: two string headers, and a place in a hash
table that is half empty. A limit on octets alone would let a million empty values under four-octet
keys take 100 MB, and count 4. So each entry is charged its octets and a fixed ENTRY. Each session
is charged its id and a fixed SESSION. Both were measured on CPython, so that the process grows by
no more than the account says.

Giving back. Freed memory often cannot serve texts of another size, because texts that stay pin it
(see `Table`). So each time a sixteenth of the capacity was freed, the store copies everything that
is left, one bucket with each text that comes. That is much faster than peers can fill the gaps.

To free a million strings takes a tenth of a second. So a large session that has ended is freed a
few buckets at a time: with each text that comes, and by `sweep`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from kv.protocol.ready import Answers, Memory
from kv.protocol.table import Table

#: Octets charged for an entry besides its key and value.
ENTRY = 192
#: Octets charged for a session besides its client id.
SESSION = 640
#: Buckets to free at a time, which takes about 100 µs.
SWEEP = 64


@dataclass(slots=True, eq=False)
class Session:
    """What one connected client has stored, and the answers that are ready for it.

    A ready answer never outlives its value or its session.
    """

    store: "Store"
    client_id: str
    charged: int  # octets of the store's account, for this session and all its data
    values: Table = field(default_factory=Table)
    pending: str = ""  # the key of a PUT without its value yet; a key is never empty
    answers: Answers = field(init=False)

    def __post_init__(self) -> None:
        self.answers = Answers(self.store.memory)

    def put(self, key: str, value: str) -> bool:
        """Stores `value`. If there is no room, changes nothing and returns False.

        Each session has a limit of its own, too, so that no client can take all the room.
        """
        old = self.values.get(key)
        cost = len(value) - len(old) if old is not None else ENTRY + len(key) + len(value)
        store = self.store
        if cost > 0 and (store.used + cost > store.capacity or self.charged + cost > store.share):
            return False
        self._charge(cost)
        self.values[key] = value
        self.answers.forget(key)
        if old is not None:
            self.store.freed += ENTRY // 2 + len(old)
        self.store.tidy()
        return True

    def delete(self, key: str) -> None:
        """Forgets `key`, whether or not it is there."""
        value = self.values.pop(key, None)
        if value is None:
            return
        self._charge(-(ENTRY + len(key) + len(value)))
        self.answers.forget(key)

    def remember(self, key: str, line: bytes, reply: bytes) -> None:
        """Remembers that `line` asks for `key`, and that `reply` answers it."""
        self.answers.keep(key, line, reply)
        self.store.tidy()

    def await_value(self, key: str) -> None:
        """Keeps the key of a PUT until `take_pending`."""
        self.pending = key
        self._charge(len(key))

    def take_pending(self) -> str:
        """Returns the key that was kept, and forgets it."""
        key, self.pending = self.pending, ""
        self._charge(-len(key))
        return key

    def _charge(self, octets: int) -> None:
        self.charged += octets
        self.store.used += octets
        self.store.freed += max(0, -octets)


class Store:
    """All sessions, by client id. A client id belongs to one session at a time.

    `capacity` and `used` are in octets of the account. When the account is full, values are
    refused. Sessions never are: the server limits their number. One session may take `share` octets
    of the account, or all of it if `share` is None. Ready answers may take another eighth of
    `capacity`.
    """

    def __init__(self, capacity: int = 256 * 1024 * 1024, share: int | None = None) -> None:
        self.capacity = capacity
        self.share = capacity if share is None else share
        self.used = 0
        self.memory = Memory(capacity // 8)
        self.freed = 0  # octets given back since the last copying began
        self._copying: Iterator[None] = iter(())
        self._ended: list[Table] = []  # of large sessions, freed a part at a time
        self.sessions: dict[str, Session] = {}

    @property
    def remembered(self) -> int:
        """The charge for all ready answers, in octets."""
        return self.memory.used

    def __len__(self) -> int:
        return len(self.sessions)

    def begin(self, client_id: str) -> Session | None:
        """A new, empty session. None if the id is in use."""
        if client_id in self.sessions:
            return None
        cost = SESSION + len(client_id)
        session = self.sessions[client_id] = Session(self, client_id, cost)
        self.used += cost
        self.memory.sessions += 1
        return session

    def end(self, session: Session) -> None:
        """Ends a session. Its id and its part of the account are free at once."""
        session.answers.clear()
        self.memory.sessions -= 1
        if session.values.buckets > SWEEP:
            self._ended.append(session.values)
        session.values = Table()
        del self.sessions[session.client_id]
        self.used -= session.charged
        self.freed += session.charged

    def sweep(self, buckets: int = SWEEP) -> bool:
        """Frees this many buckets of ended sessions. Whether there are more."""
        while self._ended and buckets:
            buckets -= 1
            self._ended[-1].drop_bucket()
            if not self._ended[-1].buckets:
                self._ended.pop()
        return bool(self._ended)

    def tidy(self) -> None:
        """Frees one more bucket, and copies one, if there are any to free or to copy."""
        if self._ended:
            self.sweep(1)
        for _ in self._copying:
            return
        if self.freed + self.memory.freed > self.capacity // 16:
            self.freed = self.memory.freed = 0
            self._copying = self._copy()

    def _copy(self) -> Iterator[None]:
        """Copies all values and all ready answers, a part at a time."""
        for client_id in list(self.sessions):
            session = self.sessions.get(client_id)
            if session is None:  # it has ended meanwhile
                continue
            session.answers.copy_all()
            yield
            number = 0
            while number < session.values.buckets:  # there may be fewer each time
                session.values.copy_bucket(number)
                number += 1
                yield
