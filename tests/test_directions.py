"""The tables of a connection's two directions: every combination is in them, or raises."""

import itertools
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diagrams import diagram

from kv.net.directions import (
    CONCERNS_INCOMING,
    CONCERNS_OUTGOING,
    INCOMING,
    OUTGOING,
    READS,
    Deadline,
    Event,
    Hold,
    Incoming,
    Outgoing,
    after,
    deadline,
    interest,
    over,
)
from kv.net.owner import Limits
from kv.net.reactor import READ, WRITE, Reactor
from kv.net.stream import Stream
from kv.net.turns import Turns

COURSE = Path(__file__).resolve().parent.parent / "kv" / "README.md"
HOLDS = range(2 ** len(Hold))  # all combinations
PAIRS = list(itertools.product(Incoming, Outgoing))


@pytest.mark.parametrize("event", Event)
def test_every_event_is_in_the_tables_or_raises(event: Event) -> None:
    assert event in CONCERNS_INCOMING | CONCERNS_OUTGOING
    for incoming, outgoing in PAIRS:
        known = (event not in CONCERNS_INCOMING or event in INCOMING[incoming]) and (
            event not in CONCERNS_OUTGOING or event in OUTGOING[outgoing]
        )
        if known:
            then = after(event, incoming, outgoing)
            assert then[0] is INCOMING[incoming].get(event, incoming)
            assert then[1] is OUTGOING[outgoing].get(event, outgoing)
        else:
            with pytest.raises(RuntimeError, match=event.name):
                after(event, incoming, outgoing)


def test_no_direction_goes_back() -> None:
    """Every step leads on or stays: so every connection comes to an end."""
    for table, states in ((INCOMING, list(Incoming)), (OUTGOING, list(Outgoing))):
        for state, row in table.items():  # type: ignore[attr-defined]
            assert all(states.index(then) >= states.index(state) for then in row.values())


@pytest.mark.parametrize("state", Incoming)
@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("unsent", [False, True])
def test_readiness_is_asked_for_in_every_state_and_only_if_it_is_acted_on(
    state: Incoming, hold: int, unsent: bool
) -> None:
    asked = interest(state, bool(hold), unsent)
    assert bool(asked & WRITE) == unsent
    reads = {
        Incoming.OPEN: not hold,
        Incoming.DRAINING: False,
        Incoming.DISCARDING: True,
        Incoming.ENDED: False,
    }
    assert bool(asked & READ) == reads[state]
    assert len(READS) == 2 * len(Incoming)


def test_a_connection_is_over_when_nothing_can_happen_in_either_direction() -> None:
    for incoming, outgoing in PAIRS:
        quiet = incoming in (Incoming.ENDED, Incoming.DISCARDING)
        ended = outgoing is Outgoing.SHUT and incoming is Incoming.ENDED
        assert over(incoming, outgoing, False) == (ended or (outgoing is Outgoing.BROKEN and quiet))
        assert over(incoming, outgoing, True) == (outgoing is Outgoing.BROKEN and quiet)


def test_whatever_is_not_over_waits_for_readiness_a_turn_or_a_deadline() -> None:
    """Nobody is forgotten: from every pair something leads on."""
    for incoming, outgoing in PAIRS:
        if over(incoming, outgoing, True):
            continue
        asked = interest(incoming, False, False)
        turn = incoming is Incoming.DRAINING
        owner = outgoing is Outgoing.OPEN  # told that the end has come; it is to close
        sending = outgoing is Outgoing.FINISHING
        assert asked or turn or owner or sending or deadline(incoming, outgoing, False)


def test_one_thing_has_a_deadline_at_a_time() -> None:
    assert deadline(Incoming.DISCARDING, Outgoing.FINISHING, True) is Deadline.STALL
    assert deadline(Incoming.DISCARDING, Outgoing.SHUT, False) is Deadline.LINGER
    assert deadline(Incoming.ENDED, Outgoing.SHUT, False) is Deadline.DELIVERY
    waiting = [pair for pair in PAIRS if deadline(*pair, False)]
    assert len(waiting) == 2
    assert {deadline(*pair, True) for pair in PAIRS} == {Deadline.STALL}


@pytest.mark.parametrize("name", ["Incoming", "Outgoing"])
def test_the_diagrams_in_the_course_are_drawn_from_the_tables(name: str) -> None:
    drawn = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", COURSE.read_text(), re.S)
    assert drawn == [diagram(name)]


# --- the stream itself, through every event in every state -----------------------------------


class Quiet:
    """An owner that is told, and does nothing of its own accord."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        self.told += [line.decode() for line in lines]
        return min(1, budget)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.told.append(name)


CALLS = ("close", "half_close", "finish", "abort", "leave", "wait", "go_on", "flush", "write")


@pytest.mark.parametrize("first", CALLS)
def test_whatever_an_owner_calls_in_whatever_order_the_end_comes_once(first: str) -> None:
    for others in itertools.product(CALLS, CALLS):
        told = told_after((first, *others))
        assert told.count("closed") == 1 and told[-1] == "closed", others
        assert told.count("end_received") <= 1, others


def told_after(calls: tuple[str, ...]) -> list[str]:
    """What an owner is told that makes these calls, a turn of the loop between any two."""
    reactor, owner = Reactor(), Quiet()
    turns = Turns(reactor)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    stream = Stream(reactor, ours, owner, Limits(), turns)
    theirs.sendall(b"one\ntwo\n")
    for call in calls:
        arguments: Any = {"abort": (None,), "write": (b"x\n",)}.get(call, ())
        ended = stream.transport.outgoing in (Outgoing.FINISHING, Outgoing.SHUT)
        told = list(owner.told)
        try:
            getattr(stream, call)(*arguments)
        except RuntimeError:
            assert call == "write" and ended, calls
        assert owner.told == told, "a call of the owner's calls it back"
        turn(reactor)
    stream.go_on()
    stream.close()
    theirs.close()
    for _ in range(10_000):
        if "closed" in owner.told:
            break
        turn(reactor)
    turn(reactor)
    assert ours.fileno() == -1 and turns.unsent == 0
    reactor.close()
    return owner.told


def turn(reactor: Reactor) -> None:
    """One turn that does not sleep."""
    reactor.call_soon(lambda: None)
    reactor.turn()
