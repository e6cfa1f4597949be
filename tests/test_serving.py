"""A server of lines with real sockets on loopback: what its peers are told, and how it ends."""

import errno
import logging
import socket
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from house import Clock, Selector, unacknowledged

from kv.net import tcp
from kv.net.listener import listen
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.serving import GRACE, LineServer, Peer
from kv.net.turns import BUDGET


class Recorder(Peer):
    """Keeps what it is told; `act`, if there is one, is what a line does."""

    act: Any = None
    cost: int | None = None

    def connected(self) -> None:
        self.told: list[Any] = []

    def line_received(self, line: bytes) -> int | None:
        self.told.append(line)
        if self.act is not None:
            self.act(line)
        return self.cost

    def left(self, error: Exception | None) -> None:
        self.told.append(error)


class Bench:
    """A server whose loop turns when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.selector = Selector()
        self.reactor = Reactor(self.selector, self.clock)
        self.made: list[Recorder] = []
        self.kind: Any = Recorder
        self.done = 0
        limits = Limits(line_size=100, stall_timeout=1000)
        self.sockets = listen("127.0.0.1", 0) + listen("127.0.0.1", 0)
        self.server = LineServer(self.reactor, self.sockets, self.make, limits, most=3)
        self.ports = [self.server.port, self.sockets[1].getsockname()[1]]
        self.clients: list[socket.socket] = []

    def make(self) -> Recorder:
        self.made.append(self.kind())
        return self.made[-1]

    def connect(self, octets: bytes = b"", at: int = 0) -> socket.socket:
        """A client that has said something, which nobody has looked at."""
        client = socket.create_connection(("127.0.0.1", self.ports[at]))
        self.clients.append(client)
        client.sendall(octets)
        client.setblocking(False)
        return client

    def settle(self) -> None:
        self.selector.idle = 0
        while self.selector.idle < 3:
            self.reactor.turn()

    def comes(self, octets: bytes = b"", act: Any = None, cost: int | None = None) -> Recorder:
        """A peer that has been served. `act` gets the peer and the line."""
        client = self.connect()
        self.settle()
        peer = self.made[-1]
        peer.act = act and (lambda line: act(peer, line))
        peer.cost = cost
        client.sendall(octets)
        self.settle()
        return peer

    def finish(self, **timeout: float) -> None:
        self.server.finish(self.end, **timeout)

    def end(self) -> None:
        self.done += 1


@pytest.fixture
def bench() -> Iterator[Bench]:
    with mock.patch.object(tcp, "unacknowledged", unacknowledged):
        built = Bench()
        yield built
        for client in built.clients:
            client.close()
        for peer in built.server.peers:
            peer.stream.abort(None)
        built.finish()
        built.settle()
    assert not built.server.peers and not built.selector.get_map()
    built.reactor.close()


def test_a_peer_hears_its_lines_and_then_of_its_end(bench: Bench) -> None:
    peer = bench.comes(b"one\ntwo\nhalf")
    assert peer.told == [b"one", b"two"] and list(bench.server.peers) == [peer]
    bench.clients[0].close()
    bench.settle()
    assert peer.told == [b"one", b"two", None] and not bench.server.peers


@pytest.mark.parametrize("end", ["shutdown", "too long"])
def test_whoever_ends_or_sends_a_line_too_long_is_closed_politely(bench: Bench, end: str) -> None:
    peer = bench.comes(b"one\n", lambda peer, line: peer.stream.write(line.upper() + b"\n"))
    (client,) = bench.clients
    if end == "shutdown":
        client.sendall(b"two\n")
        client.shutdown(socket.SHUT_WR)
    else:
        client.sendall(b"two\n" + b"x" * 100)
    bench.settle()
    assert client.recv(100) == b"ONE\nTWO\n" and client.recv(100) == b""
    client.close()
    bench.settle()
    assert peer.told == [b"one", b"two", None]


@pytest.mark.parametrize("end", ["close", "abort"])
def test_after_the_end_no_line_comes_of_those_that_had_arrived(bench: Bench, end: str) -> None:
    def act(peer: Recorder, line: bytes) -> None:
        if line == b"enough":
            peer.stream.close() if end == "close" else peer.stream.abort(None)

    peer = bench.comes(b"one\nenough\n" + b"more\n" * 500, act)
    bench.clients[0].close()
    bench.settle()
    assert peer.told == [b"one", b"enough", None]


def test_a_peer_that_waits_gets_its_next_line_when_it_goes_on(bench: Bench) -> None:
    peer = bench.comes(b"one\ntwo\n", lambda peer, _: peer.stream.wait())
    assert peer.told == [b"one"]
    peer.stream.go_on()
    bench.settle()
    assert peer.told == [b"one", b"two"]


@pytest.mark.parametrize(("cost", "first"), [(None, 51), (300, 4), (500, 2), (2000, 1)])
def test_a_line_is_the_work_that_its_peer_says(bench: Bench, cost: int | None, first: int) -> None:
    lines = b"".join(b"%d\n" % number for number in range(50)) + b"last\n"
    peer = bench.comes(cost=cost)
    bench.clients[0].sendall(lines)
    bench.reactor.turn()
    assert len(peer.told) == first  # a share of a turn is 1,000 units
    assert bench.server._turns.left == BUDGET - first * (cost or 1)
    bench.settle()
    assert len(peer.told) == 51


def test_a_mistake_about_one_peer_is_logged_and_ends_that_one(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    other = bench.comes(b"one\n")
    peer = bench.comes(b"1\n0\n1\n", lambda _, line: 1 // int(line))
    assert [type(told) for told in peer.told] == [bytes, bytes, ZeroDivisionError]
    assert list(bench.server.peers) == [other]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError
    bench.clients[0].sendall(b"two\n")
    bench.settle()
    assert other.told == [b"one", b"two"]


def test_a_mistake_at_the_beginning_or_the_end_leaves_nothing_behind(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    class Hasty(Recorder):
        def connected(self) -> None:
            super().connected()
            raise ValueError("hasty")

    class Late(Recorder):
        def left(self, error: Exception | None) -> None:
            raise ValueError("late") from error

    for bench.kind in (Hasty, Late):
        bench.connect().shutdown(socket.SHUT_WR)
        bench.settle()
        for client in bench.clients:
            client.close()
        bench.settle()
        assert not bench.server.peers
    assert [str(told) for told in bench.made[0].told] == ["hasty"]
    texts = [str(record.exc_info and record.exc_info[1]) for record in caplog.records]
    assert texts == ["hasty", "late"]


def test_whoever_comes_when_it_is_full_waits_until_somebody_leaves(bench: Bench) -> None:
    for at in (0, 1, 0, 1, 0):
        bench.connect(b"me\n", at)
    bench.settle()
    assert [peer.told for peer in bench.made] == [[b"me"]] * 3
    bench.clients[0].close()
    bench.settle()
    assert len(bench.made) == 4
    bench.finish()  # who waits is answered all the same
    bench.settle()
    assert [peer.told for peer in bench.made[1:]] == [[b"me"]] * 4


@pytest.mark.parametrize("lines", [b"stop\nnext\n", b"first\nstop\nnext\n"])
def test_a_program_that_catches_ctrl_c_can_go_on(bench: Bench, lines: bytes) -> None:
    """The second time, the line comes in the turn of a stream that has waited in the queue."""

    def act(_: Recorder, line: bytes) -> None:
        if line == b"stop":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.comes(lines, act, cost=BUDGET)
    bench.settle()
    (peer,) = bench.made
    assert peer.told == lines.split()
    bench.finish(timeout=1)
    bench.clients[0].close()
    bench.settle()
    assert bench.done == 1


def test_a_mistake_about_the_last_who_fits_lets_nobody_else_in(bench: Bench) -> None:
    class Third(Recorder):
        def connected(self) -> None:
            super().connected()
            if len(bench.made) == 3:
                raise ValueError

    bench.kind = Third
    for _ in range(6):
        bench.connect(b"me\n")
    bench.settle()
    assert len(bench.made) == 4 and len(bench.server.peers) == 3


def test_a_stop_answers_what_has_arrived_also_of_those_who_wait_to_be_accepted(
    bench: Bench,
) -> None:
    class Answers(Recorder):
        def act(self, line: bytes) -> None:
            self.stream.write(line.upper() + b"\n")

    bench.kind = Answers
    for _ in range(2):
        bench.connect()
    bench.settle()
    for client in bench.clients:
        client.sendall(b"here\n")
    for _ in range(2):  # at this moment no limit holds
        bench.connect(b"there\n", at=1)
    bench.finish()
    bench.finish()  # a second signal
    bench.settle()
    assert [client.recv(100) for client in bench.clients] == [b"HERE\n"] * 2 + [b"THERE\n"] * 2
    assert [client.recv(100) for client in bench.clients] == [b""] * 4
    assert bench.done == 0  # they have not ended their side
    for client in bench.clients:
        client.close()
    bench.settle()
    assert bench.done == 1 and not bench.reactor.timers.live
    for at in (0, 1):
        with pytest.raises(ConnectionRefusedError):
            bench.connect(at=at)


def test_a_stop_without_peers_is_done_when_nobody_waits(bench: Bench) -> None:
    bench.finish()
    assert bench.done == 0
    bench.settle()
    assert bench.done == 1 and not any(sock.fileno() >= 0 for sock in bench.sockets)


def test_a_stop_leaves_in_the_end_whoever_does_not_read(bench: Bench) -> None:
    peer = bench.comes(b"a\n", lambda peer, _: peer.stream.write(b"x" * 8_000_000))
    bench.finish()
    bench.settle()
    bench.clock.now += GRACE - 0.01
    bench.settle()
    assert bench.done == 0 and peer.told == [b"a"]
    bench.clock.now += 0.01
    bench.settle()
    assert bench.done == 1 and isinstance(peer.told[1], TimeoutError) and peer.told[2:] == []
    (client,) = bench.clients
    client.setblocking(True)
    while client.recv(1 << 20):  # to the last octet that the kernel had, and no reset
        pass


def test_a_stop_does_not_wait_for_a_descriptor_for_ever(bench: Bench) -> None:
    exhausted = OSError(errno.EMFILE, "too many open files")
    with mock.patch.object(socket.socket, "accept", side_effect=exhausted):
        bench.connect()
        bench.finish(timeout=10)
        bench.settle()
        assert bench.done == 0
        bench.clock.now += 10
        bench.settle()
    assert bench.done == 1
