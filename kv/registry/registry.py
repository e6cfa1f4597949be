"""Who claims client ids, and is told: the claims, and the one connection to the registry.

A reply that waits for somebody else's answer must not make anybody else wait (54): whoever claims
an id is told later, in a turn of the loop, whatever happens. It is told no, if the registry is gone
or does not answer: nobody may serve under an id without knowing that it is theirs.

A connection that is lost comes again, after a pause. Whatever is wrong with an answer is raised:
the stream then ends the connection (28), and `closed` sees the exception.
"""

import logging
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from kv.errors import Violation
from kv.net.address import Address, resolve
from kv.net.connector import Connector
from kv.net.log import cause
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.timers import Callback
from kv.net.turns import Turns
from kv.registry.claims import Claim, ClaimOwner, Claims, News
from kv.registry.resp import GREETED, LINE_SIZE, Place

if TYPE_CHECKING:
    from kv.net.tls import Tls

log = logging.getLogger("kv")

#: Seconds, on a clock that does not stop while the machine sleeps (55): on Linux CLOCK_BOOTTIME.
#: The CLOCK_MONOTONIC of macOS does not stop then either.
now = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
#: The part of a lease between two looks at the time.
TICK = 1 / 12
#: Seconds before it is tried again: the first time, and in the end. At random up to twice as long,
#: so that not all servers come back at the same moment.
SHORTEST, LONGEST = 0.05, 2.0
#: Units of work that it is to tell an owner: about what a connection takes to send a reply.
TELLING = 30
#: Owners to tell in one turn that their claim is over.
SWEEP = 64
#: Seconds that a stop waits until the ids are given back.
FAREWELL = 1.0


