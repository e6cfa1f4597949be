"""The loop: timers and order with a clock and a selector of the test's, signals with real ones."""

import errno
import math
import os
import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import Any

import house
import pytest
from patience import patience

from kv.net.reactor import READ, WRITE, Reactor


class Clock(house.Clock):
    """Passes when the test, or a selector that sleeps, says so. Does not begin at 0."""

    now = 1000.0


class FakeSelector:
    """Reports what the test has put in `batches`; sleeps by setting the clock forward."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.registered: dict[int, tuple[int, Any]] = {}
        self.batches: list[list[tuple[Any, int]]] = []
        self.timeouts: list[float | None] = []

    def register(self, fileobj: int, events: int, data: Any) -> None:
        assert events, "an empty interest cannot be registered"
        assert fileobj not in self.registered
        self.registered[fileobj] = (events, data)

    def modify(self, fileobj: int, events: int, data: Any) -> None:
        assert events and fileobj in self.registered
        self.registered[fileobj] = (events, data)

    def unregister(self, fileobj: int) -> None:
        del self.registered[fileobj]

    def event(self, fileobj: int, events: int) -> tuple[Any, int]:
        """What `select` would report of a descriptor that is registered now."""
        return SimpleNamespace(data=self.registered[fileobj][1]), events

    def select(self, timeout: float | None) -> list[tuple[Any, int]]:
        self.timeouts.append(timeout)
        if self.batches:
            return self.batches.pop(0)
        assert timeout is not None, "this would sleep for ever"
        self._clock.now += timeout
        return []

    def close(self) -> None:
        """There is nothing to give back."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def selector(clock: Clock) -> FakeSelector:
    return FakeSelector(clock)


@pytest.fixture
def reactor(selector: FakeSelector, clock: Clock) -> Reactor:
    return Reactor(selector, clock)  # type: ignore[arg-type]


@pytest.fixture
def real() -> Iterator[Reactor]:
    """A reactor of the machine's own selector and clock, each `turn` bounded."""
    reactor = Reactor()
    reactor.call_later(patience(), lambda: pytest.fail("the loop waited in vain"))
    yield reactor
    reactor.close()


# --- timers ----------------------------------------------------------------------------------


class StoppedSelector(FakeSelector):
    """As after SIGSTOP and, an hour later, SIGCONT: says nothing at first, whatever is ready."""

    def select(self, timeout: float | None) -> list[tuple[Any, int]]:
        if timeout == 0:
            return super().select(timeout)
        self.timeouts.append(timeout)
        self._clock.now += 3600
        return []


def test_after_a_long_stop_what_has_arrived_counts_before_what_is_due(clock: Clock) -> None:
    selector, happened = StoppedSelector(clock), []
    reactor = Reactor(selector, clock)  # type: ignore[arg-type]
    timer = reactor.call_later(10, lambda: happened.append("time-out"))
    reactor.register(7, lambda _: (happened.append("reply"), timer.cancel())).set(READ)
    selector.batches = [[selector.event(7, READ)]]
    reactor.turn()
    reactor.turn()
    assert happened == ["reply"] and selector.timeouts == [10, 0]


def test_nor_is_a_stop_in_the_middle_of_a_turn_held_against_anybody(
    reactor: Reactor, selector: FakeSelector, clock: Clock
) -> None:
    happened: list[str] = []
    timer = reactor.call_later(10, lambda: happened.append("time-out"))

    def stopped(_: int) -> None:
        clock.now += 3600
        timer.postpone(10)

    first = reactor.register(6, stopped)
    first.set(READ)
    reactor.register(7, lambda _: (happened.append("reply"), timer.cancel())).set(READ)
    selector.batches = [[selector.event(6, READ)], [selector.event(7, READ)]]
    reactor.turn()
    reactor.turn()
    assert happened == ["reply"]


