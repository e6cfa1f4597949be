"""A world of several servers and a registry, which have to be one service.

    >>> run(42).sessions          # raises Failure if an invariant does not hold

The servers are the real ones: `Server`, `Connection`, `Registry`, `Claims`, streams and reactors.
The registry is the model in `redis.py`, which the tests hold to a real Redis. What a seed makes
happen: clients come, talk and go, all under few ids; the way to the registry is cut for a while; it
answers slowly, or nonsense; it is full; it stops, and begins again with all its data, an old copy
of them, or none; servers are killed, stopped, or stand still, with their clock or without.

The invariants: at no step do two servers serve one id; no reply is wrong or out of order; and when
all is well again, it is well without anybody's help.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar
from unittest import mock

import kv.connection
import kv.registry.registry
import kv.server
from kv.net import tcp
from kv.protocol.conversation import Service
from kv.protocol.messages import Wire as Sizes
from kv.protocol.store import Store
from kv.registry.registry import Registry
from kv.registry.resp import Place
from kv.server import Server, Settings

from .kernel import Failure
from .machines import End, Machine, Time, Wire, pair
from .model import KEY_LINE, SERVER_KEY, line_of, quick_rsa, reply_line
from .redis import Redis, commands

LEASE = 3.0
IDS = ("alice", "bob")
#: Seconds of trouble, and until all has to be well again after it.
TROUBLE, REST = 5 * LEASE, 4 * LEASE
PLACE = Place("redis://registry")
SIZES = Sizes()


@dataclass(frozen=True, slots=True)
class Result:
    """What happened in a world in which all went well."""

    seed: int
    sessions: int
    messages: int
    refused: int
    lost: int


class Watched(kv.connection.Connection):
    """A connection that says when it serves."""

    world: ClassVar["World"]

    def _session_begun(self) -> None:
        super()._session_begun()
        self.world.granted(self)

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Under an id that it was granted, nobody else may have been granted it since."""
        return super().lines_received(map(self._served, lines), budget)

    def _served(self, line: bytes) -> bytes:
        if self._waiting:
            raise Failure("a message is handled before CONNECT is answered")
        self.world.serves(self)
        return line


class Connector:
    """In place of the real one: from a machine to the registry."""

    def __init__(
        self,
        reactor: Any,
        _addresses: object,
        timeout: float,
        connected: Callable[[Any], object],
        failed: Callable[[OSError], object],
    ) -> None:
        self.reactor, self.connected, self.failed = reactor, connected, failed
        self.node = next(node for node in Watched.world.nodes if node.machine.reactor is reactor)
        self.over = False
        self.timer = reactor.call_later(timeout, lambda: self.end(TimeoutError("timed out")))
        world = Watched.world
        world.time.at(self.node.wire.arrival(), lambda: self.arrive(world))

    def arrive(self, world: "World") -> None:
        """It has come to the registry, which is there or not."""
        node = self.node
        if world.registry.up and not node.machine.dead:
            mine = End(world.time, node.wire, node.machine.poke)
            world.registry.accept(node.wire, mine)
            world.time.at(node.wire.arrival(), lambda: node.later(lambda: self.end(mine)))
        else:
            error = ConnectionRefusedError("refused")
            world.time.at(node.wire.arrival(), lambda: node.later(lambda: self.end(error)))

    def end(self, what: Any) -> None:
        """Tells, once."""
        if self.over:
            if isinstance(what, End):
                what.close()
            return
        self.close()
        (self.connected if isinstance(what, End) else self.failed)(what)

    def close(self) -> None:
        self.over = True
        self.timer.cancel()


