"""Whatever arrives, the server lives, and nobody else notices. `make soak` does this at length."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Server, wait_until
from fuzz import conversations, run
from test_hostile import descriptors, resident, statistics
from wire import Peer


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_server_that_is_sent_thousands_of_damaged_messages_is_as_it_was(
    start_server: Callable[..., Server], peer: Callable[..., Peer]
) -> None:
    server = start_server(afresh=True)
    bystander = peer("bystander", port=server.port)
    assert bystander.ask("PUT colour", "blue") == "PUT: OK"
    before = descriptors(server)
    memory = 0
    for seed, messages in ((0, 500), (1, 4000)):  # the first lets the allocator find its size
        memory = resident(server)
        rng = random.Random(seed)
        for octets in conversations(seed, messages):
            run(server.port, octets, rng)
            if rng.random() < 0.25:  # or a slow server has many of them at a time
                assert bystander.ask("GET colour") == "blue"
        wait_until(lambda: descriptors(server) == before, "the damaged clients to go")
    assert resident(server) - memory < 1 << 20
    assert bystander.ask("GET colour") == "blue"
    told = statistics(server)
    assert told["sessions"].startswith("1 with 1 keys")
    assert "violation" in told["drops"]
    assert "error" not in told["drops"], server.log()
