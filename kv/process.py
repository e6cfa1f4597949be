"""The process around the server's loop: descriptors, signals, exit status.

A process has as many descriptors as its limit allows, and each connection needs one. Others talk to
it by signals, which come at any moment: here each becomes a call in the loop's own turn.
"""

import logging
import resource
import signal

from kv.net.listener import listen
from kv.net.reactor import Reactor
from kv.protocol.cipher import PrivateKey
from kv.protocol.conversation import Service
from kv.protocol.messages import Wire
from kv.protocol.store import Store
from kv.server import Server, Settings

log = logging.getLogger("kv")

#: Seconds within which a second signal is the first one arriving twice: whoever stops a process
#: group sends SIGTERM to all of it, and `make`, which is one of them, passes its own on (29).
SAME_REQUEST = 1.0
#: Descriptors for everything but connections: standard ones, selector, listeners, and spare.
RESERVED = 64


def serve(
    host: str, port: int, wire: Wire, settings: Settings, max_memory: int, shutdown_timeout: float
) -> int:
    """Serves until a signal comes; returns the exit status. Raises `OSError` if it cannot start.

    `max_memory` is in octets, `shutdown_timeout` in seconds.

    All that blocks is done before the reactor runs: making the key and resolving the name (27).
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # it asks for statistics, and there are none yet
    service = Service(wire, PrivateKey.generate(wire.key_bits), Store(max_memory))
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

    try:
        reactor.on_signal(signal.SIGINT, lambda: stop(signal.SIGINT))
        reactor.on_signal(signal.SIGTERM, lambda: stop(signal.SIGTERM))
        reactor.on_signal(signal.SIGUSR1, lambda: log.info("%s", server.statistics()))
        server = Server(reactor, service, settings, sockets)
        reactor.run()
        # What comes now is the same request, or comes too late: it must not change how this ends.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    finally:
        reactor.close()
    if server.cut_short:
        log.warning("stopped; %d connections were cut short", server.cut_short)
        return 1
    log.info("stopped")
    return 0


def affordable(connections: int) -> int:
    """How many of so many connections the process may have descriptors for (21).

    Raises the soft limit, which is low for the sake of programs that use `select`, as far as
    needed and allowed. (`select` cannot name a descriptor above FD_SETSIZE, mostly 1024; epoll
    and kqueue can.) Says so once if that is not enough.
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