def test_timers_run_in_the_order_in_which_they_are_due(reactor: Reactor, clock: Clock) -> None:
    ran: list[tuple[str, float]] = []
    for name, delay in (("c", 3), ("a", 1), ("d", 3), ("b", 2)):
        reactor.call_later(delay, lambda name=name: ran.append((name, clock.now)))
    for _ in range(3):
        reactor.turn()
    assert ran == [("a", 1001), ("b", 1002), ("c", 1003), ("d", 1003)]


def test_a_timer_never_runs_before_its_time_and_never_twice(
    reactor: Reactor, selector: FakeSelector, clock: Clock
) -> None:
    ran: list[float] = []
    reactor.call_later(1.5, lambda: ran.append(clock.now))
    selector.batches = [[], []]  # two turns in which something else woke the loop
    reactor.turn()
    clock.now += 1.4
    reactor.turn()
    assert ran == []
    reactor.turn()
    assert ran == [1001.5]
    selector.batches = [[]]
    clock.now += 10
    reactor.turn()
    assert ran == [1001.5]


@pytest.mark.parametrize(("delays", "last_sleep"), [([2], 1.5), ([5, 2], 4.5)])
def test_a_postponed_timer_runs_at_its_new_time_and_is_never_put_forward(
    reactor: Reactor,
    selector: FakeSelector,
    clock: Clock,
    delays: list[float],
    last_sleep: float,
) -> None:
    ran: list[float] = []
    timer = reactor.call_later(1, lambda: ran.append(clock.now))
    reactor.call_later(0.5, lambda: [timer.postpone(delay) for delay in delays])
    while not ran:
        reactor.turn()
    assert ran == [1001 + last_sleep]
    # The heap finds out when the old time comes: one wake-up for nothing, and not one per turn.
    assert selector.timeouts == [0.5, 0.5, last_sleep]


def test_a_timer_postponed_a_thousand_times_takes_one_place(reactor: Reactor) -> None:
    timer = reactor.call_later(1, lambda: None)
    for _ in range(1000):
        timer.postpone(1)
    assert len(reactor.timers.heap) == 1


def test_a_cancelled_timer_does_not_run(
    reactor: Reactor, selector: FakeSelector, clock: Clock
) -> None:
    timer = reactor.call_later(1, lambda: pytest.fail("cancelled"))
    timer.cancel()
    timer.cancel()
    timer.postpone(1)
    assert reactor.timers.live == 0
    clock.now += 5
    selector.batches = [[]]
    reactor.turn()


def test_nobody_is_woken_for_a_cancelled_timer(reactor: Reactor, selector: FakeSelector) -> None:
    cancelled = [reactor.call_later(seconds, lambda: None) for seconds in (1, 2)]
    reactor.call_later(3, lambda: None)
    for timer in cancelled:
        timer.cancel()
    reactor.turn()
    assert selector.timeouts == [3]


def test_a_timer_may_cancel_itself_and_another_that_is_due_at_the_same_time(
    reactor: Reactor,
) -> None:
    ran: list[str] = []
    first = reactor.call_later(1, lambda: (ran.append("first"), first.cancel(), second.cancel()))
    second = reactor.call_later(1, lambda: ran.append("second"))
    reactor.call_later(2, lambda: ran.append("third"))
    reactor.turn()
    reactor.turn()
    assert ran == ["first", "third"] and reactor.timers.live == 0


