"""Slow, greedy, broken and hostile peers against the real server in its own process.

What is asserted are counts and octets; how long things take is for the benchmark.
"""

import contextlib
import fcntl
import os
import re
import resource
import selectors
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import wire
from conftest import Server, wait_until
from house import Guest, house
from service.parts import free_port
from wire import KEY, OTHER_KEY, Peer, new_id

StartServer = Callable[..., Server]
MakePeer = Callable[..., Peer]

on_linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
VALUE = "v" * 265


def resident(server: Server) -> int:
    """Octets of memory that the server's process occupies."""
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def statistics(server: Server) -> dict[str, str]:
    """What SIGUSR1 makes the server log, by name."""
    before = server.log().count("turns:")
    server.signal(signal.SIGUSR1)
    wait_until(lambda: server.log().count("turns:") > before, "the statistics")
    line = [line for line in server.log().splitlines() if "turns:" in line][-1]
    return dict(part.split(": ", 1) for part in line[line.index("connections:") :].split("; "))


def turns(server: Server) -> int:
    return int(statistics(server)["turns"].split(",")[0])


# --- what SIGUSR1 tells ----------------------------------------------------------------------


def test_sigusr1_logs_one_line_of_statistics_and_disturbs_nobody(
    start_server: StartServer, peer: MakePeer, connect: MakePeer
) -> None:
    server = start_server()
    client = peer("alice", port=server.port)
    assert client.ask("PUT colour", "blue") == "PUT: OK"
    bad = connect(server.port)
    bad.send_raw(b"rubbish\n")
    assert bad.read_to_end() == b""
    bad.close()
    wait_until(lambda: "1 now" in statistics(server)["connections"], "the bad client to go")
    told = statistics(server)
    assert told["connections"] == "1 now, 2 in all, accepting paused 0 times at the limit"
    assert re.fullmatch(r"1 with 1 keys, charged \d+ of 268435456 octets", told["sessions"])
    assert told["messages"] == "5"
    assert re.fullmatch(r"\d+ received, \d+ sent", told["octets"])
    assert told["drops"] == "1 violation"
    assert re.fullmatch(r"\d+, the longest [\d.]+ ms", told["turns"])
    assert client.ask("GET colour") == "blue"


# --- descriptors -----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit")
def test_without_descriptors_the_old_clients_go_on_the_loop_rests_and_new_ones_get_in_later(
    start_server: StartServer, peer: MakePeer, connect: MakePeer
) -> None:
    server = start_server()
    old = peer("old", port=server.port)
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (descriptors(server), hard))
    new = connect(server.port)
    new.send_raw(KEY.line)
    server.wait_for_log("cannot accept connections: Too many open files")
    before = turns(server)
    for _ in range(100):
        assert old.ask("GET x") == "GET: ERROR"
    assert turns(server) - before < 150  # one for each message, a few for retries and signals
    assert new.silent()
    old.close()
    new.read_key()
    assert new.ask("CONNECT new") == "CONNECT: OK"
    assert len(server.log_lines("cannot accept")) == 1


# --- those who do not read, and those who ask for too much -----------------------------------