class Keeper:
    """The registry's process: takes commands in order, and its time."""

    def __init__(self, world: "World") -> None:
        self.time, self.rng = world.time, world.rng
        self.rate = 1 + self.rng.uniform(-0.02, 0.02)
        self.redis = Redis(lambda: self.time.now * self.rate)
        self.copies = [dict(self.redis.keys)]  # what a restart may begin with
        self.up = True
        self.slow = 0.0  # seconds that a command takes, at the longest
        self.nonsense = False
        self.ends: list[End] = []
        self.busy_until = 0.0

    def accept(self, wire: Wire, theirs: End) -> None:
        buffer = bytearray()
        end = End(self.time, wire, lambda: self._read(end, buffer))
        pair(end, theirs)
        self.ends.append(end)

    def _read(self, end: End, buffer: bytearray) -> None:
        buffer += end.inbox
        end.inbox.clear()
        for words in commands(buffer):
            delay = self.rng.random() * self.slow
            self.busy_until = max(self.busy_until, self.time.now) + delay
            self.time.at(self.busy_until, lambda w=words: self._execute(end, w))  # type: ignore[misc]
        if end.fin and not end.closed and not self.slow:
            end.close()

    def _execute(self, end: End, words: list[bytes]) -> None:
        if end not in self.ends:
            return
        said = self.redis.execute(words)
        if self.nonsense and self.rng.random() < 0.3:
            said = self.rng.choice((b"$3\r\nfoo\r\n", b"+1111\r\n", b"HTTP/1.1 400\r\n", b"\n"))
        if not end.closed and not end.reset:
            end.send(said)
        if self.rng.random() < 0.1:
            self.copies = [*self.copies[-2:], dict(self.redis.keys)]

    def stop(self) -> None:
        self.up = False
        for end in self.ends:
            if not end.closed:
                end.resets = self.rng.random() < 0.5
                end.close()
        self.ends = []

    def start(self) -> None:
        """Begins anew, with all its data or not."""
        self.up = True
        self.redis.restart(self.rng.choice((self.redis.keys, {}, *self.copies[-2:])))


