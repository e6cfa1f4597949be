"""Whose turn it is: the queue alone, with streams that only note that their turn has come."""

import pytest
from test_reactor import Clock, FakeSelector

from kv.net.reactor import Reactor
from kv.net.turns import Turns


@pytest.fixture
def reactor() -> Reactor:
    clock = Clock()
    return Reactor(FakeSelector(clock), clock)  # type: ignore[arg-type]


class Greedy:
    """Does so much work in each of its turns, and waits for the next one for so many times."""

    def __init__(self, turns: Turns, work: int, again: int = 0) -> None:
        self.turns, self.work, self.again = turns, work, again
        self.shares: list[int] = []

    def take_turn(self) -> None:
        assert self.turns.left > self.turns.reserved, "whose turn has come is not sent back"
        self.shares.append(self.turns.share)
        self.turns.left -= self.work
        if self.again:
            self.again -= 1
            self.turns.wait(self)


def test_the_more_wait_the_less_each_gets_down_to_one_message(reactor: Reactor) -> None:
    turns = Turns(reactor, quantum=40, budget=100)
    shares = [turns.share]
    for _ in range(102):
        turns.wait(Greedy(turns, 0))
        shares.append(turns.share)
    assert shares[:5] == [40, 40, 33, 25, 20] and shares[98:] == [1] * 5


def test_half_of_a_turn_belongs_to_those_who_wait(reactor: Reactor) -> None:
    turns = Turns(reactor, quantum=40, budget=100)
    assert turns.reserved == 0
    turns.wait(Greedy(turns, 0))
    assert turns.reserved == 50
    reactor.turn()
    assert turns.reserved == 0


def test_nobody_has_two_turns_in_one_and_nobody_gets_more_than_is_left(reactor: Reactor) -> None:
    turns = Turns(reactor, quantum=40, budget=100)
    many = [Greedy(turns, work, again=1) for work in (30, 30, 30, 30, 30)]
    for stream in many:
        turns.wait(stream)
    reactor.turn()  # the fourth is served with what is left, the fifth no more
    assert [stream.shares for stream in many] == [[20], [20], [20], [10], []]
    reactor.turn()
    assert [len(stream.shares) for stream in many] == [2, 2, 2, 1, 1]
    reactor.turn()
    assert [len(stream.shares) for stream in many] == [2] * 5
    assert turns.reserved == 0 and not reactor._deferred


def test_one_is_served_even_if_whoever_was_ready_has_used_up_all(reactor: Reactor) -> None:
    turns = Turns(reactor, quantum=40, budget=100)
    first, second = Greedy(turns, 1), Greedy(turns, 1)
    turns.wait(first)
    turns.wait(second)
    reactor.each_turn(lambda: setattr(turns, "left", -20))
    reactor.turn()
    assert (first.shares, second.shares) == ([1], [])


def test_an_eighth_of_what_is_left_is_each_ones_room(reactor: Reactor) -> None:
    turns = Turns(reactor, budget=100, unsent_limit=800)
    assert (turns.unsent, turns.left) == (0, 100)
    for unsent, room in [(0, 100), (400, 50), (793, 0), (900, 0)]:
        turns.unsent = unsent
        assert turns.room == room
