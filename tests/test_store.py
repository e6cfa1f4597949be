"""The account of memory, and what a session remembers."""

import pytest
from house import house

from kv.protocol.cipher import PrivateKey
from kv.protocol.conversation import SEALING, ServerConversation, Service
from kv.protocol.messages import Wire
from kv.protocol.store import ENTRY, REMEMBERED, SESSION, SHARE, SWEEP, Session, Store

CLIENT = PrivateKey.generate()
SERVER = PrivateKey.generate()


def begin(store: Store, client_id: str = "alice") -> Session:
    session = store.begin(client_id)
    assert session is not None
    return session


def talk(service: Service, *texts: str) -> tuple[ServerConversation, list[str]]:
    conversation = ServerConversation(service)
    conversation.receive(CLIENT.public.to_line())
    return conversation, [say(conversation, text) for text in texts]


def say(conversation: ServerConversation, text: str) -> str:
    reply = conversation.receive(CLIENT.seal(text.encode()))
    return SERVER.public.open(reply).decode() if reply else ""


@pytest.fixture
def service() -> Service:
    return Service(Wire(), SERVER, Store())


def test_an_entry_is_charged_its_octets_and_a_fixed_charge() -> None:
    store = Store()
    session = begin(store)
    assert store.used == SESSION + len("alice")
    before = store.used
    assert session.put("colour", "blue")
    assert store.used - before == ENTRY + len("colour") + len("blue")


def test_overwriting_charges_the_difference() -> None:
    store = Store()
    session = begin(store)
    session.put("colour", "blue")
    before = store.used
    session.put("colour", "ultramarine")
    assert store.used - before == len("ultramarine") - len("blue")


def test_a_value_fits_exactly_and_one_octet_more_does_not() -> None:
    store = Store(capacity=SESSION + len("alice") + ENTRY + 1 + 4)
    session = begin(store)
    assert not session.put("k", "12345")
    assert session.values == {}
    assert session.put("k", "1234")
    assert not session.put("k", "12345")
    assert session.values == {"k": "1234"}
    assert session.put("k", "4321")


def test_a_full_store_lets_values_shrink_and_go() -> None:
    store = Store(capacity=SESSION + len("alice") + ENTRY + 1 + 4)
    session = begin(store)
    session.put("k", "1234")
    assert session.put("k", "1")
    session.delete("k")
    assert store.used == SESSION + len("alice")
    assert session.put("j", "5678")


def test_the_key_of_a_put_is_charged_while_its_value_is_awaited() -> None:
    store = Store()
    session = begin(store)
    before = store.used
    session.await_value("colour")
    assert store.used - before == len("colour")
    assert session.take_pending() == "colour"
    assert store.used == before


def test_the_account_reads_zero_when_every_session_has_ended(service: Service) -> None:
    conversations = [
        talk(service, f"CONNECT {n}", "PUT a", "1", "GET a", "GET a", "PUT b", "2", "PUT pending")[
            0
        ]
        for n in range(3)
    ]
    assert service.store.used
    assert service.store.remembered
    for conversation in conversations:
        conversation.close()
    assert (service.store.used, service.store.remembered, len(service.store)) == (0, 0, 0)


def test_when_a_sixteenth_was_given_back_what_is_left_is_copied_a_bucket_with_each_put() -> None:
    store = Store(capacity=1_000_000)
    session, other = begin(store), begin(store, "other")
    for number in range(200):
        session.put(f"key {number}", f"value {number}")
    session.sealed.keep("key 0", b"x", 1)
    kept = [text for item in session.values.items() for text in item]  # at their addresses
    before = set(map(id, kept))
    for number in range(200):
        other.put(f"key {number}", "v" * 200)
    for number in range(200):
        other.delete(f"key {number}")
    puts = 0
    while before & {id(text) for item in session.values.items() for text in item}:
        other.put("k", "v")
        puts += 1
        assert puts < 100
    assert puts >= session.values.buckets > 1
    assert dict(session.values) == {f"key {n}": f"value {n}" for n in range(200)}
    assert not session.sealed and store.remembered == 0


def test_a_copying_survives_sessions_that_shrink_and_end_meanwhile() -> None:
    store = Store()
    shrinking, ending = begin(store, "shrinking"), begin(store, "ending")
    for session in (shrinking, ending):
        for number in range(1000):
            session.put(str(number), "v")
    store.freed = store.capacity
    for _ in range(shrinking.values.buckets - 3):
        store.tidy()
    for number in range(990):
        shrinking.delete(str(number))
    store.tidy()
    store.end(ending)
    store.tidy()
    assert len(shrinking.values) == 10
    assert next(store._copying, "at its end") == "at its end"


