"""Sessions and their data, within a bound on memory.

Sans-I/O: knows nothing of sockets, of RSA or of the protocol's words. A session's data lives
exactly as long as the session; nothing here outlives `Store.end`.

The account. What is stored costs more than its octets: two string headers, a place in a hash
table that is half empty. A limit that counted octets alone would let a million empty values under
four-octet keys take 100 MB and call it 4. So each entry is charged its octets and a fixed ENTRY,
each session its id and a fixed SESSION, both measured on CPython so that the process grows by no
more than the account says.

Memory given back is of no use to texts of another size while texts that stay pin it (see `Table`).
So after each sixteenth of the capacity that was given back, everything that is still there is
copied, a bucket with each text that comes: much faster than peers can fill what they left behind.

And to free a million strings takes a tenth of a second, so a large session that has ended is not
forgotten at once but a few buckets at a time: with each text that comes, and by `sweep`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kv.protocol.table import Table

#: Octets charged for an entry besides its key and value.
ENTRY = 192
#: Octets charged for a session besides its client id.
SESSION = 640
#: Octets charged for a remembered line besides its own and those of what it stands for.
REMEMBERED = 320
#: Buckets to forget at a time, some 100 µs.
SWEEP = 64
#: What one session may remember, in octets, of lines opened, and as much of lines sealed: some
#: 300 of each.
SHARE = 128 * 1024

K = TypeVar("K")
V = TypeVar("V")


class Remembered(dict[K, V]):
    """Lines that one session remembers, charged to an account that all sessions share."""

    __slots__ = ("charged", "store")

    def __init__(self, store: "Store") -> None:
        super().__init__()
        self.store = store
        self.charged = 0

    def keep(self, key: K, value: V, octets: int) -> None:
        """Keeps an entry of so many octets; when the session's share is full, begins anew."""
        self.store.tidy()
        share = self.store.share()
        if self.charged + REMEMBERED + octets > share:
            self.clear()
        if REMEMBERED + octets <= share:
            self[key] = value
            self._charge(REMEMBERED + octets)

    def forget(self, key: K, octets: int) -> None:
        """Forgets an entry of so many octets."""
        del self[key]
        self._charge(-REMEMBERED - octets)

    def clear(self) -> None:
        """Forgets everything."""
        super().clear()
        self._charge(-self.charged)

    def _charge(self, octets: int) -> None:
        self.charged += octets
        self.store.remembered += octets
        self.store.freed += max(0, -octets)


@dataclass(slots=True, eq=False)
class Session:
    """What one connected client has stored, and lines of its that need not be computed again.

    `opened` has the commands in lines that this client has sent, `sealed` the lines that carry
    its values, by their keys. They never outlive the value or the session that they belong to.
    """

    store: "Store"
    client_id: str
    charged: int  # to the store's account, for this session and all it holds
    values: Table = field(default_factory=Table)
    pending: str = ""  # the key of a PUT whose value is awaited; a key is never empty
    opened: Remembered[bytes, Any] = field(init=False)
    sealed: Remembered[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.opened = Remembered(self.store)
        self.sealed = Remembered(self.store)

    def put(self, key: str, value: str) -> bool:
        """Stores `value`; False, and nothing changes, if the account has no room for it."""
        old = self.values.get(key)
        cost = len(value) - len(old) if old is not None else ENTRY + len(key) + len(value)
        if cost > 0 and self.store.used + cost > self.store.capacity:
            return False
        self._charge(cost)
        self.values[key] = value
        self._forget_sealed(key)
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
        self._forget_sealed(key)

    def await_value(self, key: str) -> None:
        """Keeps the key of a PUT until `take_pending`."""
        self.pending = key
        self._charge(len(key))

    def take_pending(self) -> str:
        """The key that was kept, which is forgotten."""
        key, self.pending = self.pending, ""
        self._charge(-len(key))
        return key

    def _forget_sealed(self, key: str) -> None:
        line = self.sealed.get(key)
        if line is not None:
            self.sealed.forget(key, len(line))

    def _charge(self, octets: int) -> None:
        self.charged += octets
        self.store.used += octets
        self.store.freed += max(0, -octets)


class Store:
    """All sessions, by client id. A client id belongs to one session at a time.

    `capacity` and `used` are in octets of the account. Sessions are always admitted (how many
    there can be is the server's limit); it is values that are refused when the account is full.
    Remembered lines may take an eighth of `capacity` besides.
    """

    def __init__(self, capacity: int = 256 * 1024 * 1024) -> None:
        self.capacity = capacity
        self.used = 0
        self.remembered = 0
        self.freed = 0  # octets given back since the last copying began
        self._copying: Iterator[None] = iter(())
        self._ended: list[Table] = []  # of large sessions, to be forgotten bit by bit
        self.sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self.sessions)

    def share(self) -> int:
        """What one session may remember now of each kind, in octets.

        An eighth of what is left: so something is always left for those who come later, however
        many sessions there are and whatever they do.
        """
        return min(SHARE, (self.capacity // 8 - self.remembered) // 8)

    def begin(self, client_id: str) -> Session | None:
        """A new, empty session; None if the id is in use."""
        if client_id in self.sessions:
            return None
        cost = SESSION + len(client_id)
        session = self.sessions[client_id] = Session(self, client_id, cost)
        self.used += cost
        return session

    def end(self, session: Session) -> None:
        """Forgets the session and its data; the id is free and the account credited at once."""
        session.opened.clear()
        session.sealed.clear()
        if session.values.buckets > SWEEP:
            self._ended.append(session.values)
        session.values = Table()
        del self.sessions[session.client_id]
        self.used -= session.charged
        self.freed += session.charged

    def sweep(self, buckets: int = SWEEP) -> bool:
        """Forgets so many buckets of what has ended; whether there is more."""
        while self._ended and buckets:
            buckets -= 1
            self._ended[-1].drop_bucket()
            if not self._ended[-1].buckets:
                self._ended.pop()
        return bool(self._ended)

    def tidy(self) -> None:
        """Forgets one more bucket, and copies one, if there are any to forget or to copy."""
        if self._ended:
            self.sweep(1)
        for _ in self._copying:
            return
        if self.freed > self.capacity // 16:
            self.freed = 0
            self._copying = self._copy()

    def _copy(self) -> Iterator[None]:
        """Copies all that is stored, and forgets all that is remembered, bit by bit."""
        for client_id in list(self.sessions):
            session = self.sessions.get(client_id)
            if session is None:  # it has ended meanwhile
                continue
            session.opened.clear()
            session.sealed.clear()
            number = 0
            while number < session.values.buckets:  # there may be fewer each time
                session.values.copy_bucket(number)
                number += 1
                yield