def test_an_exception_in_a_timer_takes_no_other_along(reactor: Reactor) -> None:
    ran: list[int] = []
    reactor.call_later(0, lambda: 1 // 0)
    reactor.call_later(0, lambda: ran.append(2))
    with pytest.raises(ZeroDivisionError):
        reactor.turn()
    reactor.turn()
    assert ran == [2] and reactor.timers.live == 0


def test_a_timer_may_postpone_another_that_is_due_at_the_same_time(
    reactor: Reactor, clock: Clock
) -> None:
    ran: list[float] = []
    begun = clock.now
    reactor.call_later(1, lambda: second.postpone(2))
    second = reactor.call_later(1, lambda: ran.append(clock.now - begun))
    reactor.turn()
    reactor.turn()
    assert ran == [3] and reactor.timers.live == 0


def test_cancelled_timers_do_not_fill_the_heap(reactor: Reactor) -> None:
    """A server cancels nearly every timer that it makes; each may be an hour away."""
    live = [reactor.call_later(3600, lambda: None) for _ in range(100)]
    largest = 0
    for _ in range(10_000):
        reactor.call_later(3600, lambda: None).cancel()
        largest = max(largest, len(reactor.timers.heap))
    assert largest == 2 * len(live) + 64  # half are dead: it costs no more than making them
    for timer in live:
        timer.cancel()
    assert len(reactor.timers.heap) <= 64


def test_timers_that_ran_do_not_count_as_cancelled_ones(reactor: Reactor) -> None:
    ran: list[int] = []
    for round_ in range(1000):
        reactor.call_later(1, lambda round_=round_: ran.append(round_))
        reactor.turn()
    assert ran == list(range(1000))
    assert len(reactor.timers.heap) == reactor.timers.live == 0


def test_timers_survive_the_clearing_away_of_cancelled_ones(
    reactor: Reactor, selector: FakeSelector, clock: Clock
) -> None:
    ran: list[int] = []
    for delay in range(200, 0, -1):
        timer = reactor.call_later(delay, lambda delay=delay: ran.append(delay))
        for _ in range(10):
            reactor.call_later(delay, lambda: pytest.fail("cancelled")).cancel()
        if delay % 2:
            timer.cancel()
    clock.now += 200
    selector.batches = [[]]
    reactor.turn()
    assert ran == list(range(2, 201, 2))


@pytest.mark.parametrize("how", ["a timer without delay", "a deferred call"])
def test_what_a_call_asks_for_runs_in_the_next_turn(
    reactor: Reactor, selector: FakeSelector, how: str
) -> None:
    """Otherwise a call that asks for itself would keep the loop from its descriptors."""
    ran: list[int] = []
    ask = reactor.call_soon if how == "a deferred call" else partial(reactor.call_later, 0)

    def again() -> None:
        assert len(ran) < 100, "the turn does not end"
        ran.append(len(ran))
        ask(again)

    ask(again)
    for turn in range(5):
        assert ran == list(range(turn))
        reactor.turn()
    assert selector.timeouts == [0] * 5  # and it does not sleep meanwhile


# --- deferred calls --------------------------------------------------------------------------


def test_deferred_calls_run_in_order_at_the_end_of_the_turn(
    reactor: Reactor, selector: FakeSelector
) -> None:
    ran: list[str] = []
    registration = reactor.register(7, lambda _: ran.append("ready"))
    registration.set(READ)
    reactor.call_soon(lambda: ran.append("one"))
    reactor.call_soon(lambda: ran.append("two"))
    reactor.call_later(0, lambda: ran.append("timer"))
    selector.batches = [[selector.event(7, READ)]]
    reactor.turn()
    assert ran == ["ready", "timer", "one", "two"]


# --- sleeping --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delays", "passed", "sleeps"),
    [([], 0, [None]), ([7.25, 2.5], 0, [2.5, 4.75]), ([1], 2, [0]), ([math.inf], 0, [3600])],
    ids=["nothing is due", "until the next", "overdue", "never"],
)
def test_it_sleeps_until_the_next_timer_and_no_longer(
    reactor: Reactor,
    selector: FakeSelector,
    clock: Clock,
    delays: list[float],
    passed: float,
    sleeps: list[float | None],
) -> None:
    for delay in delays:
        reactor.call_later(delay, lambda: None)
    clock.now += passed
    selector.batches = [[]] * (None in sleeps)
    for _ in sleeps:
        reactor.turn()
    assert selector.timeouts == sleeps


