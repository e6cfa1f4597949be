"""The process around the server's loop: descriptors, signals, exit status.

A process has as many descriptors as its limit allows, and each connection needs one. Signals may
come at any moment. Here, each becomes a call that the loop makes in its own turn.
"""

import logging
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kv.net.listener import listen
from kv.net.log import plural
from kv.net.reactor import Reactor
from kv.protocol.cipher import ARITHMETIC, PrivateKey
from kv.protocol.conversation import Service
from kv.protocol.messages import Wire
from kv.protocol.store import Store
from kv.server import Server, Settings

if TYPE_CHECKING:
    from kv.net.tls import Tls
    from kv.registry.registry import Registry

log = logging.getLogger("kv")
statistics = logging.getLogger("kv.statistics")
statistics.setLevel(logging.INFO)  # SIGUSR1 asks for them, so --log-level does not hide them

#: These signals end the server gracefully.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds within which a second signal is the same request. A signal to a process group reaches
#: `make` and the server, and `make` passes its own on to the server: it comes twice (29).
SAME_REQUEST = 1.0
#: Seconds of arithmetic in a turn of the loop, at most, unless one message takes more.
LONG_TURN = 0.01
#: Descriptors for everything but connections: standard ones, selector, listeners, and spare.
RESERVED = 64


def serve(
    host: str,
    port: int,
    wire: Wire,
    settings: Settings,
    store: Store,
    shutdown_timeout: float,
    read_tls: "Callable[[], Callable[[], Tls]] | None" = None,
    join: "Callable[[Reactor], Registry] | None" = None,
) -> int:
    """Serves until a signal comes; returns the exit status. Raises `OSError` if it cannot start.

    `shutdown_timeout` is in seconds. With `read_tls`, the server speaks TLS. `read_tls` reads the
    certificates, and returns a function that makes a `Tls` for one connection. It raises
    `ValueError` if the certificates cannot be used. With `join`, the server is one of several that
    share their client ids.

    Everything that blocks is done before the reactor runs: making the key, resolving the name, and
    the imports that would otherwise happen at the first use (27, 47).
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # there are no statistics yet
    tls = read_tls() if read_tls is not None else None
    key = PrivateKey.generate(wire.key_bits)
    started = time.process_time()
    service = Service(wire, key, store)
    longest = service.longest_message(time.process_time() - started)
    sockets = listen(host, port)
    reactor = Reactor()
    first_signal: float | None = None

    def stop(number: int) -> None:
        nonlocal first_signal
        if first_signal is None:
            first_signal = reactor.time()
            log.info("%s received", signal.Signals(number).name)
            server.stop(shutdown_timeout)
        elif reactor.time() - first_signal >= SAME_REQUEST:
            raise SystemExit(128 + number)

    def tell() -> None:
        statistics.info("%s", server.statistics())

    def read_again() -> None:
        """Reads the certificates again, for new connections only."""
        assert read_tls is not None
        try:
            server.tls = read_tls()
        except ValueError as error:
            log.error("SIGHUP received; the certificates in use stay: %s", error)
        else:
            log.info("SIGHUP received; the certificates were read again")

    try:
        take_signals(reactor, stop, tell)
        if read_tls is not None:  # certificates have to be renewed without a stop
            if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as after `nohup` (45)
                log.warning("SIGHUP is ignored, as it was at the start: no certificate is renewed")
            else:
                reactor.on_signal(signal.SIGHUP, read_again)
        registry = join(reactor) if join is not None else None
        server = Server(reactor, service, settings, sockets, tls, registry)
        log.info("arithmetic: %s", ARITHMETIC)
        if longest > LONG_TURN:
            log.warning("one message can take %.0f ms, and everybody waits (26)", longest * 1000)
        if not sys.flags.hash_randomization:
            log.warning("PYTHONHASHSEED=0: clients can choose keys that make the store slow")
        reactor.run()
        # A signal that comes now is the same request, or too late. It must not change the status.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    finally:
        reactor.close()
    if server.cut_short:
        log.warning("stopped; %s cut short", plural(server.cut_short, "connection"))
        return 1
    log.info("stopped")
    return 0


def take_signals(
    reactor: Reactor, stop: Callable[[int], object], tell: Callable[[], object]
) -> None:
    """Has the loop call `stop` or `tell` when a signal comes, whatever mask was inherited."""
    for number in ENDING:
        # The parent may have chosen to ignore a signal: `nohup` does so with SIGHUP, and a shell
        # with SIGINT for a program in the background. Such a signal stays ignored (45).
        if signal.getsignal(number) is not signal.SIG_IGN:
            reactor.on_signal(number, partial(stop, number))
    reactor.on_signal(signal.SIGUSR1, tell)
    # The mask is inherited, too. A blocked signal never comes, and nobody could stop this (45).
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*ENDING, signal.SIGUSR1})


def affordable(connections: int) -> int:
    """How many of these connections the process can have descriptors for (21).

    Raises the soft limit if that is needed. Logs a warning if it cannot be raised enough. The soft
    limit is low for programs that use `select`, which cannot name a descriptor of 1024 (FD_SETSIZE)
    or above. epoll and kqueue can.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + RESERVED
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    except (OSError, ValueError):  # macOS has a further limit that getrlimit does not tell
        pass
    fitting = max(1, min(connections, soft - RESERVED))
    if fitting < connections:
        log.warning(
            "at most %d connections, not %d: the limit of open descriptors is %d (ulimit -n)",
            fitting,
            connections,
            soft,
        )
    return fitting