class Node:
    """A server on its machine; when it is killed, another takes its place."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        rng = world.rng
        self.wire = Wire(world.time, lambda: rng.random() * world.latency)
        self.machine: Machine

    def start(self) -> None:
        world = self.world
        self.machine = machine = Machine(world.time, world.rng, world.check)
        registry = Registry(
            machine.reactor, PLACE, [], LEASE, clock=machine.boottime, dice=world.rng.random
        )
        service = Service(SIZES, SERVER_KEY, Store())
        self.server = Server(machine.reactor, service, world.settings, [], registry=registry)
        machine.poke()

    def kill(self) -> None:
        """As `kill -9` does: the kernel closes what is open."""
        if self.machine.dead:
            return
        self.machine.dead = True
        self.world.sessions = [s for s in self.world.sessions if s._server is not self.server]
        for end in list(self.machine.selector.registered):
            end.close()
        self.world.time.at(self.world.time.now + self.world.rng.random() * LEASE, self.start)

    def stop(self) -> None:
        """As SIGTERM does, and its end."""
        if self.machine.running:
            self.later(lambda: self.server.stop(0.5))
            self.world.time.at(self.world.time.now + 3, self.kill)

    def later(self, callback: Callable[[], object]) -> None:
        """Makes a call in its next turn but one."""
        if not self.machine.dead:
            self.machine.reactor.call_soon(callback)
            self.machine.poke()


class Client:
    """Connects, says CONNECT and some commands, all at once or not, and leaves."""

    def __init__(self, world: "World", node: Node, client_id: str, stays: float) -> None:
        self.world = world
        self.rng = world.rng
        self.key = ""  # that the last PUT was for
        self.expected = [reply_line(KEY_LINE)]
        self.replies: list[bytes] = []
        self.client_id = client_id
        self.left = self.quitting = False
        wire = Wire(world.time, lambda: self.rng.random() * 0.002)
        self.end = End(world.time, wire, self.heard)
        theirs = End(world.time, wire, node.machine.poke)
        pair(self.end, theirs)
        node.later(lambda: node.server._accepted(theirs, ("client", 1)))  # type: ignore[arg-type]
        self.say(KEY_LINE, f"CONNECT {client_id}")
        if self.rng.random() < 0.5:
            self.talk()
        world.time.at(world.time.now + stays, self.leave)

    @property
    def answer(self) -> str:
        """What CONNECT was answered with, once it was."""
        if len(self.replies) < 2:
            return ""
        return "OK" if self.replies[1] == reply_line("CONNECT: OK") else "ERROR"

    def say(self, *texts: str) -> None:
        if not self.end.reset:
            self.end.send(b"".join(line_of(text) + b"\n" for text in texts))

    def talk(self) -> None:
        """PUT, GET, and what they must be answered with."""
        value = self.rng.choice(("red", "blue"))
        self.expected += [b"", reply_line("PUT: OK"), reply_line(value)]
        self.say("PUT colour", value, "GET colour")

    def heard(self) -> None:
        *lines, rest = bytes(self.end.inbox).split(b"\n")
        self.end.inbox[:] = rest
        for line in lines:
            self.replies.append(line)
            number = len(self.replies) - 1
            if number == 1:
                if line not in (reply_line("CONNECT: OK"), reply_line("CONNECT: ERROR")):
                    raise Failure(f"{line!r} is no answer to CONNECT")
                if self.answer == "OK" and len(self.expected) == 1:
                    self.expected += [b""]
                    self.talk_on()
            elif self.answer == "OK" and line != self.expected[number]:
                raise Failure(f"a client of {self.client_id} heard {line!r}")
        if (self.end.fin or self.replies[-1:] == [reply_line("DISCONNECT: OK")]) and not self.left:
            self.left = True
            self.end.close()

    def quits(self) -> None:
        """Says DISCONNECT, and expects the id to be free when that is answered."""
        self.quitting = True
        self.expected += [reply_line("DISCONNECT: OK")]
        self.say("DISCONNECT")

    def talk_on(self) -> None:
        """Says something now and then."""
        if not (self.left or self.quitting):
            value = self.rng.choice(("red", "blue"))
            self.expected += [reply_line("PUT: OK"), reply_line(value)]
            self.say("PUT colour", value, "GET colour")
            self.world.time.at(self.world.time.now + self.rng.random(), self.talk_on)

    def leave(self) -> None:
        """In one of the ways there are."""
        if not self.left:
            self.left = True
            self.end.resets = self.rng.random() < 0.3
            if self.rng.random() < 0.3:
                self.say("DISCONNECT")
            self.end.close()


class World:
    """Servers, registry, clients, and one seed that decides it all."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        self.time = Time()
        self.latency = rng.choice((0.001, 0.05, LEASE / 4))
        self.settings = Settings(handshake_timeout=rng.choice((1.0, 10.0)), idle_timeout=0)
        self.registry = Keeper(self)
        self.sessions: list[Watched] = []  # granted, and not over when last looked at
        self.latest: dict[str, Watched] = {}
        self.count = self.messages = 0
        self.clients: list[Client] = []
        self.nodes = [Node(self, number) for number in range(rng.choice((2, 3)))]

    # What is watched

    def granted(self, connection: Watched) -> None:
        """A server begins to serve."""
        self.count += 1
        self.sessions.append(connection)
        self.latest[connection.conversation.client_id] = connection

    def serves(self, connection: Watched) -> None:
        """A server serves: nobody may have been told since that the id is theirs."""
        client_id = connection.conversation.client_id
        if connection in self.sessions:
            self.messages += 1
            if self.latest[client_id] is not connection:
                raise Failure(f"{client_id} is served by a server that has lost it")

    def check(self) -> None:
        """After every turn: no two servers that run would serve one id."""
        self.sessions = [one for one in self.sessions if one.conversation.session is not None]
        if len(self.sessions) < 2:
            return
        seen: dict[str, kv.server.Server] = {}
        running = {id(node.server) for node in self.nodes if node.machine.running}
        for session in self.sessions:
            if id(session._server) in running and session._server.registry.holds(session._claim):
                client_id = session.conversation.client_id
                if seen.setdefault(client_id, session._server) is not session._server:
                    raise Failure(f"{client_id} is served by two servers")

    # What happens

    def run(self) -> Result:
        """Trouble, then rest, then whether all is well."""
        rng, time = self.rng, self.time
        for node in self.nodes:
            node.start()
        kinds = rng.sample(self.troubles, rng.choice((0, 1, 2, 4)))
        when = 0.0
        while when < TROUBLE:
            time.at(when, self._come)
            when += rng.random() * LEASE / 3
        for kind in kinds:
            for _ in range(rng.choice((1, 3))):
                time.at(rng.random() * TROUBLE, lambda k=kind: k(self))  # type: ignore[misc]
        time.run(TROUBLE)
        self._make_well()
        time.run(max(TROUBLE, self.registry.busy_until) + REST)
        self._all_is_well()
        return Result(self.seed, self.count, self.messages, *self._figures())

    def _figures(self) -> tuple[int, int]:
        refused = sum(client.answer == "ERROR" for client in self.clients)
        lost = sum(node.server.drops["registry"] for node in self.nodes)
        return refused, lost

    def _come(self, node: Node | None = None, client_id: str = "") -> None:
        rng = self.rng
        node = node or rng.choice(self.nodes)
        if not node.machine.dead and self.time.now < TROUBLE:
            stays = rng.random() * rng.choice((0.01, 1, 4)) * LEASE
            self.clients.append(Client(self, node, client_id or rng.choice(IDS), stays))

    def _make_well(self) -> None:
        registry = self.registry
        registry.slow, registry.nonsense, registry.redis.full = 0.0, False, False
        self.latency = 0.01
        if not registry.up:
            registry.start()
        for client in self.clients:
            client.leave()

    def _all_is_well(self) -> None:
        """Every id is free, for whichever server is asked."""
        if any(one.conversation.session is not None for one in self.sessions):
            raise Failure("a session outlives its client")
        for client_id in IDS:
            for node in self.rng.sample(self.nodes, 2):
                client = Client(self, node, client_id, 5.0)
                self._until(lambda c=client: c.answer)  # type: ignore[misc]
                if client.answer != "OK":
                    raise Failure(f"{client_id} is answered {client.answer!r} when all is well")
                client.quits()
                self._until(lambda c=client: c.left)  # type: ignore[misc]

    def _until(self, condition: Callable[[], object]) -> None:
        """Lets time pass until then, or long enough."""
        end = self.time.now + 2
        while not condition() and self.time.now < end:
            self.time.run(self.time.now + 0.01)

    # Troubles

    def _cut(self, node: Node | None = None) -> None:
        node = node or self.rng.choice(self.nodes)
        node.wire.cut_until = self.time.now + self.rng.uniform(0.5, 2.5) * LEASE

    def _stand_still(self) -> None:
        node = self.rng.choice(self.nodes)
        if node.machine.running:
            node.machine.stand_still(self.rng.random() * 3 * LEASE, self.rng.random() < 0.5)

    def _kill(self) -> None:
        self.rng.choice(self.nodes).kill()

    def _stop(self) -> None:
        self.rng.choice(self.nodes).stop()

    def _restart(self) -> None:
        if self.registry.up:
            self.registry.stop()
            seconds = self.rng.random() * self.rng.choice((0.1, 1, 2)) * LEASE
            self.time.at(self.time.now + seconds, self._begin_again)

    def _begin_again(self) -> None:
        if not self.registry.up:
            self.registry.start()

    def _forget(self) -> None:
        self.registry.redis.keys.clear()

    def _slow(self) -> None:
        self.registry.slow = self.rng.choice((0.05, LEASE / 8, LEASE / 4, LEASE))
        self.time.at(self.time.now + 2 * LEASE * self.rng.random(), self._quick)

    def _quick(self) -> None:
        self.registry.slow = 0.0

    def _nonsense(self) -> None:
        self.registry.nonsense = True
        self.time.at(self.time.now + LEASE * self.rng.random(), self._sense)

    def _sense(self) -> None:
        self.registry.nonsense = False

    def _full(self) -> None:
        self.registry.redis.full = not self.registry.redis.full

    def _fall_silent(self) -> None:
        """Answers come late, and after them none does. A lease later, others come for the ids."""
        serving = {session._server for session in self.sessions}
        nodes = self.rng.sample(self.nodes, len(self.nodes))
        node, other, *_ = sorted(nodes, key=lambda node: node.server not in serving)
        late = self.rng.uniform(0.1, 0.3) * LEASE
        for end in self.registry.ends:
            if end.wire is node.wire:
                end.stick(late)
        self.time.at(self.time.now + late, lambda: self._cut(node))
        for client_id in IDS:
            when = self.time.now + LEASE + self.rng.random() * late
            self.time.at(when, lambda i=client_id: self._come(other, i))  # type: ignore[misc]

    def _stick(self) -> None:
        """What is sent on one connection comes late, while others are quick: a relay has it."""
        for end in self.registry.ends[-3:]:
            if end.other is not None and not end.closed:
                end.other.stick(self.rng.random() * 3 * LEASE)

    def _reset(self) -> None:
        """The connection to the registry is lost, with what was on its way."""
        for end in self.registry.ends:
            if not end.closed and self.rng.random() < 0.5:
                end.resets = True
                end.close()

    troubles: ClassVar[list[Callable[["World"], None]]] = [
        *(_cut, _cut, _stand_still, _stand_still, _kill, _stop, _restart, _restart),
        *(_forget, _slow, _slow, _nonsense, _full, _reset, _stick, _stick),
        *(_fall_silent, _fall_silent),
    ]


@contextmanager
def _in_place(world: World) -> Iterator[None]:
    Watched.world = world
    with (
        mock.patch.object(kv.server, "Connection", Watched),
        mock.patch.object(kv.registry.registry, "Connector", Connector),
        mock.patch.object(tcp, "prepare", lambda _sock, _timeout: None),
        mock.patch.object(tcp, "unacknowledged", lambda _sock: None),
        mock.patch.object(tcp, "failure", lambda _sock: None),
        quick_rsa(),
    ):
        yield


def run(seed: int) -> Result:
    world = World(seed)
    with _in_place(world):
        return world.run()