def test_a_timer_in_the_far_future_runs_at_its_time_and_not_at_a_waking(
    reactor: Reactor, selector: FakeSelector, clock: Clock
) -> None:
    """Selectors refuse what does not fit in 31 bits of milliseconds: 24 days."""
    ran: list[float] = []
    reactor.call_later(1e6, lambda: ran.append(clock.now))
    while not ran:
        reactor.turn()
    assert ran == [1000 + 1e6] and max(selector.timeouts) == 3600


# --- descriptors -----------------------------------------------------------------------------


def test_no_interest_means_not_registered(reactor: Reactor, selector: FakeSelector) -> None:
    registration = reactor.register(7, lambda _: None)
    assert not selector.registered
    for interest in (READ, READ | WRITE, WRITE, 0, WRITE, WRITE, 0, 0):
        registration.set(interest)
        assert {fd: events for fd, (events, _) in selector.registered.items()} == (
            {7: interest} if interest else {}
        )


def test_a_callback_gets_the_readiness_that_was_seen(
    reactor: Reactor, selector: FakeSelector
) -> None:
    seen: list[int] = []
    reactor.register(7, seen.append).set(READ | WRITE)
    for events in (READ, WRITE, READ | WRITE):
        selector.batches = [[selector.event(7, events)]]
        reactor.turn()
    assert seen == [READ, WRITE, READ | WRITE]


def test_an_event_for_a_closed_descriptor_reaches_nobody_nor_the_next_owner_of_its_number(
    reactor: Reactor, selector: FakeSelector
) -> None:
    """The lowest free number is the next descriptor, so numbers are used again at once."""
    seen: list[str] = []

    def reopen(_: int) -> None:
        seen.append("first")
        old.set(0)
        reactor.register(8, lambda _: seen.append("new")).set(READ)

    first = reactor.register(7, reopen)
    old = reactor.register(8, lambda _: seen.append("old"))
    first.set(READ)
    old.set(READ)
    selector.batches = [[selector.event(7, READ), selector.event(8, READ)]]
    reactor.turn()
    assert seen == ["first"]
    selector.batches = [[selector.event(8, READ)]]
    reactor.turn()
    assert seen == ["first", "new"]


def test_readiness_that_is_no_longer_wanted_is_not_delivered(
    reactor: Reactor, selector: FakeSelector
) -> None:
    seen: list[int] = []
    first = reactor.register(7, lambda _: second.set(WRITE))
    second = reactor.register(8, seen.append)
    first.set(READ)
    second.set(READ | WRITE)
    both = READ | WRITE
    selector.batches = [[selector.event(7, READ), selector.event(8, both)]]
    reactor.turn()
    assert seen == [WRITE]


@pytest.mark.parametrize(
    "kind", [selectors.DefaultSelector, selectors.SelectSelector, selectors.PollSelector]
)
def test_a_real_selector_reports_a_real_socket(kind: type[selectors.BaseSelector]) -> None:
    one, two = socket.socketpair()
    with one, two, closing(Reactor(kind())) as reactor:
        seen: list[int] = []
        registration = reactor.register(one, lambda events: (seen.append(events), reactor.stop()))
        registration.set(READ)
        two.send(b"x")
        reactor.run()
        registration.set(READ | WRITE)
        reactor.run()
        registration.set(0)
    assert seen == [READ, READ | WRITE]


# --- running and ending ----------------------------------------------------------------------


def test_stop_ends_the_run_after_the_turn(reactor: Reactor, selector: FakeSelector) -> None:
    ran: list[str] = []
    reactor.call_soon(reactor.stop)
    reactor.call_soon(lambda: ran.append("the rest of the turn"))
    reactor.call_soon(lambda: reactor.call_soon(lambda: pytest.fail("a turn too many")))
    reactor.run()
    assert ran == ["the rest of the turn"]
    assert len(selector.timeouts) == 1


