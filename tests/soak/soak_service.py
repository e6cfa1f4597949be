"""A thousand clients of one service of three servers, and what can become of its parts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import wait_until
from service.parts import Service, missing, service
from wire import Peer

CLIENTS = 1000
LEASE = 3.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Service]:
    if lacking := missing():
        pytest.skip(f"not on this machine: {', '.join(lacking)}")
    with service(tmp_path, 3, "--lease", str(LEASE)) as whole:
        yield whole
        for server in whole.servers:
            assert "Traceback" not in server.said()


def knock(running: Service, number: int) -> Peer | None:
    """A peer that has said CONNECT and two commands under its id; None if the way was cut."""
    try:
        peer = Peer(running.balancer.port).handshake()
    except (OSError, EOFError, AssertionError):
        return None
    peer.send_text(f"CONNECT client {number}")
    return peer


def sessions(running: Service, wanted: set[int]) -> dict[int, Peer]:
    """Those of the wanted ids that get a session now."""
    found = {}
    knocking = {number: knock(running, number) for number in sorted(wanted)}
    for number, peer in knocking.items():
        try:
            if peer is not None and peer.read_text() == "CONNECT: OK":
                found[number] = peer
                continue
        except (OSError, EOFError, AssertionError):
            pass
        if peer is not None:
            peer.close()
    return found


def served(peer: Peer, number: int) -> bool:
    """Whether its session is there, and its own."""
    try:
        return peer.ask("GET mine") == str(number)
    except (OSError, EOFError, AssertionError):
        return False


def everybody(running: Service, held: dict[int, Peer]) -> dict[int, Peer]:
    """Everybody gets a session, sooner or later, without anybody's help."""

    def complete() -> bool:
        new = sessions(running, set(range(CLIENTS)) - set(held))
        for number, peer in new.items():
            peer.send_text("PUT mine", str(number))
            assert peer.read_text() == "PUT: OK"
        held.update(new)
        return len(held) == CLIENTS

    wait_until(complete, "everybody to have a session")
    return held


def still(held: dict[int, Peer]) -> dict[int, Peer]:
    """Those whose session goes on."""
    alive = {number: peer for number, peer in held.items() if served(peer, number)}
    for number, peer in held.items():
        if number not in alive:
            peer.close()
    return alive


def test_a_thousand_clients_whatever_becomes_of_the_parts(running: Service) -> None:
    held = everybody(running, {})
    assert len(still(held)) == CLIENTS
    assert not sessions(running, set(range(CLIENTS)))  # each id is taken, whichever server is asked

    running.servers[0].kill()
    held = still(held)
    assert CLIENTS / 2 < len(held) < CLIENTS * 0.8  # a third is gone
    early = sessions(running, set(range(CLIENTS)) - set(held))
    for number, peer in early.items():  # where the lease was over already
        peer.send_text("PUT mine", str(number))
        assert peer.read_text() == "PUT: OK"
    held = everybody(running, held | early)

    running.registry.stop()
    assert not sessions(running, set(range(CLIENTS, CLIENTS + 20)))
    wait_until(lambda: not still(held), "all leases to run out")
    running.restart_registry()
    for peer in everybody(running, {}).values():
        peer.close()
