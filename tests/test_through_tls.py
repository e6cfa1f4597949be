"""What holds on a plain connection holds through TLS: the same tests, once more.

The peers of `test_drop`, `test_framing` and `test_hostile` speak TLS here, and so do their servers.
Tests that count octets on the network, or break the connection under TLS, are left out.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_drop
import test_framing
import test_hostile
import wire
from certificates import SERVER
from conftest import Server

LEFT_OUT = {
    # Who is not accepted shakes no hands.
    "test_without_descriptors_the_old_clients_go_on_the_loop_rests_and_new_ones_get_in_later",
    # OpenSSL's memory comes back in another order; `test_tls` shows that none is lost.
    "test_after_hundreds_of_clients_that_left_in_every_way_everything_is_as_before",
    # This one counts on a `send` that takes all or nothing.
    "test_beside_a_client_that_pipelines_at_full_speed_ten_polite_ones_fare_alike",
}
TESTS = {
    name: test
    for module in (test_drop, test_framing, test_hostile)
    for name, test in vars(module).items()
    if name.startswith("test_") and name not in LEFT_OUT
}
assert len(TESTS) > 20
globals().update(TESTS)

OPTIONS = ("--tls-cert", SERVER[0], "--tls-key", SERVER[1])


@pytest.fixture(scope="module", autouse=True)
def peers_speak_tls() -> Iterator[None]:
    wire.TLS = True
    yield
    wire.TLS = False


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("shared"), *OPTIONS)
    try:
        yield server.wait_until_listening()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def shared_barrier(shared_server: Server, peers_speak_tls: None) -> Iterator[wire.Barrier]:
    with contextlib.closing(wire.Barrier(shared_server.port)) as barrier:
        yield barrier


@pytest.fixture
def start_server(start_server: Callable[..., Server]) -> Callable[..., Server]:
    def start(*args: str, **options: Any) -> Server:
        return start_server(*OPTIONS, *args, **options)

    return start
