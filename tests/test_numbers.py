"""The numbers that were chosen or measured: each is changed on purpose, here as well as there.

The reason for each stands beside it in the code. What follows from a number is tested elsewhere,
with numbers of the test's own.
"""

import pkgutil

import pytest

from kv.net.owner import Limits
from kv.protocol import cipher
from kv.protocol.store import Store
from kv.server import Settings

NUMBERS = {
    "kv.net.connector:STAGGER": 0.25,
    "kv.net.lines:BATCH": 64,
    "kv.net.listener:BACKLOG": 1_024,
    "kv.net.listener:BATCH": 64,
    "kv.net.listener:RETRY": 0.5,
    "kv.net.log:MOST": 200,
    "kv.net.owner:DELIVERY": 0.1,
    "kv.net.proxy:LONGEST": 2_048,
    "kv.net.reactor:LONGEST_SLEEP": 3_600,
    "kv.net.reactor:OVERSLEPT": 0.25,
    "kv.net.reception:MOST": 256,
    "kv.net.records:LARGEST_HELLO": 8_192,
    "kv.net.records:RECORD": 16_384,
    "kv.net.serving:GRACE": 5.0,
    "kv.net.serving:MOST": 10_000,
    "kv.net.stdio:HIGH_WATER": 65_536,
    "kv.net.stdio:READ_SIZE": 16_384,
    "kv.net.stream:TLS_WORK": 2,
    "kv.net.tcp:KERNEL_BUFFER": 65_536,
    "kv.net.tcp:VANISHED": 105,
    "kv.net.tls:PIECE": 4_096,
    "kv.net.turns:BUDGET": 10_000,
    "kv.net.turns:CROWD": 100,
    "kv.net.turns:QUANTUM": 1_000,
    "kv.net.turns:UNSENT": 33_554_432,
    "kv.link:UNSENT": 32_768,
    "kv.link:WINDOW": 64,
    "kv.options:SHORTEST_LEASE": 0.1,
    "kv.owner:LINGER": 2,
    "kv.process:LONG_TURN": 0.01,
    "kv.process:RESERVED": 64,
    "kv.process:SAME_REQUEST": 1,
    "kv.protocol.cipher:LARGEST": 4_096,
    "kv.protocol.ready:REMEMBERED": 256,
    "kv.protocol.ready:SHARE": 196_608,
    "kv.protocol.ready:TABLES": 384,
    "kv.protocol.recent:CAPACITY": 1_048_576,
    "kv.protocol.recent:ENTRY": 192,
    "kv.protocol.store:ENTRY": 192,
    "kv.protocol.store:SESSION": 640,
    "kv.protocol.store:SWEEP": 64,
    "kv.protocol.table:LOAD": 32,
    "kv.registry.claims:BATCH": 64,
    "kv.registry.claims:PATIENCE": 1 / 3,
    "kv.registry.claims:TRUST": 0.95,
    "kv.registry.claims:WINDOW": 16,
    "kv.registry.registry:FAREWELL": 1,
    "kv.registry.registry:LONGEST": 2,
    "kv.registry.registry:SHORTEST": 0.05,
    "kv.registry.registry:SWEEP": 64,
    "kv.registry.registry:TELLING": 30,
    "kv.registry.registry:TICK": 1 / 12,
    "kv.registry.resp:LINE_SIZE": 1_024,
    "kv.screen:BEGIN": 1,
    "kv.screen:PERIOD": 0.25,
    "kv.server:ACCEPTING": 60,
    "kv.server:TLS_READ": 4_096,
    "kv.shell:TWICE": 2,
    "kv.typed:LONGEST": 65_536,
    "kv.watch.printer:COLUMNS": 100,
    "kv.watch.printer:INDENT": 31,
}


def test_a_number_is_what_was_chosen_or_measured() -> None:
    assert {name: pkgutil.resolve_name(name) for name in NUMBERS} == NUMBERS


def test_what_one_peer_may_cost_is_what_was_chosen() -> None:
    limits = Limits(
        line_size=511,
        read_size=16_384,
        high_water=65_536,
        low_water=16_384,
        stall_timeout=60,
        linger_timeout=2,
        linger_size=1_048_576,
    )
    assert Limits() == limits and not limits.scarce
    assert Settings() == Settings(10_000, 10, 3_600, 1_000, 10_000, 33_554_432, limits)
    assert Store().capacity == 268_435_456


@pytest.mark.parametrize(("high_water", "scarce"), [(64 * 100, False), (64 * 100 - 1, True)])
def test_where_a_batch_may_have_more_replies_than_may_wait(high_water: int, scarce: bool) -> None:
    assert Limits(line_size=100, high_water=high_water).scarce == scarce


@pytest.mark.parametrize(
    ("gmpy2", "costs"),
    [
        (None, {128: (1, 8), 512: (15, 255), 1024: (50, 1_442), 4096: (571, 46_160)}),
        (object(), {128: (1, 2), 512: (3, 50), 1024: (9, 255), 4096: (84, 6_626)}),
    ],
)
def test_what_a_block_costs_is_what_was_measured(
    gmpy2: object, costs: dict[int, tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cipher, "gmpy2", gmpy2)
    assert {bits: cipher.work(bits) for bits in costs} == costs
