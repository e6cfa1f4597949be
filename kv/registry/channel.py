"""The connection to the registry: comes again when it is lost, and carries lines.

Knows nothing of ids. What is written while there is no connection is the owner's to keep.
"""

import logging
import random
import socket
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from kv.errors import Violation
from kv.net.address import Address
from kv.net.connector import Connector
from kv.net.log import cause
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.timers import Timer
from kv.net.turns import Turns
from kv.registry.resp import LINE_SIZE, Unwilling

if TYPE_CHECKING:
    from kv.net.tls import Tls

log = logging.getLogger("kv")

#: Seconds before it is tried again: the first time, and in the end. At random up to twice as long,
#: so that not all servers come back at the same moment.
SHORTEST, LONGEST = 0.05, 2.0


class ChannelOwner(Protocol):
    """Whom a channel tells what happens to it."""

    def channel_open(self) -> None:
        """There is a connection: it can be written to."""

    def line_received(self, line: bytes) -> int:
        """A line; returns the work that it was. Raises `Violation` or `Unwilling` to end it."""

    def channel_lost(self) -> None:
        """There is none any more, or none came. It is tried again."""


class Channel:
    """One connection at a time, to one of `addresses`; `patience`, in seconds, is for each try."""

    def __init__(
        self,
        reactor: Reactor,
        name: str,
        addresses: list[tuple[int, Address]],
        patience: float,
        owner: ChannelOwner,
        tls: "Callable[[], Tls] | None" = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self.addresses = addresses
        self._patience = patience
        self._owner = owner
        self._tls = tls
        self._dice = dice
        self._limits = Limits(line_size=LINE_SIZE, high_water=sys.maxsize)
        self._turns = Turns(reactor, unsent_limit=sys.maxsize)
        self._connector: Connector | None = None
        self._stream: Stream | None = None
        self._pause = SHORTEST
        self._retry: Timer | None = None
        self._said = ""
        self._closed = False
        self._connect()

    @property
    def open(self) -> bool:
        """Whether there is a connection."""
        return self._stream is not None

    @property
    def resting(self) -> bool:
        """Whether none is tried, for the moment."""
        return self._retry is not None

    def write(self, octets: bytes) -> None:
        """Sends them. There has to be a connection."""
        assert self._stream is not None
        self._stream.write(octets)

    def good(self, text: str) -> None:
        """What comes makes sense: the next pause is a short one. `text` is said, once."""
        self._pause = SHORTEST
        self._say(logging.INFO, text)

    def abort(self, error: Exception) -> None:
        """Ends the connection, if there is one."""
        if self._stream is not None:
            self._stream.abort(error)

    def close(self) -> None:
        """Ends it for good."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._connector is not None:
            self._connector.close()
        if self._stream is not None:
            self._stream.leave()

    def _connect(self) -> None:
        self._retry = None
        how = self._reactor, self.addresses, self._patience, self._connected, self._lost
        self._connector = Connector(*how)

    def _connected(self, sock: socket.socket) -> None:
        self._connector = None
        tls = self._tls() if self._tls is not None else None
        try:
            self._stream = Stream(self._reactor, sock, self, self._limits, self._turns, tls)
        except OSError as error:  # macOS refuses every option of a socket that was reset meanwhile
            sock.close()
            self._lost(error)
            return
        self._owner.channel_open()

    def _lost(self, error: Exception) -> None:
        self._connector = self._stream = None
        if self._closed:
            return
        self._say(logging.WARNING, f"is gone: {cause(error)}")
        self._retry = self._reactor.call_later(self._pause * (1 + self._dice()), self._connect)
        self._pause = min(2 * self._pause, LONGEST, self._patience)
        self._owner.channel_lost()

    def _say(self, level: int, text: str) -> None:
        """Says it once."""
        if text != self._said:
            self._said = text
            log.log(level, "the registry %s %s", self._name, text)

    # What the stream calls

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Hands them on, until one makes no sense."""
        work = 0
        try:
            for line in lines:
                work += self._owner.line_received(line)
                if work >= budget or self._closed:
                    break
        except (Violation, Unwilling) as error:
            self.abort(error)
        return max(1, work)

    def line_too_long(self) -> None:
        """No answer has so many octets."""
        self.abort(Violation("it does not answer as a Redis does"))

    def held_up(self) -> None:
        """Never happens."""

    def drained(self) -> None:
        """What is unsent is bounded by what is unanswered."""

    def end_received(self) -> None:
        """There is nothing to be polite about."""
        self.abort(ConnectionError("it closed the connection"))

    def closed(self, error: Exception | None, ours: bool) -> None:
        """It is tried again."""
        if ours:
            log.error("an error in the handling of the registry's answers", exc_info=error)
        self._lost(error or ConnectionError("the connection was closed"))
