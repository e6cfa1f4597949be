"""Who claims client ids, and is told: the claims, and the channel to the registry.

A reply that waits for somebody else's answer must not make anybody else wait (54): whoever claims
an id is told later, in a turn of the loop, whatever happens. It is told no, if the registry is gone
or does not answer: nobody may serve under an id without knowing that it is theirs.

What is asked for in one turn goes out together, and at most `WINDOW` requests are without an
answer: the rest waits here, as long as whoever asked does.
"""

import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from kv.errors import Violation
from kv.net.address import Address, resolve
from kv.net.reactor import Reactor
from kv.net.timers import Callback
from kv.registry import resp
from kv.registry.channel import Channel
from kv.registry.claims import Claim, ClaimOwner, Claims, News, Request
from kv.registry.resp import Act, Place, Unwilling

if TYPE_CHECKING:
    from kv.net.tls import Tls

log = logging.getLogger("kv")

#: Linux has CLOCK_BOOTTIME; the CLOCK_MONOTONIC of macOS does not stop in its sleep either.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: Requests without an answer.
WINDOW = 16
#: Parts of a lease after which an answer is not waited for, or claims are renewed again; and
#: between two looks at the time.
PATIENCE, TICK = 1 / 3, 1 / 12
#: Units of work that it is to tell an owner: about what a connection takes to send a reply.
TELLING = 30
#: Owners to tell in one turn that their claim is over.
SWEEP = 64
GONE = "the registry is gone"
#: Seconds that a stop waits until the ids are given back.
FAREWELL = 1.0


def now() -> float:
    """Seconds, on a clock that does not stop while the machine sleeps (55)."""
    return time.clock_gettime(CLOCK)


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
        self._greeting = place.greeting
        self._clock = clock
        self._token = os.urandom(8).hex()
        self._claims = Claims(self._token, lease, clock)
        self._lease = lease
        self._awaiting: deque[Request] = deque()
        self._renewed = 0.0  # when the last round of renewal began
        self._over = False
        self._flushing = False  # a call of _flush is deferred
        self._done: Callback | None = None  # once `finish` was called
        name = f"{place.host}:{place.port}"
        self.channel = Channel(reactor, name, addresses, lease * PATIENCE, self, tls, dice)
        self._tick()

    # What the server calls

    def claim(self, client_id: str, owner: ClaimOwner) -> Claim:
        """Asks for an id; `owner` hears of it in a later turn."""
        claim = self._claims.claim(client_id, owner)
        self._flush_soon()
        return claim

    def holds(self, claim: Claim) -> bool:
        """Whether the id may still be served: to be asked before each message.

        No timer can tell in time: the process may have stood still since the last turn (55).
        """
        return self._clock() < claim.until

    def give_back(self, claim: Claim, tell: bool = False) -> None:
        """Nobody needs it any more. With `tell`, the owner hears when the registry knows."""
        self._claims.give_back(claim, tell)
        self._flush_soon()

    def finish(self, done: Callback) -> None:
        """Calls `done` when all ids are given back, or the registry does not answer."""
        if self._done is None:
            self._done = done
            self._reactor.call_later(FAREWELL, self.close)
            self._flush_soon()

    def close(self) -> None:
        """Ends the connection. Nothing is asked, renewed or tried again."""
        self._over = True
        self._ticker.cancel()
        self.channel.close()
        done, self._done = self._done, None
        if done is not None:
            done()

    # What the channel calls

    def channel_open(self) -> None:
        """Greets, and renews: also if there is nothing, so that lost data are noticed at once."""
        self.channel.write(b"".join(self._greeting))
        self._awaiting.extend(Request(None, [], self._clock()) for _ in self._greeting)
        self._renew()

    def channel_lost(self) -> None:
        """Nothing that was asked will be answered. What is held is held, for its lease."""
        while self._awaiting:
            self._tell(self._claims.unanswered(self._awaiting.popleft(), GONE))
        self._tell(self._claims.unsent(GONE))
        if self._done is not None:
            self.close()

    def line_received(self, line: bytes) -> int:
        """An answer, to what was asked first. Returns the work that it was."""
        if not self._awaiting:
            raise Violation("it answers what nobody has asked")
        request = self._awaiting[0]  # and there it stays, if this is no answer
        try:
            news = self._claims.answered(request, resp.word(line))
            if request.act is not None:
                self.channel.good(f"answers; tokens of this server begin with {self._token}")
        except Unwilling as error:
            # Who is full, say, takes no new ids, and those that there are can be renewed.
            if request.act is not Act.CLAIM:
                raise
            news = self._claims.unanswered(request, f"the registry does not take it: {error}")
        self._awaiting.popleft()
        self._tell(news)
        self._flush_soon()
        return 1 + len(news) * TELLING

    # Sending

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._reactor.call_soon(self._flush)

    def _flush(self) -> None:
        """Sends what there is to send, as far as the window allows, and the registry is there."""
        self._flushing = False
        if self.channel.resting:
            self._tell(self._claims.unsent(GONE))
        while self.channel.open and len(self._awaiting) < WINDOW:
            request = self._claims.next_request()
            if request is None or request.act is None:
                break
            ids = [claim.client_id for claim in request.claims]
            tokens = [claim.token for claim in request.claims]
            self.channel.write(resp.request(request.act, ids, tokens, self._lease))
            self._awaiting.append(request)
        if self._done is not None and self._claims.idle and not self._awaiting:
            self.close()

    def _renew(self) -> None:
        self._renewed = self._clock()
        self._claims.renew_all()
        self._flush_soon()

    # Time

    def _tick(self) -> None:
        """Now and then: whoever does not answer is as good as gone, and claims are renewed."""
        self._ticker = self._reactor.call_later(self._lease * TICK, self._tick)
        since = self._clock() - self._lease * PATIENCE
        if self._awaiting and self._awaiting[0].sent < since:
            self.channel.abort(TimeoutError(f"no answer for {self._lease * PATIENCE:g} s"))
        elif self.channel.open and self._renewed < since:
            self._renew()
        self._sweep()

    def _sweep(self) -> None:
        """Tells the owners of claims whose lease has run out, a few in a turn (38)."""
        lapsed = list(islice(self._claims.lapsed(), SWEEP))
        self._tell(lapsed)
        if len(lapsed) == SWEEP and not self._over:
            self._reactor.call_soon(self._sweep)

    # Telling

    def _tell(self, news: Iterable[News]) -> None:
        """A mistake of an owner's is that owner's (28)."""
        for tell in news:
            try:
                tell()
            except Exception:
                log.exception("an error in the handling of a claim")


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
