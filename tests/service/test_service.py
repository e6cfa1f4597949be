"""Three servers in processes of their own, behind a real balancer, with a real registry."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, wait_until
from wire import Peer, new_id

from .parts import HAPROXY, Server, Service, program, service

LEASE = 1.0


@pytest.fixture(scope="module")
def whole(needs_all: None, folder: Path) -> Iterator[Service]:
    """A service of three servers."""
    with service(folder, 3, "--lease", str(LEASE), "--log-level", "debug") as running:
        yield running
        for server in running.servers:
            assert "Traceback" not in server.said()


@pytest.fixture
def peer(whole: Service) -> Iterator[Callable[[], Peer]]:
    """A factory of peers that have connected through the balancer."""
    peers: list[Peer] = []

    def make() -> Peer:
        peers.append(Peer(whole.balancer.port).handshake())
        return peers[-1]

    yield make
    for each in peers:
        each.close()


def server_of(whole: Service, client_id: str) -> Server:
    """The one that holds an id: its log says how its tokens begin."""
    said = whole.registry.ask("GET", f"kv:id:{client_id}").split(b"\r\n")[1]
    token = said.partition(b":")[0].decode()
    return next(server for server in whole.servers if token in server.said())


def test_the_balancer_spreads_and_an_id_has_one_session(
    whole: Service, peer: Callable[[], Peer]
) -> None:
    client_id = new_id()
    first = peer().connect(client_id)
    others = [peer() for _ in range(6)]
    assert {one.ask(f"CONNECT {client_id}") for one in others} == {"CONNECT: ERROR"}
    ids = [new_id() for _ in others]
    for one, other_id in zip(others, ids, strict=True):
        one.connect(other_id)
    assert len({server_of(whole, each).log for each in (client_id, *ids)}) == 3
    assert f"127.0.0.1:{first.port} connected" in server_of(whole, client_id).said()
    assert first.ask("PUT k", "v") == "PUT: OK" and first.ask("GET k") == "v"
    first.ask("DISCONNECT")
    wait_until(lambda: peer().ask(f"CONNECT {client_id}") == "CONNECT: OK", "the id to be free")


def test_many_clients_have_sessions_at_once(peer: Callable[[], Peer]) -> None:
    peers = [peer() for _ in range(60)]
    for number, one in enumerate(peers):
        one.send_text(f"CONNECT many {number}", "PUT k", str(number), "GET k")
    for number, one in enumerate(peers):
        assert one.read_texts(3) == ["CONNECT: OK", "PUT: OK", str(number)]


def test_the_ids_of_a_server_that_was_killed_are_free_after_the_lease_and_not_before(
    whole: Service, peer: Callable[[], Peer]
) -> None:
    client_id = new_id()
    key = f"kv:id:{client_id}"
    peer().connect(client_id)
    victim = server_of(whole, client_id)
    victim.kill()
    # The registry has the id still, and for how long; then it has not.
    left = int(whole.registry.ask("PTTL", key)[1:])
    answered = peer_that_gets_through(peer).ask(f"CONNECT {client_id}")
    assert left <= LEASE * 1000
    if left > 300:
        assert answered == "CONNECT: ERROR"
    wait_until(
        lambda: peer_that_gets_through(peer).ask(f"CONNECT {client_id}") == "CONNECT: OK",
        "the lease to end",
    )


def peer_that_gets_through(peer: Callable[[], Peer]) -> Peer:
    """Until the balancer knows that a server is gone, it may choose it."""
    for _ in range(100):
        try:
            return peer()
        except (OSError, EOFError, AssertionError):
            time.sleep(0.02)
    raise AssertionError("the balancer finds no server")


def test_a_server_that_is_told_to_stop_gives_its_ids_back(
    whole: Service, peer: Callable[[], Peer]
) -> None:
    client_id = new_id()
    held = peer_that_gets_through(peer).connect(client_id)
    leaver = server_of(whole, client_id)
    leaver.process.send_signal(signal.SIGTERM)
    held.close()
    assert leaver.process.wait(10) == 0
    said = leaver.said()
    assert said.index("SIGTERM received") < said.index("stopped")
    answered = peer_that_gets_through(peer).ask(f"CONNECT {client_id}")
    assert answered == "CONNECT: OK"


def test_the_balancers_configuration_on_the_front_page_is_one(
    needs_all: None, tmp_path: Path
) -> None:
    (shown,) = re.findall(r"^```haproxy\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert len(shown.splitlines()) <= 20
    file = tmp_path / "haproxy.cfg"
    file.write_text(shown)
    path = program("HAProxy")
    assert path is not None
    done = subprocess.run([path, "-c", "-f", file], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    ours = {line.partition("#")[0].strip() for line in HAPROXY.splitlines()}
    new = [line for line in map(str.strip, shown.splitlines()) if line not in ours]
    assert [line.split()[0] for line in new] == [
        "maxconn",
        "bind",
        "default-server",
        *2 * ["server"],
    ]


# --- to be tried -------------------------------------------------------------------------------


def test_make_run_service_serves_and_stops_as_one(needs_all: None) -> None:
    options = ("--port", "0", "--servers", "2")
    command = [sys.executable, "-m", "tests.service", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"serving on 127\.0\.0\.1 port (\d+), until Ctrl-C\n", line)
            assert found, line
            with Peer(int(found[1])).handshake().connect("alice") as alice:
                assert alice.ask("GET k") == "GET: ERROR"
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert rest.endswith("stopped\n") and process.wait(10) == 0
        finally:
            process.kill()


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.service"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1
    assert "run-service needs Redis or Valkey (redis-server)" in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
