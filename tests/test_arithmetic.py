"""What is sealed is opened again before it leaves, with either arithmetic, at either end.

A result that is right modulo one prime of a key and wrong modulo the other gives that prime away to
whoever knows the text. Here a bit flips in what belongs to one prime.
"""

import logging
import math

import pytest
import rsa
from fake import FakeServer
from house import house

from kv import Client
from kv.protocol import cipher
from kv.protocol.cipher import EXPONENT, PrivateKey


def faulty(where: str = "exp1", bit: int = 0) -> PrivateKey:
    """A key in whose memory a bit has flipped."""
    key = rsa.newkeys(512, exponent=EXPONENT)[1]
    setattr(key, where, getattr(key, where) ^ (1 << bit))
    return PrivateKey(key)


@pytest.fixture(params=["rsa", "gmpy2"], autouse=True)
def _arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "gmpy2":
        pytest.importorskip("gmpy2", reason="gmpy2 is not installed (make fast)")
    else:
        monkeypatch.setattr(cipher, "power", pow)
        monkeypatch.setattr(cipher, "private_operation", lambda key: key.blinded_decrypt)


def test_one_line_that_left_unchecked_would_give_a_prime_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = rsa.newkeys(512, exponent=EXPONENT)[1]
    key.exp1 ^= 1
    block = int.from_bytes(b"\x00\x01".ljust(63, b"\xff") + b"\x00")
    monkeypatch.setattr(cipher, "power", lambda *_: block)  # it seems to be right
    sealed = int.from_bytes(cipher.decoded(PrivateKey(key).seal(b"")))
    assert math.gcd(pow(sealed, EXPONENT, key.n) - block, key.n) in (key.p, key.q)


def test_what_a_flipped_bit_of_a_key_has_spoilt_never_leaves() -> None:
    for where in ("exp1", "exp2", "coef"):
        for bit in (0, 100, 200):
            with pytest.raises(ArithmeticError, match="cannot be opened again"):
                faulty(where, bit).seal(b"a text")


def test_every_block_of_a_line_is_checked() -> None:
    key = PrivateKey.generate()
    right, calls = key._operation, iter(range(3))
    key._operation = lambda number: right(number) ^ (next(calls) == 1)  # the second of three
    with pytest.raises(ArithmeticError):
        key.seal(b"v" * 159)


def test_the_server_sends_nothing_ends_the_connection_and_logs_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with house() as h, caplog.at_level(logging.INFO, "kv"):
        bystander, guest = h.guest().connect("1"), h.guest().connect("2")
        for one in (bystander, guest):
            assert one.ask("PUT k", "v") == ["PUT: OK"]
        before = len(guest.received)
        key = h.server.service.key
        right, key._operation = key._operation, faulty()._operation
        try:
            guest.send("GET k")
            assert guest.ended and len(guest.received) == before
            assert h.server.drops == {"error": 1}
        finally:
            key._operation = right
        assert bystander.ask("GET k") == ["v"]
        assert list(h.store.sessions) == ["1"]
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert "the arithmetic failed" in str(record.exc_info[1])


def test_the_client_sends_nothing_ends_the_connection_and_raises() -> None:
    heard: list[str] = []
    key = PrivateKey.generate()
    with FakeServer() as fake:
        fake.behave(lambda conversation: heard.extend(conversation.connect().read_to_end()))
        client = Client("127.0.0.1", fake.port, client_id="alice", key=key)
        key._operation = faulty()._operation
        with pytest.raises(ArithmeticError, match="the arithmetic failed"):
            client.put("k", "v")
        assert client.closed
        fake.join()
    assert not heard
