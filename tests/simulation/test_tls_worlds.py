"""Worlds with TLS: all goes well, one seed is one history, and mistakes with TLS are caught."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest import mock

import pytest
from pitfalls.test_50_pending import take as one_read

from kv.net.tls import State, Tls

from .kernel import Failure
from .tls import SERVER_CONTEXT, ClientTls
from .world import run

#: A mistake that so many seeds do not find is not found.
SEEDS = 300


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


def leave_plaintext_in_the_tls_object() -> AbstractContextManager[object]:
    """One `read` for each readiness: what else there is, no selector tells (50)."""
    return mock.patch.object(Tls, "_take", one_read)


def work_for_nothing_in_handshakes() -> AbstractContextManager[object]:
    """A turn is bounded by what commands take, and OpenSSL's arithmetic is no command (51)."""
    return mock.patch("kv.net.stream.TLS_WORK", 1_000_000)


def take_fin_for_an_end() -> AbstractContextManager[object]:
    """FIN is FIN, is it not? (52)"""
    return mock.patch.object(Tls, "ended", lambda _: True)


def leave_without_close_notify() -> AbstractContextManager[object]:
    """To shut the socket down will do (52)."""
    return mock.patch.object(Tls, "close_notify", lambda _: b"")


def answer_close_notify_at_once() -> AbstractContextManager[object]:
    """They have ended, so it is over: the replies that are still owed are not sent."""
    take = Tls._take

    def hasty(self: Tls, octets: bytes) -> bytes:
        plaintext = take(self, octets)
        if self.state is State.THEY_ENDED:
            self.close_notify()
        return plaintext

    return mock.patch.object(Tls, "_take", hasty)


MISTAKES = (
    leave_plaintext_in_the_tls_object,
    work_for_nothing_in_handshakes,
    take_fin_for_an_end,
    leave_without_close_notify,
    answer_close_notify_at_once,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_caught(mistake: Callable[[], AbstractContextManager[object]]) -> None:
    with mistake():
        seed, failure = first_failure()
    print(f"\n{mistake.__name__}: caught after {seed + 1} seeds: {failure}")
    run(seed, tls=True)  # it was the mistake: without it, all is well


def first_failure() -> tuple[int, BaseException]:
    """The first seed that fails, and of what."""
    for seed in range(SEEDS):
        try:
            run(seed, tls=True)
        except (Exception, Failure) as failure:
            return seed, failure
    pytest.fail(f"{SEEDS} seeds did not find it")
