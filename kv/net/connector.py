"""Connecting without blocking: to the first of several addresses that answers (33).

Generic: hands the connected socket on and forgets it.

Some facts about connecting. It takes a packet there and one back, and somebody at the other end to
send it; a packet that is swallowed is sent again for two minutes. On a non-blocking socket
`connect` begins all that and says EINPROGRESS. When the matter is decided, either way, the socket
becomes writable, and SO_ERROR tells which way.
"""

import errno
import os
import socket
from collections.abc import Callable

from kv.net.address import Address, shown
from kv.net.reactor import WRITE, Reactor, Registration, Timer


class Connector:
    """One attempt after the other, until one connects or there is no address left.

    `connected` gets the socket; `failed` the last error. Each address gets an equal share of
    `timeout` (in seconds), so that one which never answers leaves time for the next.
    """

    def __init__(
        self,
        reactor: Reactor,
        addresses: list[tuple[int, Address]],
        timeout: float,
        connected: Callable[[socket.socket], object],
        failed: Callable[[OSError], object],
    ) -> None:
        self._reactor = reactor
        self._addresses = list(addresses)
        self._share = timeout / len(addresses)
        self._connected = connected
        self._failed = failed
        self.address: Address = ("", 0)  # the one that is tried, in the end the one connected to
        self._sock: socket.socket | None = None
        self._registration: Registration | None = None
        self._timer: Timer | None = None
        self._given_up = False
        self._error: OSError = ConnectionError("no address")
        reactor.call_soon(self._try_next)

    def close(self) -> None:
        """Gives up: neither callback is called any more."""
        self._given_up = True
        self._addresses.clear()
        self._release()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _try_next(self) -> None:
        while self._addresses:
            family, self.address = self._addresses.pop(0)
            try:
                self._sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:  # this machine has no such address family
                self._error = error
                continue
            self._sock.setblocking(False)
            status = self._sock.connect_ex(self.address)
            if status in (0, errno.EINPROGRESS, errno.EINTR):
                # Writable means decided, not connected: SO_ERROR tells which.
                self._registration = self._reactor.register(self._sock, lambda _: self._decided())
                self._registration.set(WRITE)
                self._timer = self._reactor.call_later(self._share, self._timed_out)
                return
            self._give_up(status)
        if not self._given_up:
            self._failed(self._error)

    def _decided(self) -> None:
        self._release()
        assert self._sock is not None
        status = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not status and self._sock.getsockname() == self.address:
            # Connecting to a port of the ephemeral range that nobody listens on may pick that
            # very port to come from, and TCP then connects the socket to itself.
            status = errno.ECONNREFUSED
        if status:
            self._give_up(status)
            self._try_next()
            return
        sock, self._sock = self._sock, None
        self._connected(sock)

    def _timed_out(self) -> None:
        self._give_up(errno.ETIMEDOUT)
        self._try_next()

    def _give_up(self, status: int) -> None:
        self._release()
        assert self._sock is not None
        self._sock.close()
        self._sock = None
        # OSError picks its subclass from the number: ConnectionRefusedError, TimeoutError, …
        self._error = OSError(status, f"{os.strerror(status)} ({shown(self.address)})")

    def _release(self) -> None:
        if self._registration is not None:
            self._registration.set(0)
            self._registration = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
