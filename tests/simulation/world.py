"""One world: the real server, a simulated kernel, some clients, and one seed that decides it all.

    >>> run(42).turns          # raises Failure if an invariant does not hold

A seed decides, in this order: the dice of the kernel, and the limits of the server (small, so that
they are reached). Then: which clients come, and when; what happens to which of them; when resources
run out; when the server has to stop. Mostly it stops after all clients have left.
"""

import errno
import logging
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from random import Random

from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.protocol.conversation import Service
from kv.protocol.messages import Wire
from kv.protocol.store import Store
from kv.server import Server, Settings

from .clients import SCRIPTS, Client
from .kernel import EXHAUSTED, Dice, Failure, Kernel
from .model import SERVER_KEY, Model, quick_rsa
from .signals import Signals
from .sockets import Listening
from .tls import ClientTls, ServerTls
from .watch import Watch

log = logging.getLogger("kv")

#: In one world of so many TLS is spoken.
TLS_SHARE = 10
#: A world that has not come to its end after so many turns never will.
MOST_TURNS = 300_000
WIRE = Wire()


@dataclass(frozen=True, slots=True)
class Result:
    """What happened in a world in which all went well."""

    seed: int
    turns: int
    seconds: float  # simulated
    messages: int
    clients: int
    undisturbed: int  # clients that heard every reply


def settings(rng: Random) -> Settings:
    """Limits so small that everybody meets them."""
    high = rng.choice((0, 300, 2000, 8000))
    return Settings(
        max_connections=rng.choice((1, 2, 4, 100)),
        handshake_timeout=rng.choice((3.0, 10.0)),
        idle_timeout=rng.choice((0, 3.0, 60.0)),
        quantum=rng.choice((1, 100, 1000, 5000)),
        budget=rng.choice((1, 1000, 10_000)),
        unsent=rng.choice((0, 3000, 32_000_000, 32_000_000)),
        stream=Limits(
            line_size=WIRE.line_size,
            read_size=rng.choice((30, 100, 600, 600, 16384)) if rng.random() > 0.03 else 1,
            high_water=high,
            low_water=rng.randint(0, high),
            stall_timeout=rng.choice((2.0, 20.0)),
            linger_timeout=rng.choice((0.5, 2.0)),
            linger_size=rng.choice((500, 20_000)),
        ),
    )


