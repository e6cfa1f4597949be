"""The invariants of one connection.

The server's own `Connection` and `Stream` are watched by subclasses that add nothing but checks:
between turns, when a message is about to be handled, when a conversation ends, when a socket is
closed. In some worlds they also raise, which stands for all mistakes that a server can have.

An end needs a reason. Whenever the server ends a conversation or closes a socket, there must be
the event that entitles it to: a violation, DISCONNECT, the end of the stream, an error that the
kernel reported, a deadline that has passed, a bound that was reached, a mistake. And the other way
round: no deadline may pass without its end.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import kv.connection
import kv.server
from kv.net import directions
from kv.net.directions import Deadline, Event, Incoming, Outgoing
from kv.net.owner import Stalled, TlsError
from kv.net.records import RECORD
from kv.net.stream import Stream
from kv.net.transport import Transport

from .clients import Client
from .kernel import READ, WRITE, Failure
from .model import LONGEST_MESSAGE, meaning_of, reply_line
from .sockets import Socket
from .tls import EXTRA, ServerTls

if TYPE_CHECKING:
    from .watch import Watch

LATE = 0.25  # seconds that a sleep may last too long
#: What a mistake in a server can raise. Some of it looks like the network's doing.
MISTAKES = (
    lambda: RuntimeError("a mistake"),
    lambda: MemoryError("a mistake"),
    lambda: OSError(errno.EMFILE, "a mistake"),
    lambda: BlockingIOError(errno.EAGAIN, "a mistake"),
    lambda: ConnectionResetError(errno.ECONNRESET, "a mistake"),
)


class WatchedConnection(kv.connection.Connection):
    """A connection, its client, and what is known about it from outside."""

    watch: ClassVar["Watch"]  # of the world that runs now
    stream: "WatchedStream"

    def __init__(self, server: kv.server.Server, sock: Any, address: Any) -> None:
        self.sim: Socket = sock
        self.client: Client = sock.peer
        self.kernel = self.sim.kernel
        self.accepted_at = self.last_message = self.last_owed = self.kernel.now
        self.due: Deadline | None = None
        self.due_since = 0.0
        self.allowance_from = 0  # octets that recv had given when that deadline began
        self.turns_waiting = self.patience = 0  # turns that it was passed over, and may be
        self.served = 0  # calls of recv, and messages, when it was last looked at
        self.owed_at_stop = 0  # how many lines have to be handled before the stop may close it
        self.ended = False  # by the server: nothing more is interpreted
        self.mistake: Exception | None = None  # that was raised in a notification
        self.was_left = False  # closed without RST, before all was over
        self.told_of_the_end = self.told_of_closing = False
        self._backlog = False  # replies were unsent between two turns, and `drained` has not come
        self._in_call = ""
        super().__init__(server, sock, address)
        self.tls: ServerTls | None = self.stream.transport.tls  # type: ignore[assignment]
        if self.tls is not None:
            self.tls.owner = self
        self.watch.connections[self] = None
        self.sim.connected = True

    # Seen from outside

    @property
    def unsent(self) -> int:
        """Octets of replies that are due and that `send` has not taken."""
        made = len(self.client.expected) if self.tls is None else self.tls.made
        return made - self.sim.given

    @property
    def extra(self) -> int:
        """Octets that may be unsent beside the replies."""
        return 0 if self.tls is None else EXTRA

    def text_in(self, octets: int) -> int:
        """How many octets of text the client has sent in so many on the network."""
        if self.tls is None:
            return octets
        return 0 if self.client.tls is None else self.client.tls.text_in(octets)

    @property
    def end_seen(self) -> bool:
        """Whether the server has seen the client's proper end."""
        sim, tls = self.sim, self.client.tls
        if self.tls is None:
            return sim.end_seen and not sim.unread
        return tls is not None and tls.notified_at <= sim.taken

    @property
    def has_line(self) -> bool:
        """Whether a complete line has been received and not been handled."""
        client = self.client
        if client.handled >= len(client.lines) or self.ended or self.sim.closed:
            return False
        return self.buffered > len(client.lines[client.handled])

    @property
    def buffered(self) -> int:
        """Octets received and not handled."""
        return self.text_in(self.sim.taken) - self.client.handled_octets

    @property
    def unhampered(self) -> bool:
        """Whether the client has taken so much of its replies that nothing may hold it up."""
        scarce = self.watch.settings.unsent < self.watch.limits.high_water * 1000
        return self.unsent <= (0 if scarce else self.watch.limits.low_water)

    @property
    def acknowledged_at(self) -> float:
        """When the peer last showed, as far as the kernel tells, that it takes what it is owed."""
        sim = self.sim
        return sim.acknowledged_at if self.kernel.dice.tells else sim.given_at

    def check(self) -> None:
        """The invariants of one connection, between two turns."""
        stream, client, limits, sim = self.stream, self.client, self.watch.limits, self.sim
        if self.mistake is not None:
            raise Failure(f"{client.name}: lives on after {self.mistake!r}")
        if self.conversation.state.name == "CLOSED" and self.ended:
            self.watch.world.model.end(client.story)
        if self.conversation.state.name != client.story.state:
            raise Failure(f"{client.name}: is {self.conversation.state}, not {client.story.state}")
        if sim.closed or stream.transport.outgoing is Outgoing.BROKEN:
            if stream.unsent:
                raise Failure(f"{client.name}: {stream.unsent} octets wait for nobody")
        else:
            self._check_unsent()
        if stream.transport.incoming is Incoming.OPEN:
            bound = limits.line_size + limits.read_size if self.has_line else limits.line_size - 1
            if self.buffered > bound + (RECORD if self.tls is not None and self.has_line else 0):
                raise Failure(f"{client.name}: {self.buffered} octets of input are kept")
        self._check_fairness()
        if not sim.closed and not stream.queued:
            self._check_interest()
        if sim.closed or client.story.state == "CLOSED":
            pass
        elif self.kernel.now - self.watch.tolerance > self._end_of_session():
            raise Failure(f"{client.name}: a deadline has passed, and it is still there")
        self._check_deadlines()

    def _check_unsent(self) -> None:
        unsent, client, limits = self.unsent, self.client, self.watch.limits
        if unsent != self.stream.unsent:
            raise Failure(f"{client.name}: {self.stream.unsent} octets unsent, not {unsent}")
        if unsent > limits.high_water + limits.line_size + self.extra:
            raise Failure(f"{client.name}: {unsent} octets of replies are kept")
        if self._backlog and not unsent and not self.stream.queued:
            raise Failure(f"{client.name}: is not told that all is sent")
        self._backlog = unsent > 0

    def _check_fairness(self) -> None:
        """Whoever is ready is served before the queue has gone round once."""
        served = self.sim.calls + self.client.handled
        ready = self.has_line or (self.sim.unread and not self.ended)
        if self.sim.closed:
            ready = not self.told_of_closing
        elif not ready or not self.unhampered or served != self.served or self.sim.dead:
            ready = self.stream.queued and served == self.served
        self.served = served
        if not ready:
            self.turns_waiting = 0
        elif not self.turns_waiting:
            self.turns_waiting, self.patience = 1, len(self.watch.connections) + 2
        else:
            self.turns_waiting += 1
            if self.turns_waiting > self.patience:
                raise Failure(f"{self.client.name}: is passed over for {self.patience} turns")

    def _check_interest(self) -> None:
        """Exactly what would be acted on: less is a hang, more spins."""
        stream, sim, unsent = self.stream, self.sim, self.stream.unsent
        name, incoming = self.client.name, stream.transport.incoming
        interest, _ = self.kernel.selector.registered.get(sim.fd, (0, None))
        if (interest & WRITE > 0) != (unsent > 0):
            raise Failure(f"{name}: {unsent} octets unsent, interest {interest}")
        if self.has_line and self.unhampered:
            raise Failure(f"{name}: a line waits, and no turn will come")
        if incoming is Incoming.DRAINING and self.unhampered:
            raise Failure(f"{name}: is to be drained, and no turn will come")
        discarding = incoming is Incoming.DISCARDING
        if interest & READ:
            if sim.end_seen or self.has_line or not (discarding or incoming is Incoming.OPEN):
                raise Failure(f"{name}: is read from for nothing")
        elif discarding or (incoming is Incoming.OPEN and not self.has_line and self.unhampered):
            raise Failure(f"{name}: is not read from")

    def _check_deadlines(self) -> None:
        """No deadline of the stream passes without its end."""
        stream, sim, limits = self.stream, self.sim, self.watch.limits
        due = self.due
        if sim.closed or stream.queued:
            return
        if due is not directions.deadline(
            stream.transport.incoming, stream.transport.outgoing, stream.unsent > 0
        ):
            raise Failure(f"{self.client.name}: the timer waits for {due}")
        if due is None:
            return
        if due is Deadline.LINGER and sim.taken - self.allowance_from > (
            limits.linger_size + limits.read_size
        ):
            raise Failure(f"{self.client.name}: too much is read to be thrown away")
        since = max(self.due_since, self.acknowledged_at)
        last = since + limits.patience(due) + limits.look(due) + LATE
        if self.kernel.now - self.watch.tolerance > last:
            raise Failure(f"{self.client.name}: {due} has passed, and it is still there")

    def _end_of_session(self) -> float:
        """When the conversation has to be over: without a session, or without a message."""
        settings, sim = self.watch.settings, self.sim
        if not self.client.story.in_session:
            # Who waits for a turn at the deadline gets another second, once.
            return self.accepted_at + settings.handshake_timeout + self._owed
        if not settings.idle_timeout:
            return float("inf")
        if self.owed:
            self.last_owed = self.kernel.now
        last = max(self.last_message, self.last_owed, sim.acknowledged_at)
        return last + settings.idle_timeout + min(settings.idle_timeout, 1) + LATE

    @property
    def owed(self) -> bool:
        """Whether it is the server's turn, as far as the kernel tells."""
        undelivered = self.kernel.dice.tells and self.sim.delivered < self.sim.given
        return bool(self.stream.unsent or self.has_line or undelivered)

    # What the server is told

    @contextmanager
    def _call(self, name: str, last: bool = False) -> Iterator[None]:
        """One notification: none comes in the midst of another, and each may raise."""
        if self._in_call or self.told_of_closing:
            raise Failure(f"{self.client.name}: {name} in or after {self._in_call or 'closed'}")
        if self.mistake is not None and not last:
            raise Failure(f"{self.client.name}: {name} after {self.mistake!r}")
        self._in_call = name
        early = self.kernel.rng.random() < 0.5 and not last
        if early:
            self.stumble(name)
        yield
        if not early:
            self.stumble(name)
        self._in_call = ""

    def stumble(self, name: str) -> None:
        """Raises, if the dice say so."""
        if self.kernel.chance(self.watch.world.mistakes):
            self._in_call = ""
            self.mistake = self.kernel.rng.choice(MISTAKES)()
            self.watch.mistakes.append(self.mistake)
            self.client.disturbed = self.client.disturbed or "the server made a mistake"
            self.kernel.say(self.client.name, f"{self.mistake!r} in {name}")
            raise self.mistake

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Checks that they are the next lines that were sent, and tells the model."""
        with self._call("lines_received"):
            if self.ended or self.sim.closed or self.stream.holds:
                raise Failure(f"{self.client.name}: lines for {self.stream.holds}")
            if budget < 1:
                raise Failure(f"{self.client.name}: a budget of {budget}")
            self.watch.begins_work(budget)
            before = self.client.handled
            done = super().lines_received(map(self._line_received, lines), budget)
            if not self.client.handled - before <= done < budget + LONGEST_MESSAGE:
                raise Failure(f"{self.client.name}: {done} units of work, allowed were {budget}")
            self.watch.worked(done)
        return done

    def _line_received(self, line: bytes) -> bytes:
        client, world = self.client, self.watch.world
        if client.handled >= len(client.lines) or line != client.lines[client.handled]:
            raise Failure(f"{client.name}: {line!r} is handled, which is not what it sent next")
        self.stumble("a message")
        text = meaning_of(line)
        in_session = client.story.in_session
        reply = world.model.receive(client.story, text)
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
        return line

    def line_too_long(self) -> None:
        with self._call("line_too_long"):
            client, size = self.client, self.watch.limits.line_size
            following = client.handled < len(client.lines) and self.buffered > len(
                client.lines[client.handled]
            )
            rest = client.lines[client.handled] if following else b"x" * self.buffered
            if self.ended or len(rest) < size:
                raise Failure(f"{client.name}: a line of {len(rest)} octets is called too long")
            self.watch.world.model.end(client.story)
            super().line_too_long()

    def held_up(self) -> None:
        with self._call("held_up"):
            if not self.unsent or self.stream.transport.outgoing is Outgoing.BROKEN:
                raise Failure(f"{self.client.name}: is held up, and takes its replies")
            super().held_up()

    def drained(self) -> None:
        """Checks that everything is with the kernel."""
        with self._call("drained"):
            if self.unsent:
                raise Failure(f"{self.client.name}: {self.unsent} octets wait, and it is drained")
            self._backlog = False
            super().drained()

    def end_received(self) -> None:
        """Checks that the stream has ended, and that everything before that is handled."""
        with self._call("end_received"):
            if self.told_of_the_end or self.ended:
                raise Failure(f"{self.client.name}: its end is told twice")
            if self.has_line or not (self.end_seen or self.watch.stopping):
                raise Failure(f"{self.client.name}: its end is seen too soon")
            if self.client.handled < self.owed_at_stop:
                raise Failure(f"{self.client.name}: the stop forgot what it had sent")
            self.told_of_the_end = True
            self.watch.world.model.end(self.client.story)
            super().end_received()

    def closed(self, error: Exception | None, ours: bool) -> None:
        """Checks that there is a reason. The last call."""
        if self not in self.watch.connections:
            raise Failure(f"{self.client.name}: is closed twice")
        with self._call("closed", last=True):
            if not self.sim.closed:
                raise Failure(f"{self.client.name}: is not closed")
            self.told_of_closing = True
            self._needs_a_reason(error, ours)
            self.watch.world.model.end(self.client.story)
            del self.watch.connections[self]
            self.watch.gone(self)
            super().closed(error, ours)

    # Reasons

    def polite_close(self) -> None:
        """Checks that there is a reason to end the conversation, if the model knows none."""
        story, settings, now = self.client.story, self.watch.settings, self.kernel.now
        self.ended = True
        if story.state == "CLOSED":
            return
        if story.in_session:
            last = self.last_message + (settings.idle_timeout or float("inf"))
            passed = now + self.watch.tolerance >= last and not self.owed
        else:
            passed = now + self.watch.tolerance >= self.accepted_at + settings.handshake_timeout
        if not passed:
            raise Failure(f"{self.client.name}: its conversation is ended for no reason")
        self.disturb("a deadline")
        self.watch.world.model.end(story)

    def _needs_a_reason(self, error: Exception | None, ours: bool) -> None:
        sim, name = self.sim, self.client.name
        if not sim.told and sim.reset_on_close != (ours or isinstance(error, Stalled)):
            raise Failure(f"{name}: RST {'' if sim.reset_on_close else 'not '}for {error!r}")
        if ours:
            if error is not self.mistake and not self.kernel.selector.is_failure(error):
                raise Failure(f"{name}: is closed for {error!r}, and nobody made that mistake")
            self.disturb("the server made a mistake")
        elif self.mistake is not None:
            raise Failure(f"{name}: {self.mistake!r} is not blamed on the server, {error!r} is")
        elif isinstance(error, Stalled):
            self.disturb("it stalled")
        elif isinstance(error, TlsError):
            assert self.tls is not None
            self.tls.may_have_failed()
            self.disturb("its TLS failed")
        elif error is not None:
            if error is not sim.error_told:
                raise Failure(f"{name}: {error!r} is not what its network said")
            self.disturb("its connection was lost")
        elif self.was_left:
            pass
        elif self.tls is not None and self.end_seen and sim.dead:
            self.disturb("it left without waiting for close_notify")
        elif sim.told:
            raise Failure(f"{name}: nobody is told that its connection was lost")
        elif self.unsent or not (self.end_seen or sim.end_seen):
            raise Failure(f"{name}: its socket is closed for no reason")
        elif self.kernel.dice.tells and not sim.fin_delivered:
            raise Failure(f"{name}: its socket is closed before all is delivered")

    def left(self) -> None:
        """It was closed without RST before all was over."""
        sim, limits = self.sim, self.watch.limits
        self.was_left = True
        if self.watch.world.cut_short_at <= self.kernel.now + self.watch.tolerance:
            return self.disturb("the stop cut it short")
        if self.due is Deadline.LINGER and sim.taken - self.allowance_from >= limits.linger_size:
            return self.disturb("it kept on sending")
        if self.due not in (Deadline.LINGER, Deadline.DELIVERY):
            raise Failure(f"{self.client.name}: its socket is closed for no reason")
        if self.due is Deadline.DELIVERY and sim.dead:
            return self.disturb("it was reset while the kernel delivered")
        self.must_have_waited(self.due)
        return self.disturb("it kept us waiting")

    def must_have_waited(self, due: Deadline) -> None:
        """Checks that a deadline has passed."""
        since = max(self.due_since, self.acknowledged_at)
        if (
            self.due is not due
            or self.kernel.now + self.watch.tolerance < since + self.watch.limits.patience(due)
        ):
            raise Failure(f"{self.client.name}: {due} strikes too soon")

    def disturb(self, why: str) -> None:
        """Notes why the client need not get all that it is owed."""
        self.client.disturbed = self.client.disturbed or why


class WatchedTransport(Transport):
    """A transport whose states change by one door only."""

    def __init__(self, *args: Any) -> None:
        self.states = Incoming.OPEN, Outgoing.OPEN
        super().__init__(*args)

    def step(self, event: Event) -> None:
        """Looks at the states before, and keeps those after."""
        if (self.incoming, self.outgoing) != self.states:
            raise Failure("a state has changed behind the tables")
        super().step(event)
        self.states = self.incoming, self.outgoing


class WatchedStream(Stream):
    """A stream that is left alone after its end."""

    _owner: WatchedConnection

    def close(self) -> None:
        self._owner.polite_close()
        super().close()

    def leave(self, error: Exception | None = None) -> None:
        if not self._owner.sim.closed:
            self._owner.left()
        super().leave(error)

    def abort(self, error: Exception | None) -> None:
        if isinstance(error, Stalled):
            self._owner.must_have_waited(Deadline.STALL)
        super().abort(error)

    def _wait_for(self, due: Deadline | None) -> None:
        owner = self._owner
        owner.due, owner.due_since = due, owner.kernel.now
        owner.allowance_from = owner.sim.taken
        super()._wait_for(due)

    def _ready(self, events: int) -> None:
        if self._owner.sim.closed:
            raise Failure(f"{self._owner.client.name}: readiness is reported to a closed stream")
        super()._ready(events)
