"""A stream alone: lines, turns and back-pressure, with a socket that gives what the test wants."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from test_reactor import Clock, FakeSelector
from test_transport import RESET, WOULD_BLOCK, Sock, StubTls

from kv.net import tcp
from kv.net.directions import Deadline, Incoming
from kv.net.lines import BATCH
from kv.net.owner import DELIVERY, Limits, Stalled
from kv.net.patience import Patience
from kv.net.reactor import READ, WRITE, Reactor
from kv.net.stream import Stream
from kv.net.tcp import NO_SIGNAL
from kv.net.turns import CROWD, Turns


class Owner:
    """Takes `takes` lines at a time, each a unit of work, and keeps what it is told."""

    def __init__(self) -> None:
        self.takes = 1000
        self.told: list[Any] = []
        self.budget = 0

    def lines_received(self, lines: Iterator[bytes], budget: int) -> int:
        self.budget = budget
        taken = [line for _, line in zip(range(self.takes), lines, strict=False)]
        self.told.append(b" ".join(taken))
        return len(taken)

    def closed(self, error: Exception | None, ours: bool) -> None:
        self.told.append((error, ours))

    def __getattr__(self, name: str) -> Any:
        return lambda: self.told.append(name)


class Bench:
    """One stream on a bench: `events` come in one turn of its loop."""

    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        self.selector = FakeSelector(self.clock)
        self.reactor = Reactor(self.selector, self.clock)  # type: ignore[arg-type]
        self.turns = Turns(self.reactor, quantum=10, budget=100, unsent_limit=8000)
        self.owner = Owner()
        self.sock: Any = Sock()
        self.sock.recv.side_effect = WOULD_BLOCK
        self.sock.send.side_effect = lambda octets, _: len(octets)
        self.sock.fileno.return_value = 0  # which is a descriptor like any other
        self.sock.close.side_effect = lambda: self.sock.fileno.configure_mock(return_value=-1)
        chosen = Limits(**{"line_size": 50, "high_water": 500, "low_water": 100, **limits})
        self.stream = Stream(self.reactor, self.sock, self.owner, chosen, self.turns)

    def turn(self, events: int = 0) -> None:
        """One turn, in which the kernel reports `events`."""
        wanted, _ = self.selector.registered.get(self.sock, (0, None))
        if events & wanted:
            self.selector.batches = [[self.selector.event(self.sock, events & wanted)]]
        self.reactor.call_soon(lambda: None)
        self.reactor.turn()

    def spend(self) -> None:
        """The work of the next turn is done before the stream's readiness is looked at."""
        spent = [0]
        self.reactor.each_turn(lambda: spent and setattr(self.turns, "left", spent.pop()))

    def receive(self, *pieces: bytes | Exception) -> None:
        """The kernel has these, one a `recv`, and says so once for each."""
        for piece in pieces:
            self.sock.recv.side_effect = [piece, WOULD_BLOCK]
            self.turn(READ)

    @property
    def asked(self) -> int:
        """How many octets the last `recv` was to give."""
        size: int = self.sock.recv.call_args.args[0]
        return size

    @property
    def interest(self) -> int:
        return self.selector.registered.get(self.sock, (0, None))[0]


@pytest.fixture(autouse=True)
def kernel() -> Iterator[mock.Mock]:
    """`kernel.return_value` octets are not acknowledged."""
    with (
        mock.patch.object(tcp, "unacknowledged", return_value=0) as held,
        mock.patch.object(tcp, "prepare"),
    ):
        yield held


def test_the_first_end_is_the_one_that_is_told() -> None:
    for end in ("abort", "leave"):
        bench, first = Bench(), Stalled("first")
        getattr(bench.stream, end)(first)
        bench.stream.abort(None)
        bench.stream.leave(RESET)
        bench.turn()
        bench.stream.close()
        bench.turn()
        assert bench.owner.told == [(first, False)]
        bench.sock.close.assert_called_once_with()


def test_when_both_directions_have_ended_the_socket_is_closed() -> None:
    bench = Bench()
    bench.receive(b"one\n", b"")
    assert bench.owner.told == [b"one", "end_received"] and bench.interest == 0
    bench.stream.close()
    bench.turn()
    assert bench.owner.told[2:] == [(None, False)]
    bench.sock.close.assert_called_once_with()