@on_linux
def test_a_client_that_never_reads_costs_little_and_gets_everything_when_it_does(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server(afresh=True)
    greedy, bystander = peer("greedy", port=server.port), peer("bystander", port=server.port)
    assert greedy.ask("PUT k", VALUE) == "PUT: OK"
    assert greedy.ask("GET k") == VALUE
    count = 20_000
    before, unsent = resident(server), memoryview(greedy.seal("GET k") * count)
    greedy.socket.setblocking(False)
    greedy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    stuck = 0
    while unsent and stuck < 20:  # each exchange of the bystander's is a turn that took nothing
        try:
            unsent = unsent[greedy.socket.send(unsent) :]
            stuck = 0
        except BlockingIOError:
            stuck += 1
            assert bystander.ask("GET x") == "GET: ERROR"
    assert unsent, "the server has taken it all"
    assert resident(server) - before < 2 << 20
    selector = selectors.DefaultSelector()
    selector.register(greedy.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
    received = bytearray()
    line = len(greedy.seal("x" * 265))
    while len(received) < count * line:
        for _, events in selector.select(10) or pytest.fail("nothing arrives"):
            if events & selectors.EVENT_WRITE and unsent:
                unsent = unsent[greedy.socket.send(unsent) :]
                if not unsent:
                    selector.modify(greedy.socket, selectors.EVENT_READ)
            if events & selectors.EVENT_READ:
                with contextlib.suppress(BlockingIOError):  # only a part of a TLS record
                    received += greedy.socket.recv(1 << 20)
    selector.close()
    assert received == received[:line] * count
    assert bystander.ask("GET x") == "GET: ERROR"


def test_beside_a_client_that_pipelines_at_full_speed_ten_polite_ones_fare_alike(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server()
    greedy = peer("greedy", port=server.port)
    polite = [peer(f"polite {n}", port=server.port) for n in range(10)]
    assert greedy.ask("PUT k", VALUE) == "PUT: OK"
    flood = memoryview(greedy.seal("GET k") * 1000)
    served = 0
    greedy.socket.setblocking(False)
    for round_number in range(50):
        with contextlib.suppress(BlockingIOError):
            while True:
                greedy.socket.send(flood)  # cut anywhere: what is not whole is dropped, and fair
        with contextlib.suppress(BlockingIOError):
            while served < round_number * 1_000_000 and (data := greedy.socket.recv(65536)):
                served += len(data)
        before = turns(server) if round_number == 49 else 0
        for client in polite:
            client.send_text("GET x")
        for client in polite:  # all ten are answered, round for round
            assert client.read_text() == "GET: ERROR"
    assert turns(server) - before < 100


# --- coming and going ------------------------------------------------------------------------


@on_linux
def test_after_hundreds_of_clients_that_left_in_every_way_everything_is_as_before(
    start_server: StartServer, connect: MakePeer, peer: MakePeer
) -> None:
    server = start_server(afresh=True)
    bystander = peer("bystander", port=server.port)
    assert bystander.ask("PUT k", "v") == "PUT: OK"
    before = descriptors(server)

    def crowd(size: int) -> None:
        for number in range(size):
            client = Peer(server.port, key=(KEY, OTHER_KEY)[number % 2])
            if number % 5:
                client.handshake()
            if number % 5 > 1:
                client.connect(f"guest {number}")
            if number % 5 > 2:
                client.send_text("PUT k")
                client.send_raw(client.seal("value")[: 40 if number % 2 else None])
            if number % 5 > 3:
                client.send_text("DISCONNECT" if number % 3 else "HELLO")
            client.reset() if number % 2 else client.close()
        wait_until(lambda: descriptors(server) == before, "the crowd to go")

    crowd(200)  # the allocator has now what it needs
    memory = resident(server)
    crowd(600)
    assert resident(server) - memory < 1 << 20
    assert bystander.ask("GET k") == "v"
    told = statistics(server)
    assert told["connections"].startswith("1 now, 801 in all")
    assert told["sessions"].startswith("1 with 1 keys")


def test_idle_sessions_cost_no_turn_of_the_loop() -> None:
    """When all have been served, the loop sleeps until the first of them has been idle too long."""
    with house(tls=wire.TLS) as h:
        crowd = [Guest(h) for _ in range(10)]
        h.guests += crowd
        for number, guest in enumerate(crowd):
            guest.unsent += guest.key.line + guest.key.seal(b"CONNECT idle %d" % number)
        h.settle()
        assert all(guest.texts() == ["CONNECT: OK"] for guest in crowd)
        assert h.selector.bound == 3600


def test_a_crowd_that_never_shakes_hands_does_no_harm_and_is_gone_by_the_deadline() -> None:
    with house(tls=wire.TLS) as h:
        start = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" if h.tls else KEY.line[:11]
        crowd = [Guest(h) for _ in range(100)]
        for number, guest in enumerate(crowd):
            (guest.socket.tcp if h.tls else guest.socket).send(start[: number % 12])
        polite = h.guest().connect()
        h.wait(10)
        assert all(guest.take(1) == 0 and guest.ended for guest in crowd)
        assert h.server.drops == {"handshake": 100}
        assert polite.ask("GET x") == ["GET: ERROR"]
        for guest in crowd:
            guest.socket.close()


# --- the log ---------------------------------------------------------------------------------


def test_a_log_that_nobody_reads_stops_nobody_and_says_what_is_missing(
    start_server: StartServer, tmp_path: Path, connect: MakePeer, peer: MakePeer
) -> None:
    source, sink = os.pipe()
    try:
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 4096)
        server = start_server("--port", str(free_port()), listening=False, stderr=sink)
        os.close(sink)
        log = os.read(source, 4096).decode()
        port = int(re.findall(r"listening on \S+:(\d+)", log)[0])
        client = peer("alice", port=port)
        for _ in range(100 if hasattr(fcntl, "F_SETPIPE_SZ") else 1200):  # each is a line
            with Peer(port) as bad:
                bad.send_raw(b"rubbish\n")
                assert bad.read_to_end() == b""
        assert client.ask("GET x") == "GET: ERROR"
        fcntl.fcntl(source, fcntl.F_SETFL, os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.read(source, 65536):
                pass
        with Peer(port) as bad:
            bad.send_raw(b"rubbish\n")
            assert bad.read_to_end() == b""
        assert re.search(r"\(\d+ log records dropped: the log was full\)", read_all(source))
        client.close()
        assert server.stop() == 0
    finally:
        os.close(source)


def read_all(descriptor: int) -> str:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while more := os.read(descriptor, 65536):
            data += more
    return data.decode()


def test_with_standard_error_closed_no_peer_reads_the_log(
    start_server: StartServer, peer: MakePeer
) -> None:
    port = free_port()
    server = start_server(
        *("--port", str(port), "--log-level", "debug"),
        listening=False,
        preexec_fn=lambda: os.closerange(0, 3),
    )

    def connected() -> Peer | None:
        with contextlib.suppress(ConnectionRefusedError):
            return Peer(port)
        return None

    client = wait_until(connected, "the server to listen")
    with client, Peer(port) as other:
        client.handshake().connect(new_id())
        other.send_raw(b"rubbish\n")
        assert other.read_to_end() == b""
        assert client.ask("GET x") == "GET: ERROR"
        assert client.silent()
    assert server.stop() == 0
