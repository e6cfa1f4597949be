"""Accepting connections without blocking, and opening the sockets to accept them on.

Generic: the listener hands each accepted socket on and forgets it.

Some facts about accepting. The kernel does TCP's handshake with every client, and does not ask the
program. The connection is established before the program knows of it, and waits in the listening
socket's queue. While the queue is not empty, the socket is readable. `accept` takes the first
connection out, as a new socket. So a server that does not call `accept` lets its clients wait (19).
If a waiting connection breaks, `accept` reports that, too (17). When the queue, the backlog, is
full, the server's kernel drops the packets of further clients, and their kernels send them again.
So connecting takes long, or times out. On Linux such a client may also believe that it is
connected, and be reset later.
"""

import errno
import logging
import socket
from collections.abc import Callable, Iterator

from kv.net import tcp
from kv.net.address import Address, resolve, shown
from kv.net.log import PEERS
from kv.net.reactor import READ, Reactor
from kv.net.timers import Callback, Timer

log = logging.getLogger("kv")
peers = logging.getLogger(PEERS)

#: Connections that may wait in the queue; the kernel may have a lower limit (listen(2)).
BACKLOG = 1024
#: Connections accepted in one turn. Without a bound, a flood of them would starve the clients.
BATCH = 64
#: Seconds until the next `accept` when descriptors or memory have run out.
RETRY = 0.5

#: Errors of `accept` that concern one waiting connection, not the listener (17). Linux passes on
#: the network errors of that connection. EPERM comes from a firewall (accept(2)).
DEAD_CONNECTION = {
    *(errno.ECONNABORTED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EPERM),
    *(errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *({errno.ENONET} if hasattr(errno, "ENONET") else ()),
}
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

#: Who takes a new connection, with the peer's address.
Accepted = Callable[[socket.socket, Address], object]


class Listener:
    """A listening socket in the loop. `accepted` gets each new socket and the peer's address."""

    def __init__(self, reactor: Reactor, sock: socket.socket, accepted: Accepted) -> None:
        self._reactor = reactor
        self._sock = sock
        self._accepted = accepted
        self._retry: Timer | None = None
        self._exhausted = False  # out of descriptors or memory; logged once
        self._paused = False
        self._done: Callback | None = None  # set by `finish`
        self._most = 0  # how many connections `finish` may still accept
        # Between readiness and `accept` the connection may be gone. A blocking listener would then
        # sleep until the next one comes (5).
        sock.setblocking(False)
        self._registration = reactor.register(sock, lambda _: self._ready())
        self._registration.set(READ)

    @property
    def address(self) -> Address:
        """The address of the socket. The port is the real one, even if 0 was asked for."""
        address: Address = self._sock.getsockname()
        return address

    @property
    def listening(self) -> bool:
        """Whether the socket is open."""
        return self._sock.fileno() >= 0

    def pause(self) -> None:
        """Stops accepting. The kernel queues up to BACKLOG connections (19)."""
        self._paused = True
        self._registration.set(0)

    def resume(self) -> None:
        """Goes on accepting, or tries again later if the selector has no room."""
        self._paused = False
        if self._retry is None:
            try:
                self._registration.set(READ)
            except OSError as error:
                self._back_off(error)

    def finish(self, done: Callback) -> None:
        """Accepts the connections that are in the queue by now, then closes and calls `done`.

        Their clients believe that they are connected, and what they sent was acknowledged. To close
        the socket would reset them (46). Who comes meanwhile is accepted, too, up to a bound.
        """
        self._done = done
        self._most = BACKLOG
        self._paused = False
        self._look_away()  # an empty queue gives no readiness, so a deferred call looks
        self._reactor.call_soon(self._ready)

    def close(self) -> None:
        """Stops listening. Connections still in the kernel's queue are reset."""
        self._look_away()
        self._sock.close()

    def refuse(self) -> int:
        """Stops listening and closes the connections in the queue. Returns their number.

        Whoever has sent something gets RST, as it was not read (12).
        """
        if not self.listening:
            return 0
        self._paused = False
        refused = 0
        try:
            for sock, _ in self._arrivals(BACKLOG):
                sock.close()
                refused += 1
        except OSError:  # the queue is empty, or no descriptor is left: then one more, at least
            refused += tcp.readable(self._sock)
        self.close()
        return refused

    def _arrivals(self, most: int) -> Iterator[tuple[socket.socket, Address]]:
        """Up to `most` connections out of the kernel's queue. Raises what ends `accept` early."""
        for _ in range(most):
            if self._paused:  # the last connection has reached the limit
                return
            try:
                yield self._sock.accept()
            except OSError as error:
                if error.errno not in DEAD_CONNECTION:
                    raise
                peers.info("a connection died before it was accepted: %s", error.strerror)

    def _ready(self) -> None:
        if not self.listening:
            return
        try:
            for sock, address in self._arrivals(BATCH):
                self._most -= 1
                hand_on(self._accepted, sock, address)
        except (BlockingIOError, InterruptedError):
            self._exhausted = False
            self._most = 0
        except OSError as error:
            if error.errno not in OUT_OF_RESOURCES:
                raise
            self._back_off(error)
            return
        if self._done is not None and self._most > 0:
            self._reactor.call_soon(self._ready)
        elif self._done is not None:
            self.close()
            self._done()

    def _back_off(self, error: OSError) -> None:
        """Does not watch the listener for a moment.

        The connection stays in the kernel's queue, so the listener stays readable. Without this
        pause, the loop would spin until a descriptor is free (18).
        """
        if not self._exhausted:
            log.warning("cannot accept connections: %s", error.strerror)
        self._exhausted = True
        self._registration.set(0)
        self._retry = self._reactor.call_later(RETRY, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if self._done is not None:
            self._ready()
        elif not self._paused:
            self.resume()

    def _look_away(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._registration.set(0)


def hand_on(accepted: Accepted, sock: socket.socket, address: Address) -> None:
    """Gives a connection to `accepted`. An error there drops this connection, no other (28)."""
    try:
        accepted(sock, address)
    except Exception:
        log.exception("dropped %s: its connection could not be set up", shown(address))
        sock.close()


def listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket for every address that `host` has, all on one port.

    With port 0 the kernel picks a port for the first, and the others must get the same. Raises
    `OSError`. Resolving the name may block, so call this before the reactor runs (27).
    """
    addresses = resolve(host, port)
    for attempt in range(10):
        try:
            return _listen_on_all(addresses, port)
        except OSError as error:
            # The port that the kernel picked for one address is in use under another.
            if port or error.errno != errno.EADDRINUSE or attempt == 9:
                raise
    raise AssertionError("unreachable")


def _listen_on_all(addresses: list[tuple[int, Address]], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    dual_stack = all(family == socket.AF_INET6 for family, _ in addresses)
    try:
        for family, address in addresses:
            try:
                sock = _listen_on(family, (address[0], port, *address[2:]), dual_stack)
            except OSError as error:
                # `localhost` may name ::1 on a machine that has no IPv6.
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    raise
                missing = error
                continue
            sockets.append(sock)
            port = sock.getsockname()[1]
        if not sockets:
            raise missing
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listen_on(family: int, address: Address, dual_stack: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # The kernel of the side that closes first remembers a connection for a minute (TIME_WAIT),
        # in case late packets arrive. Without this option, such connections of an earlier run keep
        # the port (20). On Linux, two servers still cannot listen at once. On the BSDs and macOS,
        # one server can have the wildcard address and another a specific address of the same port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # The default differs between systems. `::` alone also serves IPv4 (20).
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual_stack else 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