def test_what_tls_adds_to_the_plaintext_counts_as_work_once() -> None:
    bench = Bench()
    bench.stream.transport.overhead = 40
    bench.receive(b"one\n")
    assert bench.owner.budget == 10 and bench.turns.left == 100 - 20 - 1
    bench.receive(b"two\n")
    assert bench.turns.left == 100 - 1
    bench.owner.told.clear()
    bench.stream.transport.overhead = 200  # all the work of this turn: the lines wait for another
    bench.receive(b"three\n")
    assert bench.owner.told == [] and bench.interest == 0
    bench.turn()
    assert bench.owner.told == [b"three"] and bench.interest == READ


@pytest.mark.parametrize(
    ("others", "asked", "taken"), [(0, 1000, 64), (1, 999, 20), (4000, 500, 11), (7999, 50, 1)]
)
def test_less_is_read_and_handed_over_while_others_leave_much_unsent(
    others: int, asked: int, taken: int
) -> None:
    bench = Bench(read_size=1000, high_water=4000)
    bench.turns.unsent = others  # of 8,000; of the rest an eighth is this one's room
    bench.receive(b"x\n" * 64)
    assert bench.asked == asked and bench.owner.told == [lines(taken)]
    assert bench.interest == (READ if taken == 64 else 0)
    bench.turns.unsent = 0
    bench.turn()
    assert bench.owner.told[1:] == [lines(64 - taken)][: taken < 64]
    assert bench.interest == READ


@pytest.mark.parametrize(("others", "asked"), [(0, 1000), (19, 250), (1000, 50)])
def test_the_more_wait_for_their_turn_the_less_is_read(others: int, asked: int) -> None:
    bench = Bench(read_size=1000)
    for _ in range(others):
        bench.turns.wait(mock.Mock())
    bench.receive(b"x\n")
    assert bench.asked == asked  # a share of so many lines, each as long as it may be


@pytest.mark.parametrize(
    ("high_water", "unsent", "taken"), [(500, 0, 11), (500, 460, 1), (4000, 460, 64)]
)
def test_no_more_lines_are_handed_over_than_replies_fit_below_the_high_water_mark(
    high_water: int, unsent: int, taken: int
) -> None:
    bench = Bench(high_water=high_water, low_water=100)
    bench.sock.send.side_effect = WOULD_BLOCK
    bench.stream.write(b"r" * unsent)
    bench.turn()
    bench.turns.unsent = 0
    bench.receive(b"x\n" * 64)
    assert bench.owner.told[0] == lines(taken)


def test_a_peer_is_held_up_above_the_high_water_mark_until_the_low_one() -> None:
    bench = Bench()
    bench.sock.send.side_effect = WOULD_BLOCK
    for octets, told, interest in [
        (500, [], READ | WRITE),
        (1, ["held_up"], WRITE),
        (9, [], WRITE),
    ]:
        bench.owner.told.clear()
        bench.stream.write(b"r" * octets)
        bench.turn()
        assert (bench.owner.told, bench.interest) == (told, interest)
        assert bench.turns.unsent == bench.stream.unsent
    for taken, told, interest in [
        (409, [], WRITE),
        (1, [], READ | WRITE),
        (100, ["drained"], READ),
    ]:
        bench.owner.told.clear()
        bench.sock.send.side_effect = [taken, WOULD_BLOCK]
        bench.turn(WRITE)
        assert (bench.owner.told, bench.interest) == (told, interest)
        assert bench.turns.unsent == bench.stream.unsent


def test_a_peer_that_takes_no_answers_of_tls_is_held_up_too() -> None:
    bench = Bench()
    tls: Any = StubTls(said=[b"k" * 100] * 9, waiting=b"not sealed yet")
    bench.stream.transport.tls = tls
    bench.sock.send.side_effect = WOULD_BLOCK
    for asked in range(1, 7):
        bench.receive(b"new keys, please")
        assert bench.turns.unsent == len(bench.stream.transport.unsent) == 100 * asked
    assert bench.stream.unsent == 600 + len(tls.waiting)
    assert (bench.owner.told, bench.interest) == (["held_up"], WRITE)


