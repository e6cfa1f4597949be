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

import kv.connection
import kv.net.lifecycle
import kv.server
from kv.net import tcp
from kv.net.listener import RETRY
from kv.protocol.ready import REMEMBERED, TABLES
from kv.protocol.store import ENTRY, SESSION

from .kernel import Failure
from .model import meaning_of
from .sockets import Socket, failure, readable, unacknowledged
from .watched import WatchedConnection, WatchedStream, WatchedTransport

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
        self.mistakes: list[Exception] = []  # made and not yet logged
        self.short = [0, 0]  # how many a stop cut short: at least, and at the most
        self._queued: list[Socket] = []  # who waited to be accepted when the stop began
        self._work = [-1, 0, 0, 0]  # turn, units of work in it; messages, reads beyond its budget
        self._opening = 0  # units of work that it took to open what was read last
        self._account = (-1, 0)  # messages handled and connections ended, when it was last added up

    def between_turns(self) -> None:
        """Checks everything; called by the selector before it sleeps."""
        for connection in list(self.connections):
            connection.check()
        if self.mistakes:
            raise Failure(f"{self.mistakes} are not logged")
        unsent = sum(connection.stream.unsent for connection in self.connections)
        extra = sum(connection.extra for connection in self.connections)
        most = self.settings.unsent + len(self.connections) * self.limits.line_size + extra
        if unsent > most:
            raise Failure(f"{unsent} octets of replies are kept")
        self._check_sessions()
        self._check_listeners()

    def begins_work(self, allowed: int) -> None:
        """A turn's work is bounded in total: nobody is allowed more than what is left of it.

        If nothing is left when the queue's part of the turn begins, one message is served. What is
        allowed was decided before the lines were read and opened.
        """
        done, beyond = self._this_turn() - self._opening, self._work[2]
        left = self.settings.budget - done
        if allowed > max(1, left) or (left <= 0 and beyond):
            raise Failure(f"{allowed} units of work more in a turn in which {done} are done")
        self._work[2] += left <= 0

    def begins_opening(self) -> None:
        """To open what was read is work: once there is none left of this turn, one may do it."""
        self._opening = 0
        if self._this_turn() >= self.settings.budget:
            self._work[3] += 1
            if self._work[3] > 1:
                raise Failure(
                    f"octets are opened in a turn in which {self._work[1]} units are done"
                )

    def opened(self, done: int) -> None:
        """To open what was read took so many units of work."""
        self._opening = done
        self._work[1] += done

    def worked(self, done: int) -> None:
        """So many units of work were done."""
        self._opening = 0
        self._work[1] += done

    def _this_turn(self) -> int:
        """The units of work done in this turn."""
        if self._work[0] != self.kernel.selector.turns:
            self._work = [self.kernel.selector.turns, 0, 0, 0]
            self._opening = 0
        return self._work[1]

    def gone(self, connection: WatchedConnection) -> None:
        """A connection was closed: had it got everything, or was it cut short by the stop?"""
        if not self.stopping:
            return
        sim, client = connection.sim, connection.client
        told = self.kernel.dice.tells
        lost = sim.given - sim.delivered if told else 0
        unsent = connection.unsent
        if connection.tls is not None and lost + unsent <= connection.tls.farewell:
            lost = unsent = 0  # whoever lacks close_notify alone lacks no reply
        unanswered = client.handled < connection.owed_at_stop and not connection.ended
        must = bool(lost or unsent or unanswered)
        may = must or not told or not connection.ended
        self.short[0] += must
        self.short[1] += may
        if must:
            self.kernel.say(client.name, f"is cut short: {lost} lost, {unsent} unsent")

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
            ) + TABLES * sum(1 for session in store.sessions.values() if session.answers)
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
        if count > limit and not self.stopping:  # a stop serves all who wait (46)
            raise Failure(f"{count} connections, and the limit is {limit}")
        for listening in self.world.listening:
            watched = listening.fd in self.kernel.selector.registered
            failed_at = self.kernel.selector.failed_at.get(listening.fd, 0)
            since = self.kernel.now - max(listening.refused_at, failed_at)
            if listening.fd < 0 or self.stopping:
                continue
            if watched and (count == limit or since < RETRY - self.tolerance):
                raise Failure("a listener is watched that cannot accept")
            if not watched and count < limit and since > RETRY + self.tolerance:
                raise Failure("a listener is not watched that can accept")

    def stop(self) -> None:
        """Notes what has arrived, all of which is to be answered."""
        self.stopping = self.kernel.bound_to_finish = True
        self._queued = [sock for listening in self.world.listening for sock in listening.queue]
        for connection in self.connections:
            client, sim = connection.client, connection.sim
            arrived = sim.taken + len(sim.unread)
            if connection.ended or sim.dead or len(sim.unread) > self.limits.linger_size:
                continue
            arrived = connection.text_in(arrived)
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
        for sock in self._queued:
            if not sock.connected:  # refused, or already dead
                self.short[0] += sock.was_alive
                self.short[1] += 1
        least, most = self.short
        if not least <= self.world.server.cut_short <= most:
            said = self.world.server.cut_short
            raise Failure(f"{said} are said to be cut short, and {least} to {most} were")
        for client in self.world.clients:
            if client.disturbed or (client.socket.fd == -1 and not client.socket.closed):
                continue
            if client.tls is not None and client.ended and client.heard_octets:
                if not client.tls.their_end:
                    raise Failure(f"{client.name} hears FIN, and no close_notify before it")
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
            mock.patch.object(kv.connection, "Stream", WatchedStream),
            mock.patch.object(kv.net.lifecycle, "Transport", WatchedTransport),
            mock.patch.object(tcp, "unacknowledged", unacknowledged),
            mock.patch.object(tcp, "failure", failure),
            mock.patch.object(tcp, "readable", readable),
            self.world.signals.in_place(),
        ):
            yield
