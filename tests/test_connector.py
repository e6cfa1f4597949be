"""Connecting: one address after the other, without blocking, and giving up in time."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from house import Clock, Selector, open_descriptors
from patience import patience
from pitfalls.pitfall import bounded

from kv.net.address import Address, resolve, shown
from kv.net.connector import STAGGER, Connector, in_turns
from kv.net.reactor import Reactor

Addresses = list[tuple[int, Address]]
NO_SUCH_FAMILY = 9999, ("127.0.0.1", 1)
#: `connect` itself says no: broadcast addresses are not for TCP.
UNREACHABLE = socket.AF_INET, ("255.255.255.255", 1)


class Outcome:
    """What a connector has said so far."""

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.error: OSError | None = None

    def connected(self, sock: socket.socket) -> None:
        assert self.sock is None and self.error is None
        self.sock = sock

    def failed(self, error: OSError) -> None:
        assert self.sock is None and self.error is None
        self.error = error


Connect = Callable[..., tuple[Connector, Outcome]]


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    reactor.call_later(patience(2), lambda: pytest.fail("the loop waited in vain"))
    yield reactor
    reactor.close()


@pytest.fixture
def connect(reactor: Reactor) -> Iterator[Callable[..., tuple[Connector, Outcome]]]:
    """`connect(addresses, timeout)` runs a connector until it has said something."""
    outcomes: list[Outcome] = []

    def make(addresses: Addresses, timeout: float = 10) -> tuple[Connector, Outcome]:
        outcomes.append(outcome := Outcome())
        connector = Connector(reactor, addresses, timeout, outcome.connected, outcome.failed)
        while outcome.sock is None and outcome.error is None:
            reactor.turn()
        return connector, outcome

    yield make
    for outcome in outcomes:
        if outcome.sock is not None:
            outcome.sock.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(patience())
        yield sock


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that never answers: its queue of connections is full."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        waiting = []
        try:
            for _ in range(20):
                one = socket.socket()
                waiting.append(one)
                one.setblocking(False)
                one.connect_ex(sock.getsockname())
            yield sock.getsockname()
        finally:
            for one in waiting:
                one.close()


def test_the_address_that_answers_is_connected_to(
    connect: Connect, listener: socket.socket
) -> None:
    connector, outcome = connect([(socket.AF_INET, listener.getsockname())])
    assert outcome.sock is not None
    assert outcome.sock.getpeername() == listener.getsockname() == connector.address
    with listener.accept()[0] as theirs:
        assert theirs.getpeername() == outcome.sock.getsockname()


def test_the_socket_is_handed_on_without_blocking_and_forgotten(
    connect: Connect, listener: socket.socket, reactor: Reactor
) -> None:
    connector, outcome = connect([(socket.AF_INET, listener.getsockname())], 0.1)
    assert outcome.sock is not None
    assert not outcome.sock.getblocking()
    with pytest.raises(BlockingIOError):
        outcome.sock.recv(1)
    connector.close()
    assert outcome.sock.fileno() >= 0  # it is somebody else's by now
    assert not reactor._selector.get_map()
    assert reactor.timers.live == 1  # this test's own


def test_nothing_happens_before_the_loop_runs(reactor: Reactor) -> None:
    """Whoever makes a connector is not called back before it knows the connector."""
    outcome = Outcome()
    Connector(reactor, [NO_SUCH_FAMILY], 1, outcome.connected, outcome.failed)  # needs no waiting
    assert outcome.error is None
    while outcome.error is None:
        reactor.turn()


def test_who_gives_up_before_the_loop_runs_hears_nothing(reactor: Reactor) -> None:
    outcome = Outcome()
    addresses: Addresses = [(socket.AF_INET, ("127.0.0.1", 1))]
    Connector(reactor, addresses, patience(), outcome.connected, outcome.failed).close()
    reactor.turn()
    assert outcome.sock is None and outcome.error is None
    assert not reactor._selector.get_map()


@pytest.mark.parametrize("first", ["deaf", "silent", NO_SUCH_FAMILY, UNREACHABLE], ids=str)
def test_the_second_address_is_tried_when_the_first_is_of_no_use(
    connect: Connect, listener: socket.socket, request: pytest.FixtureRequest, first: Any
) -> None:
    if isinstance(first, str):
        first = socket.AF_INET, request.getfixturevalue(first)
    connector, outcome = connect([first, (socket.AF_INET, listener.getsockname())], 0.2)
    assert outcome.sock is not None
    assert outcome.sock.getpeername() == connector.address == listener.getsockname()


def test_no_address_left_is_the_last_error_with_its_address(
    connect: Connect, deaf: Address
) -> None:
    _, outcome = connect([(socket.AF_INET, deaf), (socket.AF_INET, deaf)])
    assert isinstance(outcome.error, ConnectionRefusedError)
    assert f"127.0.0.1:{deaf[1]}" in str(outcome.error)


def test_an_address_that_never_answers_is_a_timeout_error(
    connect: Connect, silent: Address
) -> None:
    _, outcome = connect([(socket.AF_INET, silent)], 0.1)
    assert isinstance(outcome.error, TimeoutError)
    assert outcome.error.errno == errno.ETIMEDOUT


class Later:
    """A reactor's `call_later`, whose delays are recorded, and pass at once if `skip` says so."""

    def __init__(self, reactor: Reactor, skip: Callable[[float], bool]) -> None:
        self.delays: list[float] = []
        self._call_later, self._skip = reactor.call_later, skip
        reactor.call_later = self  # type: ignore[method-assign,assignment]

    def __call__(self, delay: float, callback: Callable[[], object]) -> object:
        self.delays.append(delay)
        return self._call_later(0 if self._skip(delay) else delay, callback)


