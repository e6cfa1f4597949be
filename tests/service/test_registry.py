"""Servers in this process, and a real registry: who gets which client id, and when."""

import errno
import itertools
import logging
import random
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from certificates import CA, SERVER
from fake_registry import FakeRegistry
from house import Clock, Guest, House, house
from simulation.redis import Redis

from kv.options import parser
from kv.registry.claims import TRUST, Claims
from kv.registry.resp import Act, Place, command, request

from .conftest import RealRegistry, grown, until, words
from .parts import LOOPBACK, Registry

OpenHouse = Callable[..., House]


def knock(h: House, client_id: str) -> Guest:
    """A guest that has said CONNECT."""
    guest = h.guest()
    guest.send_raw(guest.key.line)
    return guest.send(f"CONNECT {client_id}")


def answer(h: House, client_id: str) -> str:
    """What CONNECT is answered with."""
    guest = knock(h, client_id)
    until((h,), guest.texts, "an answer to CONNECT")
    return guest.texts()[0]


def session(h: House, client_id: str) -> Guest:
    """A guest with a session."""
    guest = knock(h, client_id)
    until((h,), guest.texts, "an answer to CONNECT")
    assert guest.texts() == ["CONNECT: OK"]
    return guest


# --- what is said ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_model_does_what_a_real_registry_does(
    seed: int, running: Registry, database: int
) -> None:
    rng, model = random.Random(seed), Redis(lambda: 0.0)
    model.runs = 7
    for _ in range(150):
        dice = rng.random()
        if dice < 0.03:  # another run, without its data or with them
            running.ask("DEL", "kv:run", database=database)
            model.keys.pop(b"kv:run", None)
        elif dice < 0.05:
            running.ask("FLUSHDB", database=database)
            model.keys.clear()
        elif dice < 0.2:  # a lease is over
            running.ask("DEL", "kv:young", database=database)
            model.keys.pop(b"kv:young", None)
        ids = rng.sample(["a", "b", "c", "d e\r"], rng.randint(0, 4))
        asked = request(rng.choice(list(Act)), ids, [rng.choice("xyz") for _ in ids], 3600)
        said = running.ask(*words(asked), database=database)
        assert said == model.execute([word.encode() for word in words(asked)])


def test_a_full_registry_refuses_claims_and_still_renews(
    old: Registry, open_house: OpenHouse
) -> None:
    h = open_house(lease=0.6)
    guest = session(h, "early")
    old.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        assert answer(h, "late") == "CONNECT: ERROR"
        end = h.clock() + 0.7  # longer than the lease
        until((h,), lambda: h.clock() > end, "a renewal")
        assert guest.ask("GET k") == ["GET: ERROR"]
    finally:
        old.ask("CONFIG", "SET", "maxmemory", "0")
    assert answer(h, "late") == "CONNECT: OK"