@pytest.mark.parametrize("late", [False, True])
def test_what_comes_after_close_is_read_though_the_owner_waits(late: bool) -> None:
    bench = Bench()
    bench.stream.wait()
    bench.stream.close()
    bench.turn()
    if late:
        bench.stream.wait()
    bench.receive(b"one\n", b"")
    assert bench.stream.transport.received == 4 and bench.owner.told == [(None, False)]


def lines(count: int) -> bytes:
    return b" ".join([b"x"] * count)


@pytest.mark.parametrize(("others", "interest"), [(0, READ), (CROWD - 1, READ), (CROWD, 0)])
def test_who_was_ready_too_late_reads_in_its_turn_and_keeps_its_interest_in_a_short_queue(
    others: int, interest: int
) -> None:
    bench = Bench()
    for _ in range(others):
        bench.turns.wait(mock.Mock())
    bench.spend()
    bench.owner.lines_received = lambda lines, _: bench.stream.write(next(lines)) or 1  # type: ignore
    bench.receive(b"one\n")
    assert not bench.sock.send.called and bench.interest == interest
    bench.turn()
    bench.sock.send.assert_called_once_with(b"one", NO_SIGNAL)
    assert bench.interest == READ
    bench.sock.recv.reset_mock()
    bench.stream.write(b"two\n")  # which asks for a turn, too, but there is nothing to read in it
    bench.turn()
    assert bench.sock.send.call_count == 2 and not bench.sock.recv.called


def test_who_was_held_up_reads_in_the_turn_in_which_it_may_go_on() -> None:
    bench = Bench()
    bench.stream.wait()
    bench.turn()
    bench.stream.go_on()
    bench.sock.recv.side_effect = [b"one\n"]
    bench.turn()
    assert bench.owner.told == [b"one"] and bench.interest == READ


def test_who_has_to_wait_for_its_turn_is_told_at_once_that_all_is_sent() -> None:
    bench = Bench()
    bench.sock.send.side_effect = [WOULD_BLOCK, 4]
    bench.stream.write(b"one\n")
    bench.turn()
    assert not bench.sock.recv.called
    bench.spend()
    bench.turn(READ | WRITE)
    assert bench.owner.told == ["drained"] and not bench.interest & WRITE


@pytest.mark.parametrize(("call", "told"), [("finish", "end_received"), ("close", (None, False))])
def test_a_peer_that_goes_on_sending_is_read_up_to_a_bound(call: str, told: Any) -> None:
    bench = Bench(linger_size=20)
    bench.sock.recv.side_effect = lambda _: b"ten octet\n"
    getattr(bench.stream, call)()
    bench.turn()
    for _ in range(10):
        bench.turn(READ)
        if told in bench.owner.told:
            break
    assert bench.stream.transport.received == 20 and bench.owner.told[-1] == told


@pytest.mark.parametrize("inside", [True, False])
def test_while_the_owner_waits_no_readiness_is_asked_for(inside: bool) -> None:
    bench = Bench()
    if inside:  # in the middle of a call of the stream's
        bench.owner.lines_received = lambda lines, _: (list(lines), bench.stream.wait(), 1)[-1]
        bench.receive(b"one\n")
    else:
        bench.stream.wait()
        bench.turn()
    assert bench.interest == 0
    bench.stream.go_on()
    bench.turn()
    assert bench.interest == READ


def test_an_end_that_came_with_the_last_line_is_told_when_the_owner_waits_no_more() -> None:
    bench = Bench()
    bench.stream.transport.tls = StubTls(plain=b"one\n", they_ended=True)  # type: ignore[assignment]
    bench.owner.lines_received = lambda lines, _: (list(lines), bench.stream.wait(), 1)[-1]
    bench.receive(b"sealed")
    assert bench.owner.told == [] and bench.stream.transport.incoming is Incoming.ENDED
    bench.stream.go_on()
    bench.turn()
    assert bench.owner.told == ["end_received"]


def test_a_line_too_long_after_the_last_one_is_told_when_the_owner_waits_no_more() -> None:
    bench = Bench()
    bench.owner.lines_received = lambda lines, _: (list(lines), bench.stream.wait(), 1)[-1]
    bench.receive(b"one\n" + b"x" * 50)
    bench.turn()
    assert bench.owner.told == [] and bench.interest == 0
    bench.stream.go_on()
    bench.turn()
    assert bench.owner.told == ["line_too_long"]