class World:
    """The server and everything around it."""

    def __init__(self, seed: int, trace: list[str] | None, tls: bool) -> None:
        self.rng = rng = Random(seed)
        self.kernel = Kernel(rng, Dice.roll(rng), trace)
        self.settings = settings(rng)
        self.store = Store(rng.choice((2000, 6000, 1_000_000)))
        self.model = Model(self.store.capacity)
        self.listening = [Listening(self.kernel) for _ in range(rng.choice((1, 1, 2)))]
        self.kernel.descriptor_limit = rng.choice((7, 9, 1024))
        #: The chance of a mistake of the server in a notification.
        self.mistakes = rng.choice((0.001, 0.02)) if rng.random() < 0.2 else 0.0
        self.signals = Signals(self.kernel)
        self.reactor = Reactor(self.kernel.selector, self.kernel.time)  # type: ignore[arg-type]
        self.cut_short_at = float("inf")
        self.clients = [
            Client(self.kernel, number, rng.choice(SCRIPTS))
            for number in range(1, rng.choice((2, 4, 9)))
        ]
        if tls:
            for client in self.clients:
                client.plain = rng.random() < 0.1
                client.tls = None if client.plain else ClientTls()
        self.watch = Watch(self)
        service = Service(WIRE, SERVER_KEY, self.store)
        with self.watch.watching():
            self.reactor.on_signal(signal.SIGTERM, self._signalled)
            self.reactor.on_signal(signal.SIGUSR1, self._asked)
            self.server = Server(
                self.reactor,
                service,
                self.settings,
                list(self.listening),  # type: ignore[arg-type]
                ServerTls if tls else None,
            )
        self.watch.limits = self.server.limits

    def run(self) -> None:
        kernel, rng = self.kernel, self.rng
        kernel.selector.before_turn = self._between_turns
        for client in self.clients:
            delay = rng.random() * rng.choice((0.01, 5))
            kernel.at(delay, lambda c=client: self._arrive(c))
        if rng.random() < 0.5:
            kernel.at(rng.random() * 2, self._storm)
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            kernel.at(rng.random() * 5, lambda: self._run_out(rng.choice(EXHAUSTED)))
        if rng.random() < 0.4:
            kernel.at(rng.random() * rng.choice((0.2, 1, 5, 20)), self.terminate)
        if rng.random() < 0.3:
            kernel.at(rng.random() * rng.choice((0.2, 5)), self._ring)
        kernel.running = True
        with self.watch.watching():
            self.reactor.run()
            self.watch.between_turns()
        kernel.settle(lambda: all(client.settled for client in self.clients))
        self.watch.end()
        with self.watch.watching():
            self.reactor.close()
        if kernel.files:
            raise Failure(f"still open: {list(kernel.files)}")

    def _between_turns(self) -> None:
        self.watch.between_turns()
        self.signals.check()
        if self.kernel.selector.turns > MOST_TURNS:
            raise Failure(f"no end after {MOST_TURNS} turns")
        if self.watch.stopping or self.signals.waiting or self.server.connections:
            return
        if self.reactor._deferred or any(
            listening.queue or listening.resting for listening in self.listening
        ):
            return
        if all(client.settled for client in self.clients):
            # Nobody is left: now nothing may be left of anybody, timers included.
            timers = [t for _, _, t in self.reactor.timers.heap if t.callback is not None]
            if timers:
                raise Failure(f"{len(timers)} timers are left, and no connections")
            self.watch.end()
            self.terminate()

    # What the seed makes happen

    def _arrive(self, client: Client) -> None:
        rng, kernel = self.rng, self.kernel
        if client.arrived:
            return
        if self.watch.stopping:
            client.done = client.gone = True
            return
        kernel.say(client.name, f"connects, latency {client.latency:g} s, pieces {client.piece}")
        rng.choice(self.listening).queue.append(client.socket)
        client.arrive()
        if rng.random() < 0.25:
            strike = rng.choice((client.reset, client.reset, client.vanish, client.close))
            kernel.at(rng.random() * rng.choice((0.01, 0.5, 5)), strike)
        kernel.at(200 + rng.random() * 200, client.reset)  # nobody's patience lasts for ever

    def _storm(self) -> None:
        """In one moment, some clients reset their connections and others arrive, or even worse."""
        if self.rng.random() < 0.3:
            self._run_out(self.rng.choice(EXHAUSTED))
        if self.rng.random() < 0.1:
            self.kernel.at(self.rng.random() * 0.5, self.terminate)
        for client in self.clients:
            if self.rng.random() < 0.5:
                if client.arrived:
                    client.latency = 0.0
                    client.reset()
                else:
                    self._arrive(client)

    def _run_out(self, name: str) -> None:
        seconds = self.rng.random() * 3
        self.kernel.say("kernel", f"runs out of resources for {seconds:.3f} s: {name}")
        self.kernel.exhausted_by = name
        self.kernel.exhausted_until = self.kernel.now + seconds

    def terminate(self) -> None:
        if not self.watch.stopping:
            self.kernel.say("kernel", "SIGTERM")
            self._comes(signal.SIGTERM)

    def _ring(self) -> None:
        """Other signals come, more than there is room for, and other threads ask for calls."""
        for _ in range(self.rng.choice((1, 3, 300))):
            if self.rng.random() < 0.5:
                self._comes(signal.SIGUSR1)
            else:
                self.reactor.call_soon_threadsafe(self.signals.ask())
        if self.rng.random() < 0.3:
            self.terminate()

    def _comes(self, number: int) -> None:
        if self.rng.random() < 0.5:
            self.signals.come(number)
        else:  # in the midst of the next system call
            self.signals.waiting = True
            self.kernel.interrupts.append(lambda: self.signals.come(number))

    def _asked(self) -> None:
        self.signals.heard(signal.SIGUSR1)
        if not self.server.statistics().startswith("up "):
            raise Failure("no statistics")

    def _signalled(self) -> None:
        self.signals.heard(signal.SIGTERM)
        if not self.watch.stopping:
            timeout = self.rng.choice((0.2, 5.0, 30.0))
            self.cut_short_at = self.kernel.now + timeout
            self.watch.stop()
            self.server.stop(timeout)


class LogToTrace(logging.Handler):
    """The server's log becomes part of the trace; an error in it is a failure."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR and not self._expected(record):
            cause = record.exc_info[1] if record.exc_info else None
            raise Failure(f"the server logs an error: {record.getMessage()}: {cause!r}") from cause
        self.world.kernel.say("log", record.getMessage())

    def _expected(self, record: logging.LogRecord) -> bool:
        cause = record.exc_info[1] if record.exc_info else None
        for mistake in self.world.watch.mistakes:
            if mistake is cause:
                self.world.watch.mistakes.remove(mistake)
                return True
        if self.world.kernel.selector.is_failure(cause):
            return True
        # BSD refuses to set options of a socket that was reset before it was accepted.
        return isinstance(cause, OSError) and cause.errno == errno.EINVAL


def run(
    seed: int,
    trace: list[str] | None = None,
    begin: Callable[["World"], object] = lambda _: None,
    watched: AbstractContextManager[object] | None = None,
    tls: bool | None = None,
) -> Result:
    """Runs the world of `seed`, into `trace` if one is given. Raises `Failure`.

    Whether TLS is spoken in it, the seed decides, unless `tls` does.
    `begin` gets the world before anything happens in it; all of it happens inside of `watched`.
    """
    with quick_rsa(), watched or nullcontext():
        level, propagate = log.level, log.propagate
        log.setLevel(logging.ERROR if trace is None else logging.DEBUG)
        log.propagate = False
        world = None
        try:
            world = World(seed, trace, seed % TLS_SHARE == 0 if tls is None else tls)
            begin(world)
            handler = LogToTrace(world)
            log.addHandler(handler)
            try:
                world.run()
            finally:
                log.removeHandler(handler)
        finally:
            log.setLevel(level)
            log.propagate = propagate
    return Result(
        seed,
        world.kernel.selector.turns,
        world.kernel.now - 1000,
        world.watch.messages,
        len(world.clients),
        sum(client.done and not client.disturbed for client in world.clients),
    )
