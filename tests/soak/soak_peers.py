"""Crowds of slow, greedy, broken and hostile peers against the real server: volume and latency.

`make test` has the same in counts. Here are percentiles, as ratios of what was measured in the same
run a moment before, since machines differ and are busy with other things. Needs /proc.
"""

import contextlib
import itertools
import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from statistics import median

import pytest
from conftest import Server, wait_until
from fuzz import conversations, run
from test_damaged_lines import WANTED, refuse
from test_hostile import descriptors, resident, statistics
from wire import KEY, Peer

StartServer = Callable[..., Server]
MakePeer = Callable[..., Peer]

VALUE = "v" * 265
NOW = struct.pack("ii", 1, 0)  # struct linger: close with RST


def exchanges(peer: Peer, count: int) -> list[float]:
    """Asks so often, one after the other; how long each took, in seconds, in order of size."""
    line, took = peer.seal("GET x"), []
    for _ in range(count):
        start = time.perf_counter()
        peer.send_raw(line)
        peer.read_line()
        took.append(time.perf_counter() - start)
    return sorted(took)


def p99(took: list[float]) -> float:
    return took[len(took) * 99 // 100]


def one_processor(server: Server) -> None:
    """Has the server and this process share one: what a message between two takes depends on
    where the system happens to put them, by more than on all that is measured here."""
    for pid in (server.pid, 0):
        os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})


def settled(server: Server, connections: int) -> dict[str, str]:
    """The statistics, once no more than so many connections are left."""
    start = f"{connections} now"
    wait_until(lambda: statistics(server)["connections"].startswith(start), "peers to go")
    return statistics(server)


