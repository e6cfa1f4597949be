"""The account of memory."""

from house import house
from test_ready import SERVER, talk

from kv.protocol.conversation import Service
from kv.protocol.messages import Wire
from kv.protocol.store import ENTRY, SESSION, SWEEP, Session, Store


def begin(store: Store, client_id: str = "alice") -> Session:
    session = store.begin(client_id)
    assert session is not None
    return session


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
    assert store.freed == ENTRY // 2 + len("blue")


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


def test_no_session_takes_more_than_its_share() -> None:
    store = Store(capacity=100_000, share=25_000)
    greedy = begin(store, "greedy")
    number = 0
    while greedy.put(f"key {number}", "v" * 200):
        number += 1
    assert 24_000 < greedy.charged <= 25_000
    assert greedy.put("key 0", "v" * 200) and not greedy.put("key 0", "v" * 2000)
    assert begin(store, "other").put("k", "v" * 200)
    greedy.delete("key 1")
    assert greedy.put("key 1", "v" * 200)


def test_the_key_of_a_put_is_charged_while_its_value_is_awaited() -> None:
    store = Store()
    session = begin(store)
    before = store.used
    session.await_value("colour")
    assert store.used - before == len("colour")
    assert session.take_pending() == "colour"
    assert store.used == before


def test_the_account_reads_zero_when_every_session_has_ended() -> None:
    service = Service(Wire(), SERVER, Store())
    said = ["PUT a", "1", "GET a", "GET a", "PUT b", "2", "PUT pending"]
    conversations = [talk(service, f"CONNECT {number}", *said) for number in range(3)]
    assert service.store.used
    assert service.store.remembered
    for conversation in conversations:
        conversation.close()
    assert (service.store.used, service.store.remembered, len(service.store)) == (0, 0, 0)
    assert service.store.memory.sessions == 0


def test_when_a_sixteenth_was_given_back_what_is_left_is_copied_a_bucket_with_each_put() -> None:
    store = Store(capacity=1_000_000)
    session, other = begin(store), begin(store, "other")
    for number in range(200):
        session.put(f"key {number}", f"value {number}")
    session.remember("key 0", b"line", b"reply")
    kept_lines = [octets for item in session.answers.items() for octets in item]
    kept = [text for item in session.values.items() for text in item]  # at their addresses
    before = {*map(id, kept), *map(id, kept_lines)}
    for number in range(200):
        other.put(f"key {number}", "v" * 200)
    for number in range(200):
        other.delete(f"key {number}")
    puts = 0
    while before & {
        id(text) for item in [*session.values.items(), *session.answers.items()] for text in item
    }:
        other.put("k", "v")
        puts += 1
        assert puts < 100
    assert puts >= session.values.buckets > 1
    assert dict(session.values) == {f"key {n}": f"value {n}" for n in range(200)}
    assert session.answers == {b"line": b"reply"} and store.remembered
    session.delete("key 0")
    assert not session.answers and not store.remembered


def test_nothing_is_copied_before_more_than_a_sixteenth_was_given_back() -> None:
    store = Store(capacity=1600)
    for freed, of_answers, left in [(100, 0, 100), (99, 1, 99), (101, 0, 0), (100, 1, 0)]:
        store.freed, store.memory.freed = freed, of_answers
        store.tidy()
        assert store.freed == left and bool(store.memory.freed) == bool(left and of_answers)


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


def large(store: Store, client_id: str, buckets: int = 3 * SWEEP + 1) -> Session:
    """A session with more buckets than are forgotten at a time."""
    session = begin(store, client_id)
    while session.values.buckets < buckets:
        session.put(str(len(session.values)), "")
    return session


def test_a_large_session_is_forgotten_bit_by_bit() -> None:
    store = Store()
    session = large(store, "large")
    buckets = session.values.buckets
    values, used = session.values, store.used
    store.end(session)
    assert (store.used, store.freed, len(store)) == (0, used, 0)  # at once
    assert store.sweep() and values.buckets == buckets - SWEEP
    begin(store, "other").put("k", "v")
    assert values.buckets == buckets - SWEEP - 1
    assert store.sweep() and not store.sweep() and not store.sweep()
    assert values.buckets == 0
    store.end(large(store, "not so large", SWEEP))
    assert not store.sweep(0)  # it is forgotten at once


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
