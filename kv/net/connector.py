"""Connecting without blocking: to the first of several addresses that answers (33).

Generic: the connector hands the connected socket on and forgets it.

Some facts about connecting. The client's kernel sends a packet, and the server's kernel answers. If
no answer comes, the client's kernel sends the packet again, for about two minutes. On a
non-blocking socket `connect` starts this and says EINPROGRESS. When it has succeeded or failed, the
socket becomes writable, and SO_ERROR tells which.

Some facts about several addresses. A name often has an IPv6 and an IPv4 address, and the way to
one of them may swallow every packet. A client that tries one after the other waits there until its
time is over, although the next address would answer at once (48). RFC 8305 ("happy eyeballs") has a
better plan. The families take turns. A further attempt begins when one has failed, or after a
quarter of a second, while the earlier ones go on. The first to connect wins, and the others are
closed.
"""

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

from kv.net.address import Address, shown
from kv.net.reactor import WRITE, Reactor, Registration
from kv.net.timers import Timer

#: Seconds between the start of one attempt and that of the next (RFC 8305, section 5).
STAGGER = 0.25


@dataclass(slots=True, eq=False)
class Attempt:
    """A socket that is connecting."""

    sock: socket.socket
    address: Address
    registration: Registration

    def close(self) -> None:
        """Ends the attempt."""
        self.registration.set(0)
        self.sock.close()


class Connector:
    """Attempts, a quarter of a second apart, until one connects or all have failed.

    `connected` gets the socket, or `failed` the last error. `timeout`, in seconds, bounds all
    attempts together.
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
        self._addresses = in_turns(addresses)  # not tried yet
        self._attempts: list[Attempt] = []
        self._connected = connected
        self._failed = failed
        self.address: Address = ("", 0)  # the one that was connected to
        self._error: OSError = ConnectionError("no address")
        # With a short timeout and many addresses, the steps are shorter, so that each has its try.
        self._stagger = min(STAGGER, timeout / max(1, len(addresses)))
        self._next: Timer | None = None
        self._deadline = reactor.call_later(timeout, self._timed_out)
        self._over = False
        reactor.call_soon(self._try_next)

    def close(self) -> None:
        """Gives up. No callback comes after this."""
        self._over = True
        self._addresses.clear()
        self._deadline.cancel()
        self._cancel_next()
        while self._attempts:
            self._attempts.pop().close()

    def _try_next(self) -> None:
        self._cancel_next()
        while self._addresses:
            if self._begin(*self._addresses.popleft()):
                if self._addresses:  # the next one does not wait for the end of this one (48)
                    self._next = self._reactor.call_later(self._stagger, self._try_next)
                return
        if not self._attempts and not self._over:
            self.close()
            self._failed(self._error)

    def _begin(self, family: int, address: Address) -> bool:
        """Begins an attempt. False if it has failed already."""
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # this machine has no such address family
            self._error = error
            return False
        sock.setblocking(False)
        status = sock.connect_ex(address)
        if status not in (0, errno.EINPROGRESS, errno.EINTR):
            sock.close()
            self._error = failure(status, address)
            return False
        # Writable means that the attempt is over, not that it succeeded: SO_ERROR tells.
        registration = self._reactor.register(sock, lambda _: self._decided(attempt))
        attempt = Attempt(sock, address, registration)
        try:
            registration.set(WRITE)
        except OSError as error:  # the selector has no room
            sock.close()
            self._error = error
            return False
        self._attempts.append(attempt)
        return True

    def _decided(self, attempt: Attempt) -> None:
        status = verdict(attempt.sock)
        self._attempts.remove(attempt)
        if status:
            attempt.close()
            self._error = failure(status, attempt.address)
            self._try_next()  # at once: an address that refuses leaves its time to the others
            return
        attempt.registration.set(0)
        self.address = attempt.address
        self.close()  # the other attempts
        self._connected(attempt.sock)

    def _timed_out(self) -> None:
        tried = ", ".join(shown(attempt.address) for attempt in self._attempts)
        self.close()
        self._failed(OSError(errno.ETIMEDOUT, f"{os.strerror(errno.ETIMEDOUT)} ({tried})"))

    def _cancel_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None


def in_turns(addresses: list[tuple[int, Address]]) -> deque[tuple[int, Address]]:
    """The addresses with their families in turns, the first one's first (RFC 8305, section 4)."""
    first = [one for one in addresses if one[0] == addresses[0][0]]
    others = [one for one in addresses if one[0] != addresses[0][0]]
    return deque(one for pair in zip_longest(first, others) for one in pair if one is not None)


def verdict(sock: socket.socket) -> int:
    """How connecting has ended: 0, or an errno."""
    status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not status:
        try:
            # The kernel picks a free port to connect from. If nobody listens on the port to connect
            # to, it may pick just that one, and TCP then connects the socket to itself. (Compare
            # these two, and not the address asked for: 0.0.0.0 connects to 127.0.0.1.)
            if sock.getsockname() == sock.getpeername():
                status = errno.ECONNREFUSED
        except OSError:  # the peer has reset it meanwhile
            status = errno.ECONNRESET
    return status


def failure(status: int, address: Address) -> OSError:
    """The error of an attempt. `OSError` chooses its subclass by the number (`TimeoutError`)."""
    return OSError(status, f"{os.strerror(status)} ({shown(address)})")
