"""A listener alone: `accept` gives what the test wants, and the loop turns when it says so."""

import errno
import socket
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from test_reactor import Clock, FakeSelector

from kv.net import listener, tcp
from kv.net.listener import BACKLOG, BATCH, RETRY, Listener, listen
from kv.net.reactor import READ, Reactor

WOULD_BLOCK = BlockingIOError(errno.EAGAIN, "would block")
DEAD = OSError(errno.ECONNABORTED, "aborted")
EXHAUSTED = OSError(errno.EMFILE, "too many open files")
INTERRUPTED = InterruptedError(errno.EINTR, "interrupted")


class Bench:
    """A listener whose queue has what `comes`; an int is so many connections."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.selector = FakeSelector(self.clock)
        self.reactor = Reactor(self.selector, self.clock)  # type: ignore[arg-type]
        self.queue: list[Any] = []
        self.sock: Any = mock.Mock(**{"fileno.return_value": 0, "accept.side_effect": self.accept})
        self.sock.close.side_effect = lambda: self.sock.fileno.configure_mock(return_value=-1)
        self.accepted: list[Any] = []
        self.listener = Listener(self.reactor, self.sock, lambda sock, _: self.take(sock))
        self.sock.setblocking.assert_called_once_with(False)

    def take(self, sock: Any) -> None:
        self.accepted.append(sock)

    def accept(self) -> tuple[Any, Any]:
        if not self.queue:
            raise WOULD_BLOCK
        if isinstance(self.queue[0], Exception):
            raise self.queue.pop(0)
        self.queue[0] -= 1
        if not self.queue[0]:
            del self.queue[0]
        return mock.Mock(), ("127.0.0.1", 1)

    def turn(self, *comes: Any, after: float = 0) -> int:
        """One turn of the loop; how many were accepted in it."""
        self.queue += comes
        self.clock.now += after
        before = len(self.accepted)
        if self.watched:
            self.selector.batches = [[self.selector.event(self.sock, READ)]]
        self.reactor.call_soon(lambda: None)
        self.reactor.turn()
        return len(self.accepted) - before

    @property
    def watched(self) -> bool:
        return self.sock in self.selector.registered


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def warnings() -> Iterator[mock.Mock]:
    with mock.patch.object(listener.log, "warning") as said:
        yield said


def test_so_many_are_accepted_in_one_turn_and_no_more(bench: Bench) -> None:
    assert [bench.turn(150), bench.turn(), bench.turn()] == [BATCH, BATCH, 150 - 2 * BATCH]


def test_a_connection_that_died_says_nothing_about_the_others(bench: Bench) -> None:
    with mock.patch.object(listener.peers, "info") as said:
        assert bench.turn(1, DEAD, 1, INTERRUPTED, 1) == 2
        assert bench.turn() == 1
    assert [call.args[1] for call in said.call_args_list] == ["aborted"]
    died = "ECONNABORTED EPROTO ENOPROTOOPT EOPNOTSUPP EPERM ENETDOWN ENETUNREACH EHOSTDOWN"
    died += " EHOSTUNREACH ETIMEDOUT ECONNRESET" + " ENONET" * hasattr(errno, "ENONET")
    assert bench.turn(*(OSError(getattr(errno, name), name) for name in died.split()), 1) == 1
    with pytest.raises(OSError, match="bad"):
        bench.turn(OSError(errno.EBADF, "bad descriptor"))


def test_one_that_cannot_be_set_up_is_closed_and_the_others_get_in(bench: Bench) -> None:
    with (
        mock.patch.object(bench, "take", side_effect=[ValueError, None]) as take,
        mock.patch.object(listener.log, "exception") as said,
    ):
        bench.turn(2)
    first, second = (call.args[0] for call in take.call_args_list)
    first.close.assert_called_once_with()
    second.close.assert_not_called()
    assert said.call_args.args[1] == "127.0.0.1:1"


def test_whoever_pauses_it_gets_no_more_until_it_goes_on(bench: Bench) -> None:
    bench.take = lambda sock: (bench.accepted.append(sock), bench.listener.pause())  # type: ignore[method-assign]
    assert bench.turn(2) == 1 and not bench.watched
    bench.listener.resume()
    assert bench.watched and bench.turn() == 1


def test_without_descriptors_it_looks_away_for_a_moment_and_says_so_once(
    bench: Bench, warnings: mock.Mock
) -> None:
    for times in (1, 2):  # said again only after somebody could be accepted
        for _ in range(2):
            assert bench.turn(EXHAUSTED) == 0 and not bench.watched
            bench.turn(after=RETRY - 0.01)
            bench.listener.resume()  # which has to wait, too
            assert not bench.watched
            bench.turn(after=0.02)
            assert bench.watched
        assert warnings.call_count == times
        assert bench.turn(1) == 1
        bench.turn()


def test_a_pause_outlasts_a_moment_of_looking_away(bench: Bench, warnings: mock.Mock) -> None:
    bench.turn(EXHAUSTED)
    bench.listener.pause()
    bench.turn(after=RETRY)
    assert not bench.watched
    bench.listener.resume()
    assert bench.watched


def test_a_selector_without_room_is_a_lack_of_resources(bench: Bench, warnings: mock.Mock) -> None:
    bench.listener.pause()
    with mock.patch.object(bench.selector, "register", side_effect=OSError(errno.ENOSPC, "full")):
        bench.listener.resume()
    assert not bench.watched and warnings.call_count == 1
    bench.turn(after=RETRY)
    assert bench.watched


def test_at_the_end_those_who_wait_get_in_and_it_closes_once(
    bench: Bench, warnings: mock.Mock
) -> None:
    done = mock.Mock()
    bench.turn(EXHAUSTED)
    bench.listener.pause()
    bench.listener.finish(done)
    assert not bench.watched and bench.listener.listening
    assert [bench.turn(BATCH, 3), bench.turn(EXHAUSTED)] == [BATCH, 3]
    assert not done.called
    bench.turn(after=RETRY)
    assert done.call_count == 1 and not bench.listener.listening
    bench.turn(5, after=RETRY)
    assert done.call_count == 1 and len(bench.accepted) == BATCH + 3


def test_a_crowd_that_goes_on_coming_does_not_put_the_end_off(bench: Bench) -> None:
    done = mock.Mock()
    bench.listener.finish(done)
    bench.queue = [10 * BACKLOG]
    for _ in range(BACKLOG // BATCH):
        assert not done.called
        bench.turn()
    assert done.call_count == 1 and len(bench.accepted) == BACKLOG
    assert not bench.listener.listening


def test_closing_gives_everything_back(bench: Bench, warnings: mock.Mock) -> None:
    bench.turn(EXHAUSTED)
    bench.listener.close()
    assert bench.reactor.timers.live == 0
    other = Bench()
    other.listener.close()
    assert not other.watched and not other.listener.listening
    other.listener._ready()  # a deferred call from before
    assert other.sock.accept.call_count == 0


@pytest.mark.parametrize(
    ("queue", "refused"),
    [
        ([3], 3),
        ([2, DEAD, 1], 3),
        ([2, EXHAUSTED, 1], 3),  # one at least, and nobody knows how many more
        ([2, EXHAUSTED], 2),  # the kernel says so before it looks into the queue
        ([2 * BACKLOG], BACKLOG),
    ],
)
def test_who_is_refused_is_counted(bench: Bench, queue: list[Any], refused: int) -> None:
    bench.queue = queue
    bench.listener.pause()
    with mock.patch.object(tcp, "readable", lambda _: bool(queue)):
        assert bench.listener.refuse() == refused
    assert not bench.listener.listening and bench.listener.refuse() == 0


def test_the_kernel_says_whether_somebody_waits_to_be_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        assert not tcp.readable(listening)
        client.connect(listening.getsockname())
        assert tcp.readable(listening)


# --- opening ----------------------------------------------------------------------------------

FOUR = (socket.AF_INET, ("10.0.0.1", 0))
SIX = (socket.AF_INET6, ("fe80::1", 0, 0, 3))


class Sockets:
    """Makes sockets; `bind` of each gives what comes next. The kernel picks port 50, 51, …"""

    def __init__(self, *binds: OSError | None) -> None:
        self.binds = list(binds)
        self.made: list[Any] = []

    def __call__(self, family: int, _type: int) -> Any:
        sock = mock.Mock(family=family)
        sock.bind.side_effect = self.binds.pop(0)
        if sock.bind.side_effect is None:
            sock.bind.return_value = None
        sock.getsockname.side_effect = lambda: (
            "",
            sock.bind.call_args.args[0][1] or 49 + len(self.made),
        )
        self.made.append(sock)
        return sock

    @property
    def bound(self) -> list[Any]:
        return [sock.bind.call_args.args[0] for sock in self.made]

    @property
    def closed(self) -> list[bool]:
        return [sock.close.called for sock in self.made]


def opened(sockets: Sockets, *addresses: Any, port: int = 0) -> list[Any]:
    with (
        mock.patch("kv.net.listener.resolve", lambda *_: list(addresses)),
        mock.patch("kv.net.listener.socket.socket", sockets),
    ):
        return listen("host", port)


IN_USE = OSError(errno.EADDRINUSE, "in use")
NO_ADDRESS = OSError(errno.EADDRNOTAVAIL, "no such address")


def test_all_addresses_get_the_port_that_the_kernel_picked_for_the_first() -> None:
    sockets = Sockets(None, None)
    assert opened(sockets, FOUR, SIX) == sockets.made
    assert sockets.bound == [("10.0.0.1", 0), ("fe80::1", 50, 0, 3)]
    for sock in sockets.made:
        sock.listen.assert_called_once_with(BACKLOG)
        sock.setsockopt.assert_any_call(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


@pytest.mark.parametrize(("addresses", "only_6"), [([FOUR, SIX], 1), ([SIX], 0), ([SIX, SIX], 0)])
def test_ipv6_alone_serves_ipv4_too(addresses: list[Any], only_6: int) -> None:
    sockets = Sockets(None, None)
    opened(sockets, *addresses)
    for sock in sockets.made:
        option = mock.call(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_6)
        assert (option in sock.setsockopt.mock_calls) == (sock.family == socket.AF_INET6)


def test_a_port_that_is_in_use_under_another_address_is_picked_again_ten_times() -> None:
    sockets = Sockets(None, IN_USE, None, None)
    assert opened(sockets, FOUR, SIX) == sockets.made[2:]
    assert sockets.closed == [True, True, False, False]
    for port, times, error in [(0, 10, IN_USE), (7, 1, IN_USE), (0, 1, PermissionError())]:
        sockets = Sockets(*[None, error] * 11)
        with pytest.raises(type(error)):
            opened(sockets, FOUR, SIX, port=port)
        assert sockets.closed == [True] * 2 * times


def test_an_address_that_this_machine_lacks_is_left_out_unless_it_is_the_last() -> None:
    sockets = Sockets(NO_ADDRESS, None)
    assert opened(sockets, SIX, FOUR, port=9) == sockets.made[1:]
    assert sockets.closed == [True, False]
    with pytest.raises(OSError, match="no such"):
        opened(Sockets(NO_ADDRESS, NO_ADDRESS), SIX, FOUR)
