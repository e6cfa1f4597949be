"""The invariants of one connection.

The server's own `Connection` and `Stream` are watched by subclasses that add nothing but checks:
between turns, when a message is about to be handled, when a conversation ends, when a socket is
closed.

An end needs a reason. Whenever the server ends a conversation or closes a socket, there must be
the event that entitles it to: a violation, DISCONNECT, the end of the stream, an error that the
kernel reported, a deadline that has passed, a bound that was reached. And the other way round: no
deadline may pass without its end.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import kv.server
from kv.net.stream import Phase, Stream

from .clients import Client
from .kernel import READ, WRITE, Failure
from .model import meaning_of, reply_line
from .sockets import Socket

if TYPE_CHECKING:
    from .watch import Watch

LONGEST_REPLY = 511  # octets, LF included


class WatchedConnection(kv.server.Connection):
    """A connection, its client, and what is known about it from outside."""

    watch: ClassVar["Watch"]  # of the world that runs now

    def __init__(self, server: kv.server.Server, sock: Any, address: Any) -> None:
        self.sim: Socket = sock
        self.client: Client = sock.peer
        self.kernel = self.sim.kernel
        self.accepted_at = self.last_message = self.phase_since = self.kernel.now
        self.phase = Phase.OPEN
        self.work_done = (-1, 0)  # turn, and the units of work in it
        self.owed_at_stop = 0  # how many lines have to be handled before the stop may close it
        super().__init__(server, sock, address)
        self.watch.connections[self] = None

    # Seen from outside

    @property
    def unsent(self) -> int:
        """Octets of replies that are due and that `send` has not taken."""
        return len(self.client.expected) - self.sim.given

    @property
    def has_line(self) -> bool:
        """Whether a complete line has been received and not been handled."""
        client = self.client
        if client.handled >= len(client.lines) or self.phase is not Phase.OPEN:
            return False
        return self.buffered > len(client.lines[client.handled])

    @property
    def buffered(self) -> int:
        """Octets received and not handled."""
        return self.sim.taken - self.client.handled_octets

    @property
    def unhampered(self) -> bool:
        """Whether the client has taken so much of its replies that nothing may hold it up."""
        return self.unsent <= self.watch.limits.low_water

    def check(self) -> None:
        """The invariants of one connection, between two turns."""
        stream, client, limits = self.stream, self.client, self.watch.limits
        phase, unsent = stream.phase, self.unsent
        if phase is not self.phase:
            self.phase, self.phase_since = phase, self.kernel.now
        if self.watch.stopping and self.conversation.state.name == "CLOSED":
            self.watch.world.model.end(client.story)  # by a deadline, while it was being finished
        if self.conversation.state.name != client.story.state:
            raise Failure(f"{client.name}: is {self.conversation.state}, not {client.story.state}")
        if unsent != stream.unsent:
            raise Failure(f"{client.name}: {stream.unsent} octets unsent, not {unsent}")
        if unsent > limits.high_water + LONGEST_REPLY:
            raise Failure(f"{client.name}: {unsent} octets of replies are kept")
        if phase is Phase.OPEN:
            bound = limits.line_size + limits.read_size if self.has_line else limits.line_size - 1
            if self.buffered > bound:
                raise Failure(f"{client.name}: {self.buffered} octets of input are kept")
        self._check_interest(unsent)
        self._check_deadlines(unsent)

    def _check_interest(self, unsent: int) -> None:
        """Exactly what would be acted on: less is a hang, more spins."""
        interest, _ = self.kernel.selector.registered.get(self.sim.fd, (0, None))
        if (interest & WRITE > 0) != (unsent > 0):
            raise Failure(f"{self.client.name}: {unsent} octets unsent, interest {interest}")
        nothing_to_read = self.sim.end_seen or self.has_line
        if interest & READ:
            if nothing_to_read:
                raise Failure(f"{self.client.name}: is read from for nothing")
        elif not nothing_to_read and (self.unhampered or self.phase is not Phase.OPEN):
            raise Failure(f"{self.client.name}: is not read from")

    def _check_deadlines(self, unsent: int) -> None:
        watch, sim = self.watch, self.sim
        now = self.kernel.now - watch.tolerance
        if self.phase is Phase.OPEN:
            late = now > self._deadline_of_session()
        elif self.phase is Phase.LINGERING:
            late = now > self.phase_since + watch.limits.linger_timeout
            discarded = sim.taken - sim.taken_before_shutdown
            if discarded > watch.limits.linger_size + watch.limits.read_size:
                raise Failure(f"{self.client.name}: too much is read to be thrown away")
        else:
            late = False
        if late or (unsent and now > sim.progress + watch.limits.stall_timeout):
            raise Failure(f"{self.client.name}: a deadline has passed, and it is still there")

    def _deadline_of_session(self) -> float:
        """When the conversation has to be over: without a session, or without a message."""
        settings = self.watch.settings
        if self.client.story.in_session:
            return self.last_message + (settings.idle_timeout or float("inf"))
        return self.accepted_at + settings.handshake_timeout

    # What the server is about to do

    def line_received(self, line: bytes) -> int:
        """Checks that it is the next line that was sent, and tells the model."""
        client, world = self.client, self.watch.world
        self._must_be_open()
        if client.handled >= len(client.lines) or line != client.lines[client.handled]:
            raise Failure(f"{client.name}: {line!r} is handled, which is not what it sent next")
        turn, work = self.work_done
        if turn != self.kernel.selector.turns:
            work = 0
        elif work >= self.watch.limits.quantum and not self.watch.stopping:
            raise Failure(f"{client.name}: a message beyond the quantum ({work} units of work)")
        text = meaning_of(line)
        in_session = client.story.in_session
        reply = world.model.receive(client.story, text)
        if not self.unsent:
            self.sim.progress = self.kernel.now
        if reply is not None:
            client.expected += reply_line(reply) + b"\n"
            client.replies.append(reply)
        self.watch.messages += 1
        client.handled += 1
        client.handled_octets += len(line) + 1
        if in_session or client.story.in_session:
            self.last_message = self.kernel.now
        self.kernel.activity += 1
        if self.kernel.trace is not None:
            self.kernel.say(str(self.sim), f"{text!r:.40} is answered {reply!r:.40}")
        done = super().line_received(line)
        if done < 1:
            raise Failure("a message that is no work")
        self.work_done = self.kernel.selector.turns, work + done
        return done

    def line_too_long(self) -> None:
        """Checks that the line is."""
        self._must_be_open()
        client, size = self.client, self.watch.limits.line_size
        rest = client.lines[client.handled] if self.has_line else b"x" * self.buffered
        if len(rest) < size:
            raise Failure(f"{client.name}: a line of {len(rest)} octets is called too long")
        self.watch.world.model.end(client.story)
        super().line_too_long()

    def end_received(self) -> None:
        """Checks that the stream has ended, and that everything before that is handled."""
        self._must_be_open()
        if not self.sim.end_seen or self.sim.unread or self.has_line:
            raise Failure(f"{self.client.name}: its end is seen too soon")
        self.watch.world.model.end(self.client.story)
        super().end_received()

    def closed(self, error: Exception | None) -> None:
        """Checks that there is a reason. The last call."""
        if self not in self.watch.connections:
            raise Failure(f"{self.client.name}: is closed twice")
        self._needs_a_reason(error)
        self.watch.world.model.end(self.client.story)
        del self.watch.connections[self]
        super().closed(error)

    def polite_close(self) -> None:
        """Checks that there is a reason to end the conversation, if the model knows none."""
        story = self.client.story
        if story.state == "CLOSED":
            return
        if self.kernel.now + self.watch.tolerance >= self._deadline_of_session():
            self._disturbed("a deadline")
        elif not self.watch.stopping:
            raise Failure(f"{self.client.name}: its conversation is ended for no reason")
        elif self.client.handled < self.owed_at_stop:
            raise Failure(f"{self.client.name}: the stop forgot what it had sent")
        if not self.watch.stopping or self.conversation.state.name == "CLOSED":
            self.watch.world.model.end(story)

    def _needs_a_reason(self, error: Exception | None) -> None:
        sim, limits = self.sim, self.watch.limits
        now = self.kernel.now + self.watch.tolerance
        if sim.told:
            return self._disturbed("its connection was lost")
        if error is None:
            if sim.end_seen and not self.unsent:
                return None
            discarded = sim.taken - sim.taken_before_shutdown
            lingering = self.phase is Phase.LINGERING
            if lingering and now >= self.phase_since + limits.linger_timeout:
                return self._disturbed("it kept us waiting")
            if discarded >= limits.linger_size:
                return self._disturbed("it kept on sending")
        if self.watch.world.cut_short_at > now < sim.progress + limits.stall_timeout:
            raise Failure(f"{self.client.name}: its socket is closed for no reason: {error!r}")
        if not sim.reset_on_close:
            raise Failure(f"{self.client.name}: is aborted without RST")
        return self._disturbed("it stalled, or the stop cut it short")

    def _disturbed(self, why: str) -> None:
        self.client.disturbed = self.client.disturbed or why

    def _must_be_open(self) -> None:
        if self.stream.phase is not Phase.OPEN:
            raise Failure(f"{self.client.name}: a handler runs on a {self.stream.phase} stream")


class WatchedStream(Stream):
    """A stream whose readiness is not reported, and whose end not decided, after its end."""

    _owner: WatchedConnection

    def close(self) -> None:
        """Tells the watch."""
        if self.phase is Phase.OPEN:
            self._owner.polite_close()
        super().close()

    def _ready(self, events: int) -> None:
        if self.phase is Phase.CLOSED:
            raise Failure(f"{self._owner.client.name}: readiness is reported to a closed stream")
        super()._ready(events)
