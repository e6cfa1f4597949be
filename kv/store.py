"""Sessions and their data.

Sans-I/O: knows nothing of sockets, of RSA or of the protocol's words. A session's data lives
exactly as long as the session; nothing here outlives `Store.end`.
"""

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Session:
    """What one connected client has stored."""

    client_id: str
    values: dict[str, str] = field(default_factory=dict)


class Store:
    """All sessions, by client id. A client id belongs to one session at a time."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, client_id: str) -> Session | None:
        """A new, empty session; None if the id is in use."""
        if client_id in self._sessions:
            return None
        session = self._sessions[client_id] = Session(client_id)
        return session

    def end(self, session: Session) -> None:
        """Forgets the session and its data; the id is free at once."""
        del self._sessions[session.client_id]