class Registry:
    """Claims of client ids, and the one connection to where they are kept."""

    def __init__(
        self,
        reactor: Reactor,
        place: Place,
        addresses: list[tuple[int, Address]],
        lease: float,
        tls: "Callable[[], Tls] | None" = None,
        clock: Callable[[], float] = now,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """`lease` is in seconds, and has to be the same for all servers."""
        self._reactor = reactor
        self._place = place
        self.addresses = addresses
        self._tick_length = lease * TICK
        self._tls = tls
        self._clock = clock
        self._dice = dice
        self._token = os.urandom(8).hex()
        self._claims = Claims(self._token, lease, clock)
        self._turns = Turns(reactor, unsent_limit=sys.maxsize)
        self._stream: Stream | None = None
        self._gone = False  # and not tried, for the moment
        self._pause = SHORTEST
        self._said = ""
        self._done: Callback | None = None  # once `finish` was called
        self._tick()
        self._connect()

    # What the server calls

    def claim(self, client_id: str, owner: ClaimOwner) -> Claim:
        """Asks for an id; `owner` hears of it in a later turn."""
        self._reactor.call_soon(self._flush)
        return self._claims.claim(client_id, owner)

    def holds(self, claim: Claim) -> bool:
        """Whether the id may still be served: to be asked before each message.

        No timer can tell in time: the process may have stood still since the last turn (55).
        """
        return self._clock() < claim.until

    def give_back(self, claim: Claim, tell: bool = False) -> None:
        """Nobody needs it any more. With `tell`, the owner hears when the registry knows."""
        self._reactor.call_soon(self._flush)
        self._claims.give_back(claim, tell)

    def finish(self, done: Callback) -> None:
        """Calls `done` when all ids are given back, or after `FAREWELL`."""
        if self._done is None:
            self._done = done
            self._reactor.call_later(FAREWELL, self.close)
            self._reactor.call_soon(self._flush)

    def close(self) -> None:
        """Ends the connection. Nothing is asked, renewed or tried again."""
        self._ticker.cancel()
        self._stream = None
        self._leave()
        done, self._done = self._done, None
        if done is not None:
            done()

    # The connection. `_leave` ends what there is: an attempt, a stream, or a pause.

    def _connect(self) -> None:
        self._gone = False
        how = self._reactor, self.addresses, self._claims.patience, self._connected, self._lost
        self._leave: Callback = Connector(*how).close

    def _connected(self, sock: socket.socket) -> None:
        limits = Limits(line_size=LINE_SIZE, high_water=sys.maxsize)
        tls = self._tls() if self._tls is not None else None
        try:
            self._stream = Stream(self._reactor, sock, self, limits, self._turns, tls)
        except OSError as error:  # macOS refuses every option of a socket that was reset meanwhile
            sock.close()
            self._lost(error)
            return
        self._leave = self._stream.leave
        self._stream.write(self._place.greeting)
        self._flush()

    def _lost(self, error: Exception) -> None:
        self._stream = None
        self._say(logging.WARNING, f"is gone: {cause(error)}")
        pause = self._pause * (1 + self._dice())
        self._pause = min(2 * self._pause, LONGEST, self._claims.patience)
        self._leave = self._reactor.call_later(pause, self._connect).cancel
        self._gone = True
        self._flush()

    def _say(self, level: int, text: str) -> None:
        """Says it once."""
        if text != self._said:
            self._said = text
            log.log(level, "the registry %s:%s %s", self._place.host, self._place.port, text)

    # What the stream calls

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        """Tells the owners what follows from the answers. What is no answer raises."""
        work = 0
        for line in lines:
            work += 1
            if line != GREETED:
                news = self._claims.answered(line)
                self._pause = SHORTEST
                self._say(logging.INFO, f"answers; tokens of this server begin with {self._token}")
                self._tell(news)
                work += len(news) * TELLING
            if work >= budget or self._stream is None:
                break
        self._reactor.call_soon(self._flush)
        return work

    def line_too_long(self) -> None:
        """No answer has so many octets."""
        raise Violation("it does not answer as a Redis does")

    def held_up(self) -> None:
        """Does nothing: what is unsent is bounded by what is unanswered."""

    drained = held_up

    def end_received(self) -> None:
        """There is nothing to be polite about."""
        raise ConnectionError("it closed the connection")

    def closed(self, error: Exception | None, ours: bool) -> None:
        """It is tried again, unless it was `close` that ended it."""
        if ours and not isinstance(error, ConnectionError):
            log.error("an error in the handling of the registry's answers", exc_info=error)
        if self._stream is not None:
            self._lost(error or ConnectionError("the connection was closed"))

    # Saying and telling

    def _flush(self) -> None:
        """Says what there is to say. The first of these calls in a turn does, for all."""
        if self._stream is not None:
            if octets := b"".join(self._claims.requests()):
                self._stream.write(octets)
        elif self._gone:
            self._tell(self._claims.lost("the registry is gone"))
        if self._done is not None and self._claims.idle:
            self.close()

    def _tell(self, news: list[News]) -> None:
        """A mistake of an owner's is that owner's (28)."""
        for tell in news:
            try:
                tell()
            except Exception:
                log.exception("an error in the handling of a claim")

    def _tick(self) -> None:
        """Now and then: whoever does not answer is as good as gone, and claims are renewed."""
        self._ticker = self._reactor.call_later(self._tick_length, self._tick)
        patience, awaiting = self._claims.patience, self._claims.awaiting
        if self._stream is not None and awaiting and awaiting[0].sent < self._clock() - patience:
            self._stream.abort(TimeoutError(f"no answer for {patience:g} s"))
        self._flush()
        self._sweep()

    def _sweep(self) -> None:
        """Tells the owners of claims whose lease has run out, a few in a turn (38)."""
        lapsed = list(islice(self._claims.lapsed(), SWEEP))
        self._tell(lapsed)
        if lapsed:
            self._reactor.call_soon(self._sweep)


def joined(place: Place, lease: float) -> Callable[[Reactor], Registry]:
    """What makes a server one of those that share the registry at `place`, on its reactor.

    Resolving the name may block, and so may reading the system's authorities (27, 47): that is done
    here. Raises `OSError` if there is no such host, and `ValueError` if it cannot have TLS.
    """
    addresses = resolve(place.host, place.port)
    tls = None
    if place.tls:
        from kv.net.credentials import client_context, client_tls  # noqa: PLC0415 (seldom used)

        tls = partial(client_tls, client_context(), place.host)
        tls()  # so that a name that cannot be in a certificate is told now
    return partial(Registry, place=place, addresses=addresses, lease=lease, tls=tls)