def test_the_next_attempt_begins_after_a_quarter_of_a_second_and_the_first_goes_on(
    reactor: Reactor, silent: Address
) -> None:
    later = Later(reactor, lambda delay: delay == STAGGER)
    outcome = Outcome()
    addresses: Addresses = [(socket.AF_INET, silent)] * 4
    connector = Connector(reactor, addresses, 10, outcome.connected, outcome.failed)
    while len(connector._attempts) < 4:
        reactor.turn()
    assert later.delays == [10, STAGGER, STAGGER, STAGGER]
    connector.close()


def test_every_address_is_tried_before_a_short_time_is_over(
    silent: Address, listener: socket.socket
) -> None:
    clock = Clock()
    outcome, reactor = Outcome(), Reactor(Selector(), clock)
    addresses: Addresses = [(socket.AF_INET, silent)] * 9
    addresses.append((socket.AF_INET, listener.getsockname()))
    connector = Connector(reactor, addresses, 1, outcome.connected, outcome.failed)
    while connector._addresses:
        clock.now += 0.01
        reactor.turn()
    assert clock.now < 1 and not outcome.error
    with bounded(patience()):
        while outcome.sock is None:
            reactor.turn()
    outcome.sock.close()
    reactor.close()


def test_an_address_that_refuses_leaves_its_time_to_the_others(
    reactor: Reactor, deaf: Address, silent: Address
) -> None:
    """The first refuses; the second is begun at once, and has what is left of the whole."""
    later = Later(reactor, lambda _: False)
    outcome = Outcome()
    addresses: Addresses = [(socket.AF_INET, deaf), (socket.AF_INET, silent)]
    connector = Connector(reactor, addresses, 10, outcome.connected, outcome.failed)
    while connector._addresses:
        reactor.turn()
    assert later.delays == [10, STAGGER]  # nobody waits for the second of these
    assert [attempt.address for attempt in connector._attempts] == [silent]
    connector.close()


def test_the_first_to_connect_wins_and_the_others_are_closed(
    connect: Connect, silent: Address, listener: socket.socket
) -> None:
    before = open_descriptors()
    _, outcome = connect([(socket.AF_INET, silent), (socket.AF_INET, listener.getsockname())])
    assert outcome.sock is not None
    assert open_descriptors() == before + 1


def test_the_families_take_turns() -> None:
    one, two = socket.AF_INET6, socket.AF_INET
    addresses: Addresses = [(one, ("a", 1)), (one, ("b", 1)), (one, ("c", 1)), (two, ("d", 1))]
    assert [address[0] for _, address in in_turns(addresses)] == ["a", "d", "b", "c"]


@pytest.mark.parametrize("status", [0, errno.EINPROGRESS, errno.EINTR, errno.EPERM])
def test_what_connect_says_at_once_is_believed_if_it_is_an_error(
    connect: Connect, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    class Saying(socket.socket):
        def connect_ex(self, address: Address) -> int:
            super().connect_ex(address)
            return status

    monkeypatch.setattr("kv.net.connector.socket.socket", Saying)
    _, outcome = connect([(socket.AF_INET, listener.getsockname())])
    assert (outcome.error and outcome.error.errno) == (status if status == errno.EPERM else None)


def test_addresses_are_shown_as_people_write_them() -> None:
    assert shown(("127.0.0.1", 4242)) == "127.0.0.1:4242"
    assert shown(("::1", 4242, 0, 0)) == "[::1]:4242"


@pytest.mark.parametrize("host", ["x" * 64, "a..b", "\udcff"])
def test_what_cannot_be_a_name_is_said_as_other_names_that_nobody_has(host: str) -> None:
    with pytest.raises(socket.gaierror) as raised:
        resolve(host, 4242)
    assert (raised.value.errno, raised.value.strerror) == (socket.EAI_NONAME, "not a host name")


def test_giving_up_closes_everything_and_calls_nobody(
    reactor: Reactor, silent: Address, listener: socket.socket
) -> None:
    before = open_descriptors()
    outcome = Outcome()
    addresses = [(socket.AF_INET, silent), (socket.AF_INET, listener.getsockname())]
    connector = Connector(reactor, addresses, patience(), outcome.connected, outcome.failed)
    reactor.call_soon(lambda: None)
    reactor.turn()
    assert reactor._selector.get_map()  # it is connecting
    connector.close()
    connector.close()
    assert not reactor._selector.get_map()
    assert reactor.timers.live == 1  # this test's own
    assert open_descriptors() == before


def test_failed_attempts_leave_no_descriptor_open(
    connect: Connect, deaf: Address, silent: Address
) -> None:
    before = open_descriptors()
    for _ in range(10):
        connect([(socket.AF_INET, deaf), (socket.AF_INET, silent), (9999, deaf)], 0.03)
    assert open_descriptors() == before


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_socket_connected_to_itself_is_no_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """The kernel may pick the very port that is connected to as the one to come from."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with closing(socket.socket(family)) as free:
        free.bind((host, 0))
        port = free.getsockname()[1]

    class FromThere(socket.socket):
        def connect_ex(self, address: Address) -> int:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
            return super().connect_ex(address)

    monkeypatch.setattr("kv.net.connector.socket.socket", FromThere)
    _, outcome = connect([(family, (host, port))])
    assert isinstance(outcome.error, ConnectionRefusedError)


def has_ipv6() -> bool:
    """Whether a socket can be bound to ::1."""
    with closing(socket.socket(socket.AF_INET6)) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True
