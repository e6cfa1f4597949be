"""Worlds with TLS: all goes well, one seed is one history, and mistakes with TLS are caught."""

from functools import partial
from typing import Any
from unittest import mock

import pytest
from pitfalls.test_50_pending import take as one_read

from kv.net.tls import State, Tls

from .kernel import Failure
from .mistakes import Mistakes
from .tls import SERVER_CONTEXT, ClientTls
from .world import run


@pytest.mark.parametrize("start", [0, 175])
def test_nothing_goes_wrong_in_any_world_with_tls(start: int) -> None:
    for seed in range(start, start + 25):
        run(seed, tls=True)


def test_a_seed_is_one_history_although_openssl_has_dice_of_its_own() -> None:
    first: list[str] = []
    second: list[str] = []
    for trace in (first, second):
        for seed in range(8):
            run(seed, trace, tls=True)
    assert first == second
    assert any("does not speak TLS" in line for line in first)


def test_one_world_in_ten_has_tls_by_itself() -> None:
    with mock.patch.object(ClientTls, "hello", side_effect=Failure("TLS")) as hello:
        for seed in range(1, 10):
            run(seed)
        with pytest.raises(Failure, match="TLS"):
            run(10)
    assert hello.call_count == 1


def test_each_kind_of_record_has_one_size() -> None:
    assert len({tuple(sizes()) for _ in range(50)}) == 1


def sizes() -> list[int]:
    """Of what both ends say, in a handshake and a short talk."""
    client, server = ClientTls(), Tls(SERVER_CONTEXT)
    said = [client.hello()]
    server.received(said[-1])
    said.append(server.pending())
    said.append(client.hear(said[-1])[1])
    assert server.received(said[-1]) == b""
    said += [client.seal(b"GET a"), server.write(b"GET: ERROR")]
    said += [client.close_notify(), server.close_notify()]
    assert all(said) and server.error is None
    return list(map(len, said))


MISTAKES = Mistakes(partial(run, tls=True), seeds=300)


@MISTAKES.instead_of(Tls, "_take")
def leave_plaintext_in_the_tls_object(_: Any, self: Tls, octets: bytes) -> bytes:
    """One `read` for each readiness: what else there is, no selector tells (50)."""
    return one_read(self, octets)


# A turn is bounded by what commands take, and OpenSSL's arithmetic is no command (51).
MISTAKES["work_for_nothing_in_handshakes"] = mock.patch("kv.net.stream.TLS_WORK", 1_000_000)


@MISTAKES.instead_of(Tls, "ended")
def take_fin_for_an_end(*_: Any) -> bool:
    """FIN is FIN, is it not? (52)"""
    return True


@MISTAKES.instead_of(Tls, "close_notify")
def leave_without_close_notify(*_: Any) -> bytes:
    """To shut the socket down will do (52)."""
    return b""


@MISTAKES.instead_of(Tls, "_take")
def answer_close_notify_at_once(take: Any, self: Tls, octets: bytes) -> bytes:
    """They have ended, so it is over: the replies that are still owed are not sent."""
    plaintext = take(self, octets)
    if self.state is State.THEY_ENDED:
        self.close_notify()
    return plaintext


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_caught(name: str) -> None:
    MISTAKES.check(name)
