"""Several servers are one service in every world; and the classic mistakes are found."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest import mock

import pytest

from kv.connection import Connection
from kv.net.stream import Stream
from kv.registry.claims import TRUST, Claim, ClaimOwner, Claims, News
from kv.registry.registry import Registry
from kv.registry.resp import Act

from .kernel import Failure
from .machines import Machine
from .redis import Redis
from .service import run

#: A mistake that so many seeds do not find is not found.
SEEDS = 1000

Mistake = Callable[[], AbstractContextManager[object]]


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


def count_the_lease_from_the_answer() -> AbstractContextManager[object]:
    """The registry counts from when it did it, which was long before, if the answer was slow."""
    answered = Claims.answered

    def late(self: Claims, line: bytes) -> list[News]:
        if self.awaiting:
            self.awaiting[0] = self.awaiting[0]._replace(sent=self._clock())
        return answered(self, line)

    return mock.patch.object(Claims, "answered", late)


def delete_without_compare() -> AbstractContextManager[object]:
    """Whoever comes late with DEL deletes what another holds."""
    run_act = Redis._run

    def delete(
        self: Redis, act: Act, keys: list[bytes], tokens: list[bytes], lease: float
    ) -> bytes:
        if act is not Act.RELEASE:
            return run_act(self, act, keys, tokens, lease)
        for key in keys:
            self.keys.pop(key, None)
        return b"+" + b"1" * len(keys) + b"\r\n"

    return mock.patch.object(Redis, "_run", delete)


def renew_and_ignore_the_reply() -> AbstractContextManager[object]:
    """Sent is not done: the lease is taken for renewed as soon as it was asked for."""
    ask = Claims._ask

    def hopeful(self: Claims, act: Act, asked: list[Claim]) -> bytes:
        if act is Act.RENEW:
            for claim in asked:
                claim.until = self._clock() + TRUST * self._lease
                self._held.move_to_end(claim)
        return ask(self, act, asked)

    return mock.patch.object(Claims, "_ask", hopeful)


def show_one_token_for_all_claims() -> AbstractContextManager[object]:
    """What an old connection still delivers then concerns a newer claim."""
    claim = Claims.claim

    def alike(self: Claims, client_id: str, owner: ClaimOwner) -> Claim:
        made = claim(self, client_id, owner)
        made.token = self._name
        return made

    return mock.patch.object(Claims, "claim", alike)


def trust_a_registry_that_has_lost_its_data() -> AbstractContextManager[object]:
    """It believes that all ids are free."""
    restart = Redis.restart

    def same(self: Redis, keys: dict[bytes, tuple[bytes, float]]) -> None:
        restart(self, keys)
        self.keys[b"kv:run"] = b"%d" % self.runs, float("inf")

    return mock.patch.object(Redis, "restart", same)


def use_a_clock_that_sleeps_with_the_machine() -> AbstractContextManager[object]:
    """The lease runs out meanwhile."""
    return mock.patch.object(Machine, "boottime", Machine.monotonic)


def leave_it_to_the_timer() -> AbstractContextManager[object]:
    """Whoever wakes serves what has arrived, and then looks at its timers."""
    return mock.patch.object(Registry, "holds", lambda _self, _claim: True)


def believe_an_answer_that_comes_too_late() -> AbstractContextManager[object]:
    """By then the registry may have given it to another."""
    answered = Claims.answered

    def credulous(self: Claims, line: bytes) -> list[News]:
        if self.awaiting:
            sent = max(self.awaiting[0].sent, self._clock() - self._lease * TRUST + 0.01)
            self.awaiting[0] = self.awaiting[0]._replace(sent=sent)
        return answered(self, line)

    return mock.patch.object(Claims, "answered", credulous)


def let_the_client_go_on_meanwhile() -> AbstractContextManager[object]:
    """Its next message is handled before CONNECT is answered."""
    return mock.patch.object(Stream, "wait", lambda _self: None)


def give_up_after_the_first_loss() -> AbstractContextManager[object]:
    """Somebody would have to start the server again."""
    connect = Registry._connect

    def once(self: Registry) -> None:
        if not self._said:
            connect(self)

    return mock.patch.object(Registry, "_connect", once)


def keep_the_id_of_a_lost_connection() -> AbstractContextManager[object]:
    """It is renewed for ever."""
    return mock.patch.object(Connection, "_give_back", lambda _self: None)


def say_that_it_is_over_before_the_registry_knows() -> AbstractContextManager[object]:
    """Whoever has read DISCONNECT: OK comes back at another server, and is refused."""
    give_back = Registry.give_back

    def hasty(self: Registry, claim: Claim, tell: bool = False) -> None:
        give_back(self, claim)
        if tell:
            self._reactor.call_soon(claim.owner.claim_over)

    return mock.patch.object(Registry, "give_back", hasty)


#: Each with the seed that found it first when it was last looked for in all of them. That one is
#: tried first, and the others if it does not find it any more.
MISTAKES = {
    count_the_lease_from_the_answer: 122,
    delete_without_compare: 1,
    renew_and_ignore_the_reply: 23,
    show_one_token_for_all_claims: 165,
    trust_a_registry_that_has_lost_its_data: 250,
    use_a_clock_that_sleeps_with_the_machine: 314,
    leave_it_to_the_timer: 104,
    believe_an_answer_that_comes_too_late: 3468,  # answers are seldom so late (test_registry.py)
    let_the_client_go_on_meanwhile: 0,
    give_up_after_the_first_loss: 0,
    keep_the_id_of_a_lost_connection: 2,
    say_that_it_is_over_before_the_registry_knows: 356,
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_classic_mistake_is_caught(mistake: Mistake) -> None:
    with mistake():
        seed, failure = first_failure(MISTAKES[mistake])
    print(f"\n{mistake.__name__}: caught after {seed + 1} seeds: {failure}")
    run(seed)  # it was the mistake: without it, all is well


def first_failure(hint: int) -> tuple[int, BaseException]:
    """The first seed that fails, and of what."""
    for seed in (hint, *range(SEEDS)):
        try:
            run(seed)
        except (Exception, Failure) as failure:
            return seed, failure
    pytest.fail(f"{SEEDS} seeds did not find it")
