"""Several servers are one service in every world; and the classic mistakes are found."""

import logging
from typing import Any

import pytest

from kv.connection import Connection
from kv.net.stream import Stream
from kv.registry.claims import TRUST, Claim, Claims, News
from kv.registry.registry import Registry
from kv.registry.resp import Act

from .machines import Machine
from .mistakes import Mistakes
from .redis import Redis
from .service import run

MISTAKES = Mistakes(run)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "kv")


@pytest.mark.parametrize("start", range(0, 30, 15))
def test_several_servers_are_one_service_in_every_world(start: int) -> None:
    results = [run(seed) for seed in range(start, start + 15)]
    assert sum(result.sessions for result in results) > 80
    assert sum(result.lost for result in results) > 0


def test_a_seed_is_one_history() -> None:
    assert [run(seed) for seed in (5, 6, 7)] == [run(seed) for seed in (7, 6, 5)][::-1]


# The seed of each is the one that found it first when it was last looked for in all of them.


@MISTAKES.instead_of(Claims, "answered", 210)
def count_the_lease_from_the_answer(answered: Any, self: Claims, line: bytes) -> list[News]:
    """The registry counts from when it did it, which was long before, if the answer was slow."""
    if self.awaiting:
        self.awaiting[0] = self.awaiting[0]._replace(sent=self._clock())
    return answered(self, line)


@MISTAKES.instead_of(Redis, "_run", 3)
def delete_without_compare(
    run_act: Any, self: Redis, act: Act, keys: list[bytes], *how: Any
) -> bytes:
    """Whoever comes late with DEL deletes what another holds."""
    if act is not Act.RELEASE:
        return run_act(self, act, keys, *how)
    for key in keys:
        self.keys.pop(key, None)
    return b"+" + b"1" * len(keys) + b"\r\n"


@MISTAKES.instead_of(Claims, "_ask", 36)
def renew_and_ignore_the_reply(ask: Any, self: Claims, act: Act, asked: list[Claim]) -> bytes:
    """Sent is not done: the lease is taken for renewed as soon as it was asked for."""
    if act is Act.RENEW:
        for claim in asked:
            claim.until = self._clock() + TRUST * self._lease
            self._held.move_to_end(claim)
    return ask(self, act, asked)


@MISTAKES.instead_of(Claims, "claim", 526)
def show_one_token_for_all_claims(claim: Any, self: Claims, *who: Any) -> Claim:
    """What an old connection still delivers then concerns a newer claim."""
    made = claim(self, *who)
    made.token = self._name
    return made


@MISTAKES.instead_of(Redis, "restart", 277)
def trust_a_registry_that_has_lost_its_data(
    restart: Any, self: Redis, keys: dict[bytes, tuple[bytes, float]]
) -> None:
    """It believes that all ids are free."""
    restart(self, keys)
    self.keys[b"kv:run"] = b"%d" % self.runs, float("inf")


@MISTAKES.instead_of(Machine, "boottime", 23)
def use_a_clock_that_sleeps_with_the_machine(_: Any, self: Machine) -> float:
    """The lease runs out meanwhile."""
    return self.monotonic()


@MISTAKES.instead_of(Registry, "holds", 23)
def leave_it_to_the_timer(*_: Any) -> bool:
    """Whoever wakes serves what has arrived, and then looks at its timers."""
    return True


@MISTAKES.instead_of(Claims, "answered", 3429)  # answers are seldom so late (test_registry.py)
def believe_an_answer_that_comes_too_late(answered: Any, self: Claims, line: bytes) -> list[News]:
    """By then the registry may have given it to another."""
    if self.awaiting:
        sent = max(self.awaiting[0].sent, self._clock() - self._lease * TRUST + 0.01)
        self.awaiting[0] = self.awaiting[0]._replace(sent=sent)
    return answered(self, line)


@MISTAKES.instead_of(Stream, "wait")
def let_the_client_go_on_meanwhile(*_: Any) -> None:
    """Its next message is handled before CONNECT is answered."""


@MISTAKES.instead_of(Registry, "_connect")
def give_up_after_the_first_loss(connect: Any, self: Registry) -> None:
    """Somebody would have to start the server again."""
    if not self._said:
        connect(self)


@MISTAKES.instead_of(Connection, "_give_back")
def keep_the_id_of_a_lost_connection(*_: Any) -> None:
    """It is renewed for ever."""


@MISTAKES.instead_of(Registry, "give_back", 275)
def say_that_it_is_over_before_the_registry_knows(
    give_back: Any, self: Registry, claim: Claim, tell: bool = False
) -> None:
    """Whoever has read DISCONNECT: OK comes back at another server, and is refused."""
    give_back(self, claim)
    if tell:
        self._reactor.call_soon(claim.owner.claim_over)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_classic_mistake_is_caught(name: str) -> None:
    MISTAKES.check(name)
