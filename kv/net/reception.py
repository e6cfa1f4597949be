"""Takes connections that have to say first who is behind them, and hands them on.

Generic, and optional: stands between a listener and whoever takes its connections. The header is
the balancer's, and all that follows is the client's. So no octet more than the header is taken out
of the socket: MSG_PEEK shows what has arrived, and leaves it there. What belongs to the header is
then taken, also if its end is still to come: what is only looked at keeps a socket readable, and
the loop would spin.
"""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

from kv.net.address import Address, shown
from kv.net.listener import Accepted, hand_on
from kv.net.log import PEERS, cause
from kv.net.proxy import LONGEST, BadHeader, Network, parse, within
from kv.net.reactor import READ, Reactor, Registration
from kv.net.timers import Timer

peers = logging.getLogger(PEERS)

#: Connections whose header has not come. Balancers send it at once.
MOST = 256


@dataclass(slots=True, eq=False)
class Newcomer:
    """A connection whose header has not come whole."""

    sock: socket.socket
    address: Address
    registration: Registration
    deadline: Timer
    octets: bytes = b""


class Reception:
    """Hands connections on to `accepted`, with the client's address; drops all others.

    `allowed` are the balancers; each has `timeout` seconds for its header. `changed` is called when
    there may be more or fewer who wait than before: `len` says how many.
    """

    def __init__(
        self,
        reactor: Reactor,
        allowed: tuple[Network, ...],
        timeout: float,
        accepted: Accepted,
        changed: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._allowed = allowed
        self._timeout = timeout
        self._accepted = accepted
        self._changed = changed
        self._waiting: dict[Newcomer, None] = {}
        self._closing = False

    def __len__(self) -> int:
        return len(self._waiting)

    def receive(self, sock: socket.socket, address: Address) -> None:
        """Takes a connection over: what a listener calls."""
        sock.setblocking(False)
        registration = self._reactor.register(sock, lambda _: self._ready(newcomer))
        deadline = self._reactor.call_later(
            self._timeout, lambda: self._drop(newcomer, f"no PROXY header in {self._timeout:g} s")
        )
        newcomer = Newcomer(sock, address, registration, deadline)
        self._waiting[newcomer] = None
        if not within(address, self._allowed):
            self._drop(newcomer, "it is not one of the balancers")
        elif len(self._waiting) > MOST:
            self._drop(newcomer, f"{MOST} others have not sent their PROXY header")
        else:
            self._ready(newcomer)  # mostly it is there already
            if self._closing:
                self.close()
            elif newcomer in self._waiting:
                self._await(newcomer)

    def close(self) -> None:
        """Drops whoever has not said who it is; from now on, who does not say so at once.

        What has arrived counts: the loop may not have looked since (46).
        """
        self._closing = True
        for newcomer in list(self._waiting):
            self._ready(newcomer)
            if newcomer in self._waiting:
                self._drop(newcomer, "the server is stopping")

    def _await(self, newcomer: Newcomer) -> None:
        try:
            newcomer.registration.set(READ)
        except OSError:  # the selector has no room: the listener drops it, and logs this
            self._forget(newcomer)
            raise
        finally:
            self._changed()

    def _ready(self, newcomer: Newcomer) -> None:
        try:
            self._read(newcomer)
        except (BlockingIOError, InterruptedError):
            pass
        except BadHeader as error:
            self._drop(newcomer, str(error))
        except OSError as error:  # as a health check does that says nothing
            self._forget(newcomer)
            newcomer.sock.close()
            peers.debug("lost %s: %s", shown(newcomer.address), cause(error))
        self._changed()

    def _read(self, newcomer: Newcomer) -> None:
        arrived = newcomer.sock.recv(LONGEST, socket.MSG_PEEK)
        if not arrived:
            raise ConnectionError("it ended before its PROXY header")
        before = len(newcomer.octets)
        newcomer.octets += arrived
        found = parse(newcomer.octets)
        taken = len(arrived) if found is None else found[0] - before
        newcomer.sock.recv(taken)
        if found is not None:
            self._forget(newcomer)
            hand_on(self._accepted, newcomer.sock, found[1] or newcomer.address)

    def _drop(self, newcomer: Newcomer, reason: str) -> None:
        self._forget(newcomer)
        newcomer.sock.close()
        peers.info("dropped %s: %s", shown(newcomer.address), reason)
        self._changed()

    def _forget(self, newcomer: Newcomer) -> None:
        del self._waiting[newcomer]
        newcomer.deadline.cancel()
        newcomer.registration.set(0)