def test_the_owner_always_gets_a_line() -> None:
    bench = Bench()
    bench.receive(b"a\n" * BATCH + b"x" * 50 + b"\n")
    for _ in range(10):
        bench.turn()
    assert bench.owner.told[-1] == "line_too_long" and b"" not in bench.owner.told


@pytest.mark.parametrize(("held", "told"), [(1, None), (2, RESET)])
def test_a_reset_while_the_kernel_delivers_is_an_error_if_the_peer_lacks_anything(
    kernel: mock.Mock, held: int, told: Exception | None
) -> None:
    bench = Bench()
    bench.receive(b"")
    kernel.return_value = held  # FIN counts as one
    bench.stream.close()
    bench.turn()
    found = [None, RESET]
    with mock.patch.object(tcp, "failure", lambda _: found.pop(0)):
        for expected in (["end_received"], ["end_received", (told, False)]):
            bench.clock.now += DELIVERY
            bench.turn()
            bench.turn()
            assert bench.owner.told == expected


@pytest.mark.parametrize("before", [b"", b"one\n", b"one\ntwo\n"])
def test_a_line_too_long_is_told_after_the_lines_before_it(before: bytes) -> None:
    bench = Bench()
    bench.receive(before + b"x" * 50)
    lines = [before.replace(b"\n", b" ").strip()][: len(before)]
    assert bench.owner.told == [*lines, "line_too_long"]


def test_a_peer_that_takes_nothing_has_stalled_however_much_happens_meanwhile() -> None:
    bench = Bench()
    bench.sock.send.side_effect = WOULD_BLOCK
    for _ in range(7):
        assert bench.owner.told == []
        bench.stream.write(b"reply\n")
        bench.receive(WOULD_BLOCK)
        bench.clock.now += 10
    bench.sock.send.assert_called_once()  # who is full is not asked again
    bench.turn()
    bench.turn()
    ((error, ours),) = bench.owner.told
    assert isinstance(error, Stalled) and not ours


# --- patience ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("due", "took_at", "looks"),
    [
        (Deadline.STALL, None, [15, 30, 45, 60]),
        (Deadline.STALL, 30, [15, 30, 45, 60, 75, 90]),  # a minute from when that was seen
        (Deadline.STALL, 59, [15, 30, 45, 60, 75, 90, 105, 120]),
        (Deadline.LINGER, None, [0.5, 1, 1.5, 2]),
        (Deadline.LINGER, 0.1, [0.5, 1, 1.5, 2, 2.5]),  # FIN is acknowledged at once, say
    ],
)
def test_a_peer_that_takes_nothing_for_so_long_is_waited_for_no_more(
    due: Deadline, took_at: float | None, looks: list[float]
) -> None:
    bench, looked, over = Bench(), [], []
    began = bench.clock.now
    transport: Any = mock.Mock()
    transport.acknowledged = lambda: (
        5 + (took_at is not None and bench.clock.now >= began + took_at)
    )

    def look() -> None:
        looked.append(bench.clock.now - began)
        over.append(patience.is_over())

    patience = Patience(due, bench.reactor, transport, Limits(), look)
    while not any(over) and len(looked) < 10:
        bench.reactor.turn()
    assert looked == looks and bench.reactor.timers.live == 0


def test_whether_all_is_delivered_is_looked_at_often_and_not_for_longer_than_a_stall() -> None:
    bench = Bench()
    looked: list[float] = []
    transport: Any = mock.Mock(**{"acknowledged.return_value": 0})
    limits = Limits(stall_timeout=0.25)
    patience = Patience(
        Deadline.DELIVERY, bench.reactor, transport, limits, lambda: looked.append(0)
    )
    began = bench.clock.now
    for delay, over in [(0.1, False), (0.2, False), (0.25, True)]:
        bench.reactor.turn()
        assert bench.clock.now - began == pytest.approx(delay)
        assert patience.is_over() == over
    assert len(looked) == 3


def test_a_patience_that_is_cancelled_looks_no_more() -> None:
    bench = Bench()
    transport: Any = mock.Mock(**{"acknowledged.return_value": 0})
    Patience(Deadline.STALL, bench.reactor, transport, Limits(), list).cancel()
    assert bench.reactor.timers.live == 0