def large(store: Store, client_id: str) -> Session:
    """A session with more buckets than are forgotten at a time."""
    session = begin(store, client_id)
    while session.values.buckets <= 3 * SWEEP:
        session.put(str(len(session.values)), "")
    return session


def test_a_large_session_is_forgotten_bit_by_bit() -> None:
    store = Store()
    session = large(store, "large")
    buckets = session.values.buckets
    values = session.values
    store.end(session)
    assert (store.used, len(store)) == (0, 0)  # at once
    assert store.sweep() and values.buckets == buckets - SWEEP
    begin(store, "other").put("k", "v")
    assert values.buckets == buckets - SWEEP - 1
    assert store.sweep() and not store.sweep() and not store.sweep()
    assert values.buckets == 0


def test_the_loop_forgets_large_sessions_in_turns_and_comes_to_rest() -> None:
    with house() as h:
        guests = [h.guest().connect(name) for name in ("alice", "bob")]
        for session in h.store.sessions.values():
            while session.values.buckets <= 3 * SWEEP:
                session.put(str(len(session.values)), "")
        tables = [session.values for session in h.store.sessions.values()]
        left = sum(table.buckets for table in tables)
        for guest in guests:
            guest.socket.close()
        while left:
            h.reactor.turn()
            before, left = left, sum(table.buckets for table in tables)
            assert before - left <= 2 * SWEEP  # two were closed in one turn, at the most


def test_a_value_is_sealed_once(service: Service) -> None:
    conversation, _ = talk(service, "CONNECT alice", "PUT colour", "blue")
    assert say(conversation, "GET colour") == "blue"
    assert conversation.work > SEALING
    assert say(conversation, "GET colour") == "blue"
    assert conversation.work == 1


def test_a_line_is_opened_once_a_session(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation, _ = talk(service, "CONNECT alice", "GET a")
    with monkeypatch.context() as patch:
        patch.setattr("kv.protocol.conversation.opened", None)
        assert say(conversation, "GET a") == "GET: ERROR"
    other, _ = talk(service, "CONNECT bob")
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr("kv.protocol.conversation.opened", None)
        say(other, "GET a")


@pytest.mark.parametrize("change", [("PUT colour", "red"), ("DELETE colour",)])
def test_a_changed_value_is_sealed_anew(service: Service, change: tuple[str, ...]) -> None:
    conversation, _ = talk(service, "CONNECT alice", "PUT colour", "blue", "GET colour", *change)
    assert say(conversation, "GET colour") == ("red" if len(change) == 2 else "GET: ERROR")


def test_a_value_that_reads_like_a_remembered_command_is_still_a_value(service: Service) -> None:
    conversation, _ = talk(service, "CONNECT alice", "GET a", "PUT a", "GET a")
    assert say(conversation, "GET a") == "GET a"


def test_a_session_remembers_no_more_than_its_share(service: Service) -> None:
    session = begin(service.store)
    most = 0
    for number in range(2 * SHARE // REMEMBERED):
        session.opened.keep(b"%d" % number, ("GET", str(number)), 2 * len(str(number)))
        most = max(most, session.opened.charged)
        cost = sum(REMEMBERED + len(line) + len(key) for line, (_, key) in session.opened.items())
        assert session.opened.charged == cost == service.store.remembered
    assert SHARE / 2 < most <= SHARE


def test_new_commands_do_not_make_a_session_forget_its_sealed_values(service: Service) -> None:
    conversation, _ = talk(service, "CONNECT alice", "PUT k", "v", "GET k")
    session = conversation.session
    assert session is not None
    for number in range(2 * SHARE // REMEMBERED):
        session.opened.keep(b"%d" % number, ("GET", str(number)), 10)
    assert say(conversation, "GET k") == "v"
    assert conversation.work < SEALING
    assert list(session.sealed) == ["k"]


def test_all_sessions_together_remember_no_more_than_an_eighth_of_the_setting() -> None:
    store = Store(capacity=800_000)
    sessions = [begin(store, str(number)) for number in range(100)]
    for number in range(100):
        for session in sessions:
            session.sealed.keep(str(number), b"x" * 88, 88)
            assert store.remembered <= 100_000
    assert store.remembered > 50_000
    late = begin(store, "late")
    late.sealed.keep("k", b"x" * 88, 88)
    assert late.sealed  # however greedy the others were
    for session in [*sessions, late]:
        store.end(session)
    assert store.remembered == 0