@pytest.fixture
def affinity() -> Iterator[None]:
    """Puts back where this process may run."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


# --- a bystander -----------------------------------------------------------------------------


def test_a_bystander_does_not_notice_five_hundred_slow_and_five_hundred_mute_peers(
    start_server: StartServer, peer: MakePeer, affinity: None
) -> None:
    ratios, server = [], start_server()
    one_processor(server)
    bystander = peer("bystander", port=server.port)
    exchanges(bystander, 2000)
    for _ in range(3):
        alone = p99(exchanges(bystander, 5000))
        with contextlib.ExitStack() as stack:
            peers = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                for _ in range(1000)
            ]
            beside: list[float] = []
            for octet in KEY.line[:8]:  # an octet a second each, from every other one
                second = time.perf_counter() + 1
                for slow in peers[::2]:
                    slow.send(bytes([octet]))
                while time.perf_counter() < second:
                    beside += exchanges(bystander, 100)
            ratios.append(p99(sorted(beside)) / alone)
            told = settled(server, 1)  # gone by their deadline, 10 s after they came
    print(f"\n    99th percentile: {', '.join(f'{r:.2f}' for r in ratios)} times as long")
    assert median(ratios) <= 1.5
    assert told["drops"] == "3000 handshake"


def test_a_polite_client_beside_one_that_asks_for_five_blocks_at_a_time(
    start_server: StartServer, peer: MakePeer
) -> None:
    """Never-seen values of five blocks are the most arithmetic that one message can ask for."""
    server, keys = start_server(), [f"{number:04}" for number in range(2000)]
    greedy, polite = peer("greedy", port=server.port), peer("polite", port=server.port)
    for key in keys:
        assert greedy.ask(f"PUT {key}", VALUE) == "PUT: OK"
    gets = [greedy.seal(f"GET {key}") for key in keys]  # which takes this end's own arithmetic
    start = time.perf_counter()
    for line in gets[:200]:
        greedy.send_raw(line)
        greedy.read_line()
    one = (time.perf_counter() - start) / 200
    owed, took, line = len(keys) - 200, [], polite.seal("GET x")
    greedy.send_raw(b"".join(gets[200:]))
    greedy.socket.setblocking(False)
    while owed:  # its replies are read meanwhile, or the server would stop reading from it
        start = time.perf_counter()
        polite.send_raw(line)
        polite.read_line()
        took.append(time.perf_counter() - start)
        with contextlib.suppress(BlockingIOError):
            owed -= greedy.socket.recv(1 << 20).count(b"\n")
    times = p99(sorted(took)) / one
    print(
        f"\n    99th percentile of {len(took)}: {times:.2f} times such a GET, {1000 * one:.2f} ms"
    )
    assert times < 5


# --- volume ----------------------------------------------------------------------------------


def test_a_hundred_thousand_replies_that_are_not_read_cost_little_and_all_arrive(
    start_server: StartServer, peer: MakePeer
) -> None:
    server, count = start_server(), 100_000
    greedy = peer("greedy", port=server.port, small_buffers=True)
    bystander = peer("bystander", port=server.port)
    values = [str(number).ljust(265) for number in range(10)]
    for number, value in enumerate(values):
        assert greedy.ask(f"PUT {number}", value) == "PUT: OK"
        assert greedy.ask(f"GET {number}") == value
    unsent = b"".join(greedy.seal(f"GET {number}") for number in range(10)) * (count // 10)
    before, most, start = resident(server), 0, 0
    greedy.socket.setblocking(False)
    for _ in range(2000):
        with contextlib.suppress(BlockingIOError):
            start += greedy.socket.send(memoryview(unsent)[start:])
        assert bystander.ask("GET x") == "GET: ERROR"
        most = max(most, resident(server) - before)
    assert start < len(unsent), "the server has taken it all"
    assert most < 2 << 20
    received = bytearray()
    while len(received) < count * 429:
        readable, writable, _ = select.select(
            [greedy.socket], [greedy.socket] * (start < len(unsent)), [], 10
        )
        assert readable or writable, "nothing arrives"
        if writable:
            start += greedy.socket.send(memoryview(unsent)[start:])
        if readable:
            received += greedy.socket.recv(1 << 20)
    print(f"\n    {most / 1024:.0f} KiB more while nothing is read")
    assert received == received[: 10 * 429] * (count // 10)
    assert len(set(bytes(received[: 10 * 429]).split())) == 10


def misbehave(port: int, number: int) -> None:
    """Connects, comes so far in a conversation, and is gone: every other one with RST."""
    texts = f"CONNECT {number}", "PUT k", "v", "GET k"
    said = KEY.line + b"".join(KEY.seal(text.encode()) for text in texts)
    said = said[: number * 37 % (len(said) + 1)]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        if number % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
        sock.sendall(said)
        if len(said) > len(KEY.line):
            sock.recv(1)  # it is seen to have been accepted


def test_ten_thousand_connects_and_disconnects_leave_nothing(start_server: StartServer) -> None:
    server = start_server()
    numbers = itertools.count()

    def come_and_go(count: int) -> tuple[dict[str, str], int, int]:
        for number in itertools.islice(numbers, count):
            misbehave(server.port, number)
        return settled(server, 0), descriptors(server), resident(server)

    _, files, memory = come_and_go(2000)
    told, files_now, memory_now = come_and_go(10_000)
    grown = memory_now - memory
    print(f"\n    {grown / 1024:.0f} KiB more after 10,000 connections; {told['connections']}")
    assert files_now == files and grown < 1 << 20
    assert told["sessions"].startswith("0 with 0 keys, charged 0 of ")
    assert "error" not in told["drops"]


def test_a_hundred_thousand_damaged_messages(start_server: StartServer, peer: MakePeer) -> None:
    server = start_server()
    bystander = peer("bystander", port=server.port)
    assert bystander.ask("PUT colour", "blue") == "PUT: OK"
    seed = int(os.environ.get("FUZZ_SEED", time.time()))
    print(f"\n    FUZZ_SEED={seed}")
    files, memory = descriptors(server), 0
    for part, messages in ((seed, 5000), (seed + 1, 100_000)):
        memory = resident(server)
        rng = random.Random(part)
        for octets in conversations(part, messages):
            run(server.port, octets, rng)
            if rng.random() < 0.01:
                assert bystander.ask("GET colour") == "blue"
        told = settled(server, 1)
    grown = resident(server) - memory
    print(f"    {grown / 1024:.0f} KiB more after 100,000 messages; drops: {told['drops']}")
    assert descriptors(server) == files and grown < 1 << 20
    assert bystander.ask("GET colour") == "blue"
    assert told["sessions"].startswith("1 with 1 keys")
    assert "error" not in told["drops"]


def test_a_million_damaged_lines_are_violations_and_nothing_else() -> None:
    seed = int(os.environ.get("FUZZ_SEED", time.time()))
    print(f"\n    FUZZ_SEED={seed}")
    outcomes = refuse(seed, 1_000_000)
    assert not WANTED - set(outcomes)
    print(f"    {1_000_000 - outcomes['a good line']:,} refused, for {len(outcomes) - 1} reasons")