def test_a_stop_before_the_run_is_not_forgotten(reactor: Reactor, selector: FakeSelector) -> None:
    """What a caller sends first may fail at once, and say so before the loop turns."""
    reactor.stop()
    reactor.run()
    assert selector.timeouts == []
    reactor.call_soon(reactor.stop)  # and it ends one run, not the next one too
    reactor.run()
    assert selector.timeouts == [0]


def test_turns_are_counted_and_the_longest_is_told_without_its_sleep(
    reactor: Reactor, clock: Clock
) -> None:
    for sleep, work in [(5, 1), (5, 3), (5, 2)]:
        reactor.call_later(sleep, lambda work=work: setattr(clock, "now", clock.now + work))
        reactor.turn()
    assert (reactor.turns, reactor.longest_turn) == (3, 3)


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["ready", "timer", "deferred", "signal"])
def test_what_a_callback_raises_ends_the_loop(
    real: Reactor, kind: type[BaseException], where: str
) -> None:
    def fail(*_: object) -> None:
        raise kind

    with socket.socket() as sock:
        if where == "ready":
            real.register(sock, fail).set(WRITE)
        elif where == "timer":
            real.call_later(0, fail)
        elif where == "deferred":
            real.call_soon(fail)
        else:
            real.on_signal(signal.SIGUSR1, fail)
            signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(kind):
            real.run()


# --- signals ---------------------------------------------------------------------------------


def signal_state() -> tuple[object, ...]:
    """The process's wake-up descriptor and its handlers."""
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return wakeup, signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)


def test_signals_are_delivered_in_the_loop_and_not_in_the_middle_of_other_code(
    real: Reactor,
) -> None:
    seen: list[str] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        real.on_signal(number, lambda number=number: seen.append(number.name))
    for number in (signal.SIGUSR2, signal.SIGUSR1):
        signal.raise_signal(number)
    seen.append("before the loop")
    while len(seen) < 3:
        real.turn()
    assert seen == ["before the loop", "SIGUSR1", "SIGUSR2"]


def test_closing_gives_the_signals_back() -> None:
    before, descriptors = signal_state(), len(os.listdir("/dev/fd"))  # noqa: PTH208
    reactor = Reactor()
    reactor.on_signal(signal.SIGUSR1, lambda: None)
    reactor.on_signal(signal.SIGUSR2, lambda: None)
    reactor.wakeable()  # it was made so already
    assert signal_state() != before
    ends = [reactor._bell, *(key.fileobj for key in reactor._selector.get_map().values())]
    assert [end.getblocking() for end in ends] == [False, False]  # whoever rings must not wait
    reactor.close()
    assert signal_state() == before
    assert len(os.listdir("/dev/fd")) == descriptors  # noqa: PTH208
    handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    reactor.close()  # what others have set since is theirs
    assert signal.signal(signal.SIGUSR1, handler) is signal.SIG_IGN


@pytest.mark.parametrize("end", [0, 1])
def test_a_thread_that_calls_while_the_loop_is_closed_is_told_so(end: int) -> None:
    """The two ends of the bell are closed one after the other."""
    reactor = Reactor()
    reactor.wakeable()
    ends = [each.__self__ for each in reactor._restore[1:]]  # type: ignore[attr-defined]
    ends[end].close()
    with pytest.raises(RuntimeError, match="the loop is closed"):
        reactor.call_soon_threadsafe(lambda: None)
    reactor.close()


def test_a_reactor_without_signals_leaves_them_alone() -> None:
    before = signal_state()
    reactor = Reactor()
    reactor.call_soon(reactor.stop)
    reactor.run()
    assert signal_state() == before
    reactor.close()
    assert signal_state() == before


def test_epoll_refuses_a_regular_file_and_the_registration_says_so(
    real: Reactor, tmp_path: Any
) -> None:
    with (tmp_path / "file").open("wb") as file:
        registration = real.register(file, lambda _: None)
        try:
            registration.set(READ)
        except PermissionError as error:
            assert error.errno == errno.EPERM
            assert registration.interest == 0  # so that closing it does no harm
        registration.set(0)
