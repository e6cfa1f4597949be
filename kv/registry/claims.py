"""Which client ids this server holds, and until when.

Sans-I/O: what is to be said comes out as a `Request`, and its answer goes in; the clock is given.

A claim holds for a *lease*: unless it is renewed, the registry gives the id to whoever asks. So the
server must have stopped serving under it before that, without being told by anybody (55):

- The lease is counted from before the request was sent. The registry counts from when it did what
  it was asked, which is later. How long the answer takes does not matter.
- The clock must not stop while the machine sleeps.
- The server trusts in a part of the lease only (`TRUST`): two clocks do not run at quite the same
  rate, and a turn of the loop takes its time.

Every claim has a token of its own, and whoever renews or gives back shows it. Were there one token
for all claims of a server, a request that a lost connection delivers late could give away what a
later claim holds.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import count, islice
from typing import Protocol

from kv.errors import Violation
from kv.registry.resp import Act

#: Ids in one request.
BATCH = 64
#: The part of a lease that counts.
TRUST = 0.95

TAKEN = "another server has a session under this client id"
YOUNG = "the registry is new, or has lost its data: it gives no id away for one lease"
LOST = "the registry says that another server may have its client id"
LAPSED = "the lease of its client id has run out"
LATE = "the registry answered when the lease had run out"


class Stage(Enum):
    """How far a claim has come."""

    WAITING = "not sent"
    ASKED = "sent"
    HELD = "granted"
    LEAVING = "to be given back, and the owner waits for that"
    OVER = "refused, lost or given back"


WAITING, ASKED, HELD, LEAVING, OVER = Stage

#: What an owner is to be told.
News = Callable[[], None]


class ClaimOwner(Protocol):
    """Whom a claim is for. It is granted or refused, once. What is granted may be lost, once."""

    def claim_granted(self) -> None:
        """No other server has the id."""

    def claim_refused(self, reason: str) -> None:
        """Another may have it: the claim is over."""

    def claim_lost(self, reason: str) -> None:
        """Another may have it by now: the claim is over."""

    def claim_over(self) -> None:
        """It is given back, as was wished; or the registry is gone, and does so after the lease."""


@dataclass(slots=True, eq=False)
class Claim:
    """One client id, wanted or held, for `owner`."""

    client_id: str
    token: str
    owner: ClaimOwner
    stage: Stage = WAITING
    until: float = 0.0  # the id may be served


@dataclass(slots=True)
class Request:
    """What is to be said about some claims; `sent` is a time from before it is sent.

    Without an act it is part of the greeting.
    """

    act: Act | None
    claims: list[Claim]
    sent: float


class Claims:
    """All claims of one server."""

    def __init__(self, name: str, lease: float, clock: Callable[[], float]) -> None:
        """`name` is no other server's, and none's that was; `lease` is in seconds."""
        self.lease = lease
        self._clock = clock
        self._name = name
        self._numbers = count()
        self._waiting: dict[Claim, None] = {}
        self._held: OrderedDict[Claim, None] = OrderedDict()  # whose lease runs out first is first
        self._renewing: deque[Claim] = deque()
        self._round = False  # of renewals: it is not over
        self._leaving: deque[Claim] = deque()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to be said."""
        return not (self._waiting or self._round or self._leaving)

    def claim(self, client_id: str, owner: ClaimOwner) -> Claim:
        """A new claim, to be sent."""
        claim = Claim(client_id, f"{self._name}:{next(self._numbers)}", owner)
        self._waiting[claim] = None
        return claim

    def give_back(self, claim: Claim, tell: bool = False) -> None:
        """Nobody needs it any more. What is still to be answered is given back all the same."""
        if claim.stage in (ASKED, HELD):
            self._leaving.append(claim)
        self._end(claim)
        if tell:
            claim.stage = LEAVING

    def renew_all(self) -> None:
        """Renews whatever is held, unless the last round is not over yet.

        If nothing is, it is said all the same: so a registry that has lost its data is noticed.
        """
        if not self._round:
            self._round = True
            self._renewing.extend(self._held)

    def next_request(self) -> Request | None:
        """What is to be said next. An id is given back before it is asked for again."""
        if self._leaving:
            return self._request(Act.RELEASE, taken(self._leaving))
        if self._round:
            held = [claim for claim in taken(self._renewing) if claim.stage is HELD]
            self._round = bool(self._renewing)
            return self._request(Act.RENEW, held)
        claims = list(islice(self._waiting, BATCH))
        for claim in claims:
            del self._waiting[claim]
            claim.stage = ASKED
        return self._request(Act.CLAIM, claims) if claims else None

    def answered(self, request: Request, said: str) -> list[News]:
        """What follows from what was `said`. Raises `Violation` for what is no answer."""
        if request.act is None:
            return []
        if len(said) != len(request.claims) or not set(said) <= set("01y"):
            raise Violation(f"it answers {said[:40]!r} to {len(request.claims)} ids")
        until = self._until(request)
        news: list[News | None] = []
        for claim, verdict in zip(request.claims, said, strict=True):
            if request.act is Act.CLAIM:
                news.append(self._claimed(claim, verdict, until))
            elif request.act is Act.RENEW:
                news.append(self._renewed(claim, verdict, until))
            else:
                news.append(self._released(claim))
        return [one for one in news if one is not None]

    def _claimed(self, claim: Claim, verdict: str, until: float) -> News | None:
        if claim.stage is not ASKED:
            return None
        if verdict == "1" and until > self._clock():
            self._hold(claim, until)
            return claim.owner.claim_granted
        if verdict == "1":
            self.give_back(claim)
        self._end(claim)
        reason = {"0": TAKEN, "y": YOUNG, "1": LATE}[verdict]
        return partial(claim.owner.claim_refused, reason)

    def _renewed(self, claim: Claim, verdict: str, until: float) -> News | None:
        if claim.stage is not HELD:
            return None
        if verdict == "1":
            self._hold(claim, until)
            return None
        self._end(claim)
        return partial(claim.owner.claim_lost, LOST)

    def _released(self, claim: Claim) -> News | None:
        if claim.stage is not LEAVING:
            return None
        claim.stage = OVER
        return claim.owner.claim_over

    def unanswered(self, request: Request, reason: str) -> list[News]:
        """No answer will come, or an error has: whoever waits for one is told.

        What the registry may have granted is given back.
        """
        news: list[News] = []
        for claim in request.claims:
            if claim.stage is ASKED:
                self.give_back(claim)
                news.append(partial(claim.owner.claim_refused, reason))
            elif (over := self._released(claim)) is not None:
                news.append(over)
        return news

    def unsent(self, reason: str) -> list[News]:
        """The connection is lost: whoever waits to be asked for is told. What is held goes on."""
        self._round = False
        self._renewing.clear()
        news: list[News] = []
        for claim in list(self._waiting):
            self._end(claim)
            news.append(partial(claim.owner.claim_refused, reason))
        return news + [over for over in map(self._released, self._leaving) if over is not None]

    def lapsed(self) -> Iterator[News]:
        """For the claims whose lease has run out: another server may have the ids by now."""
        while self._held and (claim := next(iter(self._held))).until <= self._clock():
            self._end(claim)
            yield partial(claim.owner.claim_lost, LAPSED)

    def _request(self, act: Act, claims: list[Claim]) -> Request:
        return Request(act, claims, self._clock())

    def _until(self, request: Request) -> float:
        """When the lease runs out that an answer to `request` means."""
        return request.sent + TRUST * self.lease

    def _hold(self, claim: Claim, until: float) -> None:
        claim.stage, claim.until = HELD, until
        self._held[claim] = None
        self._held.move_to_end(claim)

    def _end(self, claim: Claim) -> None:
        if claim.stage is HELD:
            del self._held[claim]
        self._waiting.pop(claim, None)
        claim.stage = OVER


def taken(queue: deque[Claim]) -> list[Claim]:
    """The first claims of a queue, as many as one request takes."""
    return [queue.popleft() for _ in range(min(BATCH, len(queue)))]
