"""Which client ids this server holds, and until when.

Sans-I/O: requests come out as octets, and lines with answers go in; the clock is given.

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

All claims are renewed together, a third of the lease apart. What is asked for in one turn goes out
together, too. At most `WINDOW` requests are without an answer; the rest waits here.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import NamedTuple, Protocol

from kv.errors import Violation
from kv.registry.resp import Act, Unwilling, request, verdicts

#: Ids in one request, and requests without an answer.
BATCH, WINDOW = 64, 16
#: Parts of a lease: what counts of it; and after what time claims are renewed again, and an answer
#: is not waited for any more.
TRUST, PATIENCE = 0.95, 1 / 3

TAKEN = "the registry says that another server may have this client id"
YOUNG = "the registry is new, or has lost its data: it gives no id away for one lease"

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
    """One client id, wanted or held, for `owner`.

    `act` says how far it has come: CLAIM until the owner has an answer, RENEW while the id is held,
    RELEASE while the owner waits for it to be given back. None if the owner hears no more of it.
    """

    client_id: str
    token: str
    owner: ClaimOwner
    act: Act | None = Act.CLAIM
    until: float = 0.0  # the id may be served


class Request(NamedTuple):
    """What was said about some claims; `sent` is a time from before it was sent."""

    act: Act
    claims: list[Claim]
    sent: float


class Claims:
    """All claims of one server."""

    def __init__(self, name: str, lease: float, clock: Callable[[], float]) -> None:
        """`name` is no other server's, and none's that was; `lease` is in seconds."""
        self.patience = lease * PATIENCE
        self._name = name
        self._lease = lease
        self._clock = clock
        self._renewal = clock()  # when it is due
        self._numbers = count()
        self._held: OrderedDict[Claim, None] = OrderedDict()  # whose lease runs out first is first
        # What is still to be said, in this order: an id is given back before it is asked for again.
        self._unsent: dict[Act, OrderedDict[Claim, None]] = {act: OrderedDict() for act in Act}
        self.awaiting: deque[Request] = deque()  # without an answer, the oldest first

    @property
    def idle(self) -> bool:
        """Whether all is said and answered."""
        return not (self.awaiting or any(self._unsent.values()))

    def claim(self, client_id: str, owner: ClaimOwner) -> Claim:
        """A new claim, to be sent."""
        claim = Claim(client_id, f"{self._name}:{next(self._numbers)}", owner)
        self._unsent[Act.CLAIM][claim] = None
        return claim

    def give_back(self, claim: Claim, tell: bool = False) -> None:
        """Nobody needs it any more. What is still to be answered is given back all the same."""
        self._end(claim, release=True)
        if tell:
            claim.act = Act.RELEASE

    # What is said

    def requests(self) -> Iterator[bytes]:
        """What is to be said now. There is a connection.

        Renewals begin with a request about no ids. So a registry that has lost its data is noticed
        even if nothing is held.
        """
        if self._renewal <= self._clock():
            self._renewal = self._clock() + self.patience
            self._unsent[Act.RENEW] = self._held.copy()  # the most urgent first
            yield self._ask(Act.RENEW, [])
        for act, claims in self._unsent.items():
            while claims and len(self.awaiting) < WINDOW:
                size = min(BATCH, len(claims))
                yield self._ask(act, [claims.popitem(last=False)[0] for _ in range(size)])

    def _ask(self, act: Act, claims: list[Claim]) -> bytes:
        self.awaiting.append(Request(act, claims, self._clock()))
        ids = [claim.client_id for claim in claims]
        return request(act, ids, [claim.token for claim in claims], self._lease)

    # What follows

    def answered(self, line: bytes) -> list[News]:
        """What follows from an answer, to what was asked first.

        Raises `Violation` for what is no answer, and `Unwilling` for an error.
        """
        if not self.awaiting:
            raise Violation("it answers what nobody has asked")
        asked = self.awaiting[0]  # and there it stays, if this is no answer
        try:
            said = verdicts(line, len(asked.claims))
        except Unwilling as error:
            # Who is full, say, takes no new ids, and those that there are can be renewed.
            if asked.act is not Act.CLAIM:
                raise
            self.awaiting.popleft()
            return self._unanswered(asked.claims, f"the registry does not take it: {error}")
        self.awaiting.popleft()
        until = asked.sent + TRUST * self._lease  # the answer took its time (55)
        if until <= self._clock():
            return self._unanswered(asked.claims, "the registry answered too late")
        news: list[News] = []
        for claim, verdict in zip(asked.claims, said, strict=True):
            if claim.act is not asked.act:
                continue  # it was given back meanwhile
            if verdict != "1" or asked.act is Act.RELEASE:
                news.append(self._end(claim, YOUNG if verdict == "y" else TAKEN))
                continue
            if asked.act is Act.CLAIM:
                news.append(claim.owner.claim_granted)
            claim.act, claim.until = Act.RENEW, until
            self._held[claim] = None
            self._held.move_to_end(claim)
        return news

    def lost(self, reason: str) -> list[News]:
        """There is no connection. Whoever waits is told; what is held is held, for its lease."""
        self._renewal = self._clock()  # as soon as there is one again
        asked = [claim for each in self.awaiting for claim in each.claims]
        for each in self.awaiting:
            if each.act is Act.RELEASE:  # it may not have come there, so it is said again
                self._unsent[Act.RELEASE].update(dict.fromkeys(each.claims))
        self.awaiting.clear()
        unsent = *self._unsent[Act.CLAIM], *self._unsent[Act.RELEASE]
        return self._unanswered([*asked, *unsent], reason)

    def _unanswered(self, claims: list[Claim], reason: str) -> list[News]:
        """Tells whoever waits. The registry may have granted it, so it is given back."""
        waits = (Act.CLAIM, Act.RELEASE)
        return [self._end(claim, reason, release=True) for claim in claims if claim.act in waits]

    def lapsed(self) -> Iterator[News]:
        """For the claims whose lease has run out: another server may have the ids by now."""
        while self._held and (claim := next(iter(self._held))).until <= self._clock():
            yield self._end(claim, "the lease of its client id has run out")

    def _end(self, claim: Claim, reason: str = "", release: bool = False) -> News:
        """Ends a claim. Returns what its owner is to be told."""
        owner, act, claim.act = claim.owner, claim.act, None
        if release and claim not in self._unsent[Act.CLAIM]:
            self._unsent[Act.RELEASE][claim] = None
        for kept in (self._held, self._unsent[Act.RENEW], self._unsent[Act.CLAIM]):
            kept.pop(claim, None)
        if act is Act.RELEASE:
            return owner.claim_over
        return partial(owner.claim_refused if act is Act.CLAIM else owner.claim_lost, reason)
