"""The invariants: what must be true of the server at every step, whoever its clients are.

Everything is checked between turns, from outside: the kernel knows which octets `recv` gave and
`send` took, the clients know the lines that they sent, and the model the replies that are due. So
what the server's buffers hold, and what it must be interested in, follows without looking into
them. This file has the invariants of the whole; those of one connection are in `watched.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

import kv.server
from kv.net.listener import RETRY
from kv.net.stream import Phase
from kv.protocol.ready import REMEMBERED
from kv.protocol.store import ENTRY, SESSION

from .kernel import Failure
from .model import meaning_of
from .watched import WatchedConnection, WatchedStream

if TYPE_CHECKING:
    from .world import World

ROUNDING = 1e-6  # seconds: sums of floating-point numbers


class Watch:
    """One world's watch."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.kernel = world.kernel
        self.settings = world.settings
        self.limits = world.settings.stream
        #: Seconds that a turn's system calls may have taken.
        self.tolerance = 1000 * self.kernel.dice.cost + ROUNDING
        self.connections: dict[WatchedConnection, None] = {}
        self.stopping = False
        self.messages = 0  # handled
        self._had_to_move: list[tuple[WatchedConnection, int]] = []
        self._account = (-1, 0)  # messages handled and connections ended, when it was last added up

    def between_turns(self) -> None:
        """Checks everything; called by the selector before it sleeps."""
        for connection, handled in self._had_to_move:
            if connection.client.handled == handled and connection.stream.phase is Phase.OPEN:
                raise Failure(f"{connection.client.name}: a ready message was passed over")
        self._had_to_move = []
        for connection in self.connections:
            connection.check()
            if not self.stopping and connection.has_line and connection.unhampered:
                self._had_to_move.append((connection, connection.client.handled))
        self._check_sessions()
        self._check_listeners()

    def _check_sessions(self) -> None:
        store, model = self.world.store, self.world.model
        if list(store.sessions) != list(model.sessions):
            raise Failure(f"sessions {list(store.sessions)}, not {list(model.sessions)}")
        in_session = [c for c in self.connections if c.conversation.session is not None]
        if len(in_session) != len(store.sessions):
            raise Failure(f"{len(store.sessions)} sessions, {len(in_session)} conversations")
        state = (self.messages, len(self.connections))
        if state != self._account:
            self._account = state
            kept = sum(
                SESSION
                + len(session.client_id)
                + len(session.pending)
                + sum(ENTRY + len(key) + len(value) for key, value in session.values.items())
                for session in store.sessions.values()
            )
            lines = sum(
                REMEMBERED + len(str(meaning_of(line)).removeprefix("GET ")) + len(line + reply)
                for session in store.sessions.values()
                for line, reply in session.answers.items()
            )
            if lines != store.remembered or lines > store.capacity // 8:
                raise Failure(f"{store.remembered} octets charged for lines, {lines} kept")
            if not kept == store.used == model.used():
                raise Failure(f"{store.used} octets charged, {kept} kept, {model.used()} expected")
            for client_id, session in store.sessions.items():
                if session.values != model.sessions[client_id].values:
                    raise Failure(f"{client_id!r} has {session.values}")

    def _check_listeners(self) -> None:
        """Somebody who waits, and could be accepted, soon is; nobody is over the limit."""
        count, limit = len(self.world.server.connections), self.settings.max_connections
        if count > limit:
            raise Failure(f"{count} connections, and the limit is {limit}")
        for listening in self.world.listening:
            watched = listening.fd in self.kernel.selector.registered
            since = self.kernel.now - listening.refused_at
            if listening.fd < 0:
                continue
            if watched and (count == limit or since < RETRY - self.tolerance):
                raise Failure("a listener is watched that cannot accept")
            if not watched and count < limit and since > RETRY + self.tolerance:
                raise Failure("a listener is not watched that can accept")

    def stop(self) -> None:
        """Notes what has arrived, all of which is to be answered."""
        self.stopping = self.kernel.bound_to_finish = True
        for connection in self.connections:
            client, sim = connection.client, connection.sim
            arrived = sim.taken + len(sim.unread)
            if connection.phase is not Phase.OPEN or len(sim.unread) > self.limits.linger_size:
                continue
            octets, count = client.handled_octets, client.handled
            for line in client.lines[count:]:
                octets += len(line) + 1
                count += octets <= arrived
            connection.owed_at_stop = count

    def end(self) -> None:
        """Nothing is left of anybody."""
        store = self.world.store
        if self.connections or store.sessions or store.used or store.remembered:
            raise Failure(f"{len(self.connections)} connections, {store.used} octets are left")
        for client in self.world.clients:
            if client.disturbed or (client.socket.fd == -1 and not client.socket.closed):
                continue
            if client.heard_octets < len(client.expected):
                raise Failure(
                    f"{client.name}, which nothing disturbed, heard {client.heard_octets} of the"
                    f" {len(client.expected)} octets that it was owed"
                )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this lasts, the server makes watched connections and streams."""
        WatchedConnection.watch = self
        with (
            mock.patch.object(kv.server, "Connection", WatchedConnection),
            mock.patch.object(kv.server, "Stream", WatchedStream),
        ):
            yield
