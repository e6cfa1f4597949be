"""Sessions and their data, within a bound on memory.

Sans-I/O: knows nothing of sockets, of RSA or of the protocol's words. A session's data lives
exactly as long as the session; nothing here outlives `Store.end`.

The account. What is stored costs more than its octets: two string headers, a place in a hash
table that is half empty and twice there while it grows. A limit that counted octets alone would
let a million empty values under four-octet keys take 100 MB and call it 4. So each entry is
charged its octets and a fixed ENTRY, each session its id and a fixed SESSION, both measured on
CPython so that the process grows by no more than the account says.
"""

from dataclasses import dataclass, field

#: Octets charged for an entry besides its key and value.
ENTRY = 192
#: Octets charged for a session besides its client id.
SESSION = 512


@dataclass(slots=True, eq=False)
class Session:
    """What one connected client has stored."""

    store: "Store"
    client_id: str
    charged: int  # to the store's account, for this session and all it holds
    values: dict[str, str] = field(default_factory=dict)
    most: int = 0  # entries since the table was last made anew
    pending: str = ""  # the key of a PUT whose value is awaited

    def get(self, key: str) -> str | None:
        """The value under `key`."""
        return self.values.get(key)

    def put(self, key: str, value: str) -> bool:
        """Stores `value`; False, and nothing changes, if the account has no room for it."""
        old = self.values.get(key)
        cost = len(value) - len(old) if old is not None else ENTRY + len(key) + len(value)
        if cost > 0 and self.store.used + cost > self.store.capacity:
            return False
        self._charge(cost)
        self.values[key] = value
        self.most = max(self.most, len(self.values))
        return True

    def delete(self, key: str) -> None:
        """Forgets `key`, whether or not it is there."""
        value = self.values.pop(key, None)
        if value is not None:
            self._charge(-(ENTRY + len(key) + len(value)))
            # A dict does not give back its table when entries go: a session could fill the
            # store, empty it, and keep the table for nothing. A copy has a table that fits.
            if self.most > 64 and len(self.values) < self.most // 4:
                self.values = dict(self.values)
                self.most = len(self.values)

    def await_value(self, key: str) -> None:
        """Keeps the key of a PUT until `take_pending`."""
        self.pending = key
        self._charge(len(key))

    def take_pending(self) -> str:
        """The key that was kept, which is forgotten."""
        key, self.pending = self.pending, ""
        self._charge(-len(key))
        return key

    def _charge(self, octets: int) -> None:
        self.charged += octets
        self.store.used += octets


class Store:
    """All sessions, by client id. A client id belongs to one session at a time.

    `capacity` and `used` are in octets of the account. Sessions are always admitted (how many
    there can be is the server's limit); it is values that are refused when the account is full.
    """

    def __init__(self, capacity: int = 256 * 1024 * 1024) -> None:
        self.capacity = capacity
        self.used = 0
        self.sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self.sessions)

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
        del self.sessions[session.client_id]
        self.used -= session.charged