@pytest.mark.parametrize(
    ("user", "status"),
    [("", "CONNECT: ERROR"), ("kv:wrong@", "CONNECT: ERROR"), ("kv:p%40ss@", "CONNECT: OK")],
)
def test_a_registry_with_a_password(
    user: str, status: str, old: Registry, database: int, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = ("eval", "get", "set", "del", "pexpire", "exists", "info", "select")
    rules = ("on", ">p@ss", "~kv:*", *(f"+{command}" for command in allowed))
    old.ask("ACL", "SETUSER", "kv", *rules)
    old.ask("ACL", "SETUSER", "default", "-eval")
    try:
        with house(registry=RealRegistry(f"redis://{user}{LOOPBACK}:{old.port}/{database}")) as h:
            assert answer(h, "alice") == status
    finally:
        old.ask("ACL", "SETUSER", "default", "+@all")
    assert ("is gone: it says" in caplog.text) == (status != "CONNECT: OK")
    assert "p@ss" not in caplog.text and "p%40ss" not in caplog.text


def test_a_registry_that_speaks_tls(
    needs_registry: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place("rediss://localhost")
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
    files = ["--tls-cert-file", SERVER[0], "--tls-key-file", SERVER[1], "--tls-ca-cert-file", CA]
    options = ["--tls-port", str(port), "--tls-auth-clients", "no", *files]
    try:
        registry = Registry(tmp_path_factory.mktemp("tls"), 0, *options)
    except ChildProcessError as error:
        pytest.skip(f"this registry does not speak TLS: {error}")
    monkeypatch.setenv("SSL_CERT_FILE", CA)
    try:
        assert place.tls
        with house(registry=RealRegistry(f"rediss://localhost:{port}", 0.2)) as h:
            until((h,), lambda: answer(h, "alice") == "CONNECT: OK", "a session")
        monkeypatch.delenv("SSL_CERT_FILE")
        with house(registry=RealRegistry(f"rediss://localhost:{port}", 0.2)) as h:
            assert answer(h, "alice") == "CONNECT: ERROR"
    finally:
        registry.stop()


# --- what follows ------------------------------------------------------------------------------


class Told:
    """An owner that notes what it is told."""

    def __init__(self) -> None:
        self.news: list[str] = []

    def claim_granted(self) -> None:
        self.news.append("granted")

    def claim_refused(self, reason: str) -> None:
        self.news.append(f"refused: {reason}")

    def claim_lost(self, reason: str) -> None:
        self.news.append(f"lost: {reason}")

    def claim_over(self) -> None:
        self.news.append("over")


def tell(claims: Claims, *lines: bytes) -> None:
    """What follows from these answers."""
    for line in lines:
        for each in claims.answered(line):
            each()


def test_a_request_says_how_many_ids_which_and_for_how_many_milliseconds() -> None:
    asked = words(request(Act.CLAIM, ["a", "b c"], ["x", "y"], 1.5))
    assert asked == ["EVAL", Act.CLAIM.value, "2", "kv:id:a", "kv:id:b c", "1500", "x", "y"]


def test_what_nobody_has_asked_for_yet_need_not_be_given_back() -> None:
    claims = Claims("me", 15.0, lambda: 0.0)
    claims.give_back(claims.claim("alice", Told()))
    assert not any(b"alice" in asked for asked in claims.requests())
    for each in claims.lost("gone"):
        each()
    assert claims.idle


def test_a_grant_that_comes_when_the_lease_has_run_out_is_none() -> None:
    clock, owner = Clock(), Told()
    claims = Claims("me", 15.0, clock)
    claims.claim("alice", owner)
    assert len(list(claims.requests())) == 2
    clock.now += TRUST * 15
    tell(claims, b"+\r", b"+1\r")
    assert owner.news == ["refused: the registry answered too late"]
    assert any(Act.RELEASE.value.encode() in said for said in claims.requests())


def test_whoever_waits_is_told_once_however_much_was_asked_about_it() -> None:
    clock, owner = Clock(), Told()
    claims = Claims("me", 15.0, clock)
    claim = claims.claim("alice", owner)
    assert len(list(claims.requests())) == 2  # the first is about no ids
    tell(claims, b"+\r", b"+1\r")
    clock.now += 6
    assert len(list(claims.requests())) == 2  # it is renewed, and given back before the answer
    claims.give_back(claim, tell=True)
    for each in claims.lost("gone"):
        each()
    assert owner.news == ["granted", "over"]
    said = list(claims.requests())
    assert len(said) == 2 and b"alice" in said[1] and Act.RELEASE.value.encode() in said[1]


def test_nothing_is_said_about_a_claim_that_is_over() -> None:
    owners = Told(), Told(), Told()
    claims = Claims("me", 15.0, lambda: 0.0)
    kept = [claims.claim(client_id, owner) for client_id, owner in zip("abc", owners, strict=True)]
    assert len(list(claims.requests())) == 2
    tell(claims, b"+\r", b"+101\r")
    assert list(claims.requests()) == [] and claims.idle
    claims.give_back(kept[0], tell=True)
    assert len(list(claims.requests())) == 1
    tell(claims, b"+1\r")
    assert list(claims.requests()) == [] and claims.idle
    claims.give_back(kept[2], tell=True)
    for each in claims.lost("gone"):  # before it could be said
        each()
    assert [len(owner.news) for owner in owners] == [2, 1, 2]
    assert owners[0].news == owners[2].news == ["granted", "over"]


def test_who_has_left_meanwhile_is_not_told_and_keeps_nothing() -> None:
    owner = Told()
    claims = Claims("me", 15.0, lambda: 0.0)
    claim = claims.claim("alice", owner)
    assert len(list(claims.requests())) == 2
    claims.give_back(claim)
    tell(claims, b"+\r", b"+1\r")
    (said,) = claims.requests()
    assert Act.RELEASE.value.encode() in said
    tell(claims, b"+1\r")
    assert owner.news == [] and list(claims.lapsed()) == [] and claims.idle


def test_whose_lease_runs_out_first_is_renewed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kv.registry.claims.BATCH", 1)
    clock, first, second = Clock(), Told(), Told()
    claims = Claims("me", 15.0, clock)
    claims.claim("first", first)
    assert len(list(claims.requests())) == 2
    tell(claims, b"+\r", b"+1\r")
    clock.now += 1
    claim = claims.claim("second", second)
    assert len(list(claims.requests())) == 1
    tell(claims, b"+1\r")
    clock.now += 5
    assert len(list(claims.requests())) == 3
    tell(claims, b"+\r", b"+1\r")  # about the first
    assert claims.lost("gone") == []
    said = list(claims.requests())
    assert b"second" in said[1] and b"first" in said[2]
    clock.now = claim.until
    for each in claims.lapsed():
        each()
    assert first.news == ["granted"]
    assert second.news == ["granted", "lost: the lease of its client id has run out"]


def test_who_has_given_an_id_back_does_not_renew_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    claims = Claims("me", 15.0, clock)
    claim = claims.claim("alice", Told())
    assert len(list(claims.requests())) == 2
    tell(claims, b"+\r", b"+1\r")
    monkeypatch.setattr("kv.registry.claims.WINDOW", 1)
    clock.now += 5
    assert len(list(claims.requests())) == 1  # its renewal waits
    claims.give_back(claim)
    tell(claims, b"+\r")
    (said,) = claims.requests()
    assert Act.RELEASE.value.encode() in said
    tell(claims, b"+1\r")
    assert list(claims.requests()) == []


# --- one service -------------------------------------------------------------------------------


def test_one_id_has_one_session_in_all_servers(open_house: OpenHouse) -> None:
    first, second = open_house(), open_house()
    alice = session(first, "alice")
    assert answer(second, "alice") == "CONNECT: ERROR"
    assert answer(first, "alice") == "CONNECT: ERROR"
    assert answer(second, "bob") == "CONNECT: OK"
    assert alice.ask("PUT k", "v", "GET k") == ["PUT: OK", "v"]


@pytest.mark.parametrize("how", ["DISCONNECT", "reset", "half-close", "violation"])
def test_the_end_of_a_session_gives_its_id_back(how: str, open_house: OpenHouse) -> None:
    first, second = open_house(), open_house()
    alice = session(first, "alice")
    if how == "DISCONNECT":
        alice.send("DISCONNECT")
    elif how == "half-close":
        alice.socket.shutdown(socket.SHUT_WR)
    elif how == "violation":
        alice.send_raw(b"nonsense\n")
    else:
        alice.socket.close()
    until((first, second), lambda: answer(second, "alice") == "CONNECT: OK", "the id to be free")


def test_messages_sent_with_connect_wait_for_its_answer(
    old: Registry, open_house: OpenHouse
) -> None:
    h = open_house()
    other = session(h, "other")
    old.ask("CLIENT", "PAUSE", "300", "ALL")
    guest = h.guest()
    guest.send_raw(guest.key.line)
    guest.send("CONNECT alice", "PUT k", "v", "GET k", "DISCONNECT")
    assert guest.texts() == [] and other.ask("GET k") == ["GET: ERROR"]
    replies = ["CONNECT: OK", "PUT: OK", "v", "DISCONNECT: OK"]
    until((h,), lambda: guest.texts() == replies, "the replies")


def test_a_client_that_leaves_while_its_claim_is_out_keeps_no_id(
    old: Registry, open_house: OpenHouse
) -> None:
    h, second = open_house(), open_house()
    session(h, "other")
    old.ask("CLIENT", "PAUSE", "200", "ALL")
    knock(h, "alice").socket.close()
    until((h, second), lambda: answer(second, "alice") == "CONNECT: OK", "the id to be free")


def test_what_was_to_be_given_back_when_the_connection_was_lost_is_said_again() -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        guest = h.guest().connect()
        registry.answers = False
        guest.socket.close()
        h.settle()
        assert registry.unanswered and registry.holder
        registry.break_off()
        registry.answers = True
        h.settle()
        h.wait(1)
        assert not registry.holder


def test_who_has_read_that_it_is_disconnected_may_use_the_id_again() -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        alice, bob = h.guest().connect("alice"), h.guest().connect("bob")
        registry.answers = False
        alice.send("DISCONNECT")
        assert alice.ask("GET k") == [] and not alice.ended  # it is not said yet
        assert bob.ask("GET k") == ["GET: ERROR"]
        registry.answers = True
        h.settle()
        assert alice.texts() == ["CONNECT: OK", "DISCONNECT: OK"] and alice.ended
        assert list(registry.holder) == ["bob"]


@pytest.mark.parametrize(
    ("text", "reply"), [("CONNECT a", "CONNECT"), ("DISCONNECT", "DISCONNECT")]
)
def test_a_line_too_long_behind_a_message_that_waits_takes_no_reply_away(
    text: str, reply: str
) -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        guest = h.guest()
        guest.connect() if text == "DISCONNECT" else guest.send_raw(guest.key.line)
        guest.send_raw(guest.key.seal(text.encode()) + b"x" * 600)
        assert guest.texts()[-1:] == [f"{reply}: OK"] and guest.ended
        assert h.server.drops["violation"] == (text != "DISCONNECT")


def test_a_selector_without_room_is_a_registry_that_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        guest = h.guest().connect()
        registry.break_off()
        full = OSError(errno.ENOSPC, "no room")
        h.settle()
        with mock.patch.object(h.selector, "register", side_effect=full):
            h.wait(1)
        assert "is gone: no room" in caplog.text
        h.wait(1)
        assert guest.ask("GET k") == ["GET: ERROR"] and list(registry.holder) == ["alice"]


@pytest.mark.parametrize("gone", [False, True])
def test_a_client_may_disconnect_whatever_becomes_of_the_registry(gone: bool) -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        alice = h.guest().connect("alice")
        if gone:
            registry.script = b"-NO\r\n"
            h.wait(5.5)  # no claim could be renewed
        else:
            registry.answers = False
        alice.send("DISCONNECT")
        h.wait(7)
        assert alice.texts() == ["CONNECT: OK", "DISCONNECT: OK"] and alice.ended


def test_a_client_may_leave_before_it_is_disconnected() -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        alice = h.guest().connect("alice")
        registry.answers = False
        alice.send("DISCONNECT")
        alice.socket.close()
        h.settle()
        registry.answers = True
        h.settle()
        assert not registry.holder and not h.server.connections


def test_who_waits_for_the_registry_until_the_handshake_limit_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    with FakeRegistry() as registry, house(registry=registry, handshake_timeout=1) as h:
        h.settle()
        registry.answers = False
        alice = knock(h, "alice")
        h.wait(1)
        assert alice.texts() == ["CONNECT: ERROR"] and alice.ended
        registry.answers = True
        h.settle()
        assert not registry.holder and "the registry has not answered" in caplog.text


def test_a_stop_gives_all_ids_back(old: Registry, open_house: OpenHouse, database: int) -> None:
    h = open_house()
    for number in range(3):
        session(h, f"client {number}").socket.shutdown(socket.SHUT_WR)
    h.server.stop(5)
    until((h,), lambda: b"kv:id" not in old.ask("KEYS", "*", database=database), "no ids")
    until((h,), lambda: h.reactor._stopped, "the end")


@pytest.mark.parametrize("said", ["CONNECT alice", "DISCONNECT"])
def test_a_stop_counts_whom_the_registry_keeps_waiting(said: str) -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        guest = h.guest()
        guest.send_raw(guest.key.line)
        if said == "DISCONNECT":
            guest.send("CONNECT alice")
        registry.answers = False
        guest.send(said)
        h.server.stop(2)
        h.wait(1)
        assert not guest.ended
        h.wait(1.5)
        assert guest.ended and h.server.cut_short == 1


# --- a registry that is gone, or not itself ------------------------------------------------------


def test_a_registry_that_stops_and_comes_back(
    needs_registry: None, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kv")
    registry = grown(Registry(tmp_path_factory.mktemp("mortal")))
    try:
        with house(registry=RealRegistry(f"redis://{LOOPBACK}:{registry.port}", 0.5)) as h:
            bob = session(h, "bob")
            registry.stop()
            assert answer(h, "carol") == "CONNECT: ERROR"
            assert bob.ask("GET k") == ["GET: ERROR"]  # it lives, until its lease is over
            until((h,), lambda: bob.ended, "the end of the lease")
            assert h.server.drops["registry"] >= 1
            registry = registry.again()
            until((h,), lambda: answer(h, "bob") == "CONNECT: OK", "a session")
    finally:
        registry.stop()
    assert "the lease of its client id has run out" in caplog.text
    young = r"refused 'bob' at \S+: the registry is new, .*: it gives no id away for one lease$"
    assert re.search(young, caplog.text, re.M)


def test_sessions_survive_a_registry_that_forgets_all_in_a_restart(
    needs_registry: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    registry = grown(Registry(tmp_path_factory.mktemp("forgetful")))
    try:
        url = f"redis://{LOOPBACK}:{registry.port}"
        with house(registry=RealRegistry(url, 1)) as h, house(registry=RealRegistry(url, 1)) as g:
            bob = session(h, "bob")
            registry.stop()
            registry = registry.again()
            until((h, g), lambda: answer(g, "carol") == "CONNECT: OK", "a session")
            assert bob.ask("GET k") == ["GET: ERROR"]
            assert answer(g, "bob") == "CONNECT: ERROR"
    finally:
        registry.stop()


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer as a Redis does"),
        (b"+\r\n+\r\n+\r\n", "answers what nobody has asked"),
        (b"x" * 2000, "does not answer as a Redis does"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "it says 'LOADING"),
        (b"", "no answer for"),
    ],
)
def test_whoever_is_no_registry_gives_no_ids(
    says: bytes, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        registry.script = says
        guest = knock(h, "alice")
        h.wait(3)
        knock(h, "bob")  # the oldest question counts, not the last
        h.wait(3)
        assert guest.texts() == ["CONNECT: ERROR"]
        assert told in caplog.text
        registry.script = None
        h.wait(10)
        guest = knock(h, "alice")
        assert guest.texts() == ["CONNECT: OK"]


@pytest.mark.parametrize(("longest", "last"), [(2.0, 2.0), (100.0, 5.0)])
def test_it_is_tried_again_at_growing_intervals(
    longest: float, last: float, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kv.registry.registry.LONGEST", longest)
    with FakeRegistry() as registry, house(registry=registry) as h:
        for _ in range(2):  # the second time, it has answered before
            registry.script = b"-NO\r\n"
            tried = []
            for _ in range(500):
                before = registry.accepted
                h.wait(0.05)
                tried.append(registry.accepted - before)
            times = [0.05 * number for number, more in enumerate(tried) if more]
            pauses = [b - a for a, b in itertools.pairwise(times)]
            assert sum(tried) < 20
            assert pauses[0] < 0.2 and last - 0.15 < pauses[-1] < last + 0.15
            registry.script = None
            h.wait(6)
        assert caplog.text.count("it says 'NO'") == 2  # said once each time


def test_who_asks_while_it_is_being_connected_waits_and_is_refused_in_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = []

    def attempt(*how: Any) -> mock.Mock:
        attempts.append(how)
        return mock.Mock()

    monkeypatch.setattr("kv.registry.registry.Connector", attempt)
    with FakeRegistry() as registry, house(registry=registry) as h:
        early, late = Told(), Told()
        h.server.registry.claim("early", early)
        h.settle()
        assert early.news == []
        attempts[0][-1](ConnectionRefusedError("connection refused"))
        assert early.news == ["refused: the registry is gone"]
        h.server.registry.claim("late", late)
        assert late.news == []  # whoever asks is told in a later turn
        h.settle()
        assert late.news == ["refused: the registry is gone"] and len(attempts) == 1


def test_an_id_is_held_until_its_lease_is_over_and_not_then() -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        claim = h.server.registry.claim("alice", Told())
        h.settle()
        registry.clock.now = claim.until - 0.01
        assert h.server.registry.holds(claim)
        registry.clock.now = claim.until
        assert not h.server.registry.holds(claim)


def test_claims_are_renewed_as_long_as_they_are_needed() -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        alice = h.guest().connect("alice")
        for _ in range(100):
            h.wait(1)
            assert list(registry.holder) == ["alice"]
        assert alice.ask("GET k") == ["GET: ERROR"]
        alice.send("DISCONNECT")
        h.wait(1)
        assert not registry.holder


def test_requests_without_an_answer_are_bounded_in_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kv.registry.claims.WINDOW", 3)
    monkeypatch.setattr("kv.registry.claims.BATCH", 2)
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        registry.answers = False
        guests = [knock(h, f"client {number}") for number in range(9)]
        assert registry.unanswered == 3
        registry.answers = True
        h.settle()
        assert [guest.texts() for guest in guests] == [["CONNECT: OK"]] * 9
        # The first to ask is the first to have its id.
        assert list(registry.holder) == [f"client {number}" for number in range(9)]


def test_what_follows_from_many_answers_is_told_a_few_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kv.registry.registry.TELLING", 500)  # a share of a turn is 1,000
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        registry.answers = False
        owners = [Told() for _ in range(7)]
        for number, owner in enumerate(owners):
            h.server.registry.claim(f"client {number}", owner)
            h.settle()
        registry.answers = True
        registry.read()
        told = []
        for _ in range(30):
            h.reactor.turn()
            told.append(sum(len(owner.news) for owner in owners))
        assert told[-1] == 7
        assert max(b - a for a, b in itertools.pairwise(told)) == 2


@pytest.mark.parametrize("answers", [True, False])
def test_a_farewell_takes_as_long_as_an_answer_or_a_second(answers: bool) -> None:
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        live = h.reactor.timers.live - 1  # without the look at the time
        claim = h.server.registry.claim("alice", Told())
        h.settle()
        registry.answers = answers
        h.server.registry.give_back(claim)
        done = []
        h.server.registry.finish(lambda: done.append(h.clock()))
        h.server.registry.finish(lambda: done.append(0.0))
        h.wait(0.9)
        assert bool(done) == answers
        h.wait(0.1)
        assert len(done) == 1 and done != [0.0]
        assert h.reactor.timers.live == live


def test_lapsed_sessions_end_a_few_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kv.registry.registry.SWEEP", 2)
    with FakeRegistry() as registry, house(registry=registry) as h:
        h.settle()
        guests = [h.guest().connect(f"client {number}") for number in range(7)]
        registry.answers = False
        registry.clock.now += 20
        ended = []
        for _ in range(30):
            h.reactor.turn()
            ended.append(h.server.drops["registry"])
        assert ended[-1] == 7
        assert max(b - a for a, b in itertools.pairwise(ended)) == 2
        h.settle()
        assert all(guest.ended for guest in guests)


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port", "greeting"),
    [
        ("redis://h", "h", 6379, b""),
        ("redis://h:1234/5", "h", 1234, command("SELECT", "5")),
        ("redis://:p%2Fw@h", "h", 6379, command("AUTH", "p/w")),
        ("redis://:@h", "h", 6379, command("AUTH", "")),
        ("rediss://u:p@[::1]:1/0", "::1", 1, command("AUTH", "u", "p") + command("SELECT", "0")),
    ],
)
def test_a_url_says_where_and_how(url: str, host: str, port: int, greeting: bytes) -> None:
    place = Place(url)
    assert (place.host, place.port, place.greeting) == (host, port, greeting)
    assert place.tls == url.startswith("rediss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--registry", "http://h"], "argument --registry: use redis://"),
        (["--registry", "redis://alice@h"], "a user of the registry needs a password"),
        (["--registry", "@/nowhere/url"], "cannot read /nowhere/url: No such file"),
        (["--lease", "0.01"], "argument --lease: 0.01 is too short: use 0.1 or more"),
        (["--registry", "redis://h/x"], "'x' is not the number of a database"),
        (["--registry", "redis:///1"], "argument --registry: use redis://"),
        (["--registry", "redis://h?db=1"], "'?' is not the number of a database"),
        (["--registry", "redis://h#1"], "'?' is not the number of a database"),
        (["--registry", "redis://h:99999"], "argument --registry: "),
        (["--proxy-protocol", "nobody"], "argument --proxy-protocol: 'nobody'"),
        (["--proxy-protocol", "10.0.0.1/8"], "argument --proxy-protocol: 10.0.0.1/8 has host bits"),
    ],
)
def test_a_wrong_option_is_told(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["server", *options])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_can_have_the_url_and_so_the_password(tmp_path: Path) -> None:
    file = tmp_path / "registry"
    file.write_text("redis://:secret@h/3\n")
    place = parser().parse_args(["server", "--registry", f"@{file}"]).registry
    assert place.greeting == command("AUTH", "secret") + command("SELECT", "3")
