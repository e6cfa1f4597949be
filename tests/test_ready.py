"""Ready answers: what they save, when they go, and that nobody takes them from others.

What is counted is private-key operations.
"""

import itertools
import tracemalloc
from collections.abc import Iterator
from unittest import mock

import pytest

from kv.protocol import ready, recent
from kv.protocol.cipher import PrivateKey, PublicKey, work
from kv.protocol.conversation import ClientConversation, ServerConversation, Service
from kv.protocol.messages import FIXED_REPLIES, Command, Wire
from kv.protocol.ready import REMEMBERED, SHARE, TABLES, Answers, Memory, cost
from kv.protocol.recent import ENTRY, Recent
from kv.protocol.store import Store

CLIENT = PrivateKey.generate()
LONGEST = "v" * 265
LINES: dict[str, bytes] = {}


class CountingKey(PrivateKey):
    """A key that counts its operations; each text is sealed in earnest once."""

    __slots__ = ("count", "sealed")

    def __init__(self) -> None:
        self.public = PrivateKey.generate().public  # of a size with what is sealed
        self.count = 0
        self.sealed: dict[bytes, bytes] = {}

    def seal(self, octets: bytes) -> bytes:
        self.count += 1
        if octets not in self.sealed:
            self.sealed[octets] = SERVER.seal(octets)
        return self.sealed[octets]


SERVER = PrivateKey.generate()


@pytest.fixture
def service() -> Service:
    return Service(Wire(), SERVER, Store())


def line(text: str) -> bytes:
    if text not in LINES:
        LINES[text] = CLIENT.seal(text.encode())
    return LINES[text]


def talk(service: Service, *texts: str) -> ServerConversation:
    conversation = ServerConversation(service)
    conversation.receive(CLIENT.public.to_line())
    for text in texts:
        say(conversation, text)
    return conversation


def say(conversation: ServerConversation, text: str) -> str:
    reply = conversation.receive(line(text))
    return SERVER.public.open(reply).decode() if reply else ""


def never(*_: object) -> bytes:
    raise AssertionError("this needs no arithmetic")


def test_a_line_that_was_answered_with_a_value_is_neither_opened_nor_sealed_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = talk(service, "CONNECT alice", "PUT colour", "blue", "GET colour")
    assert conversation.work > service.sealing
    with monkeypatch.context() as patch:
        patch.setattr("kv.protocol.conversation.opened", never)
        patch.setattr(PrivateKey, "seal", never)
        assert say(conversation, "GET colour") == "blue"
    assert conversation.work == 1


def test_ready_answers_are_a_sessions_own(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(service, "CONNECT alice", "PUT a", "1", "GET a")
    other = talk(service, "CONNECT bob", "PUT a", "1")
    assert not other.session.answers
    monkeypatch.setattr("kv.protocol.conversation.opened", never)
    with pytest.raises(AssertionError):
        say(other, "GET a")


@pytest.mark.parametrize("change", [("PUT colour", "red"), ("DELETE colour",)])
def test_an_answer_goes_with_the_value(service: Service, change: tuple[str, ...]) -> None:
    conversation = talk(service, "CONNECT alice", "PUT colour", "blue", "GET colour", *change)
    assert not conversation.session.answers and not service.store.remembered
    assert say(conversation, "GET colour") == ("red" if len(change) == 2 else "GET: ERROR")


def test_a_put_that_is_refused_leaves_the_answer(service: Service) -> None:
    conversation = talk(service, "CONNECT alice", "PUT k", "v", "GET k", "PUT k", "GET: ERROR")
    assert list(conversation.session.answers) == [line("GET k")]
    assert say(conversation, "GET k") == "v"


def test_a_value_that_reads_like_a_ready_get_is_still_a_value(service: Service) -> None:
    conversation = talk(service, "CONNECT alice", "PUT a", "1", "GET a", "PUT a", "GET a")
    assert say(conversation, "GET a") == "GET a"


def test_a_ready_line_after_the_end_is_a_violation(service: Service) -> None:
    conversation = talk(service, "CONNECT alice", "PUT a", "1", "GET a", "DISCONNECT")
    with pytest.raises(ConnectionError):
        say(conversation, "GET a")


def test_of_two_lines_for_one_key_only_the_last_is_remembered(service: Service) -> None:
    """A key that was not honestly made may have them; a stale answer must not survive."""
    session = service.store.begin("alice")
    session.remember("k", b"one line", b"old")
    session.remember("k", b"another line", b"old")
    session.put("k", "new")
    assert not session.answers and not service.store.remembered


def test_what_is_missing_is_not_remembered(service: Service) -> None:
    conversation = talk(service, "CONNECT alice", "GET a")
    assert not conversation.session.answers
    say(conversation, "PUT a"), say(conversation, "1")
    assert say(conversation, "GET a") == "1"


def test_many_lines_are_answered_in_one_call_within_the_budget(service: Service) -> None:
    conversation = talk(service, "CONNECT alice", "PUT a", "1", "GET a")
    replies: list[bytes] = []
    lines = iter([line("GET a")] * 10)
    conversation.answer(lines, 4, replies)
    assert len(replies) == conversation.work == 4
    assert len(list(lines)) == 6, "what is not answered stays"
    budget = service.opening + 2
    lines = iter([line("GET b"), line("GET c"), *[line("GET a")] * 10])
    conversation.answer(lines, budget, replies)
    assert budget <= conversation.work <= budget + service.opening and len(replies) == 6


def test_a_put_its_value_and_gets_come_in_one_call(service: Service) -> None:
    conversation = talk(service, "CONNECT alice")
    replies: list[bytes] = []
    texts = ["PUT a", "1", "GET a", "GET a", "PUT a", "GET a", "GET a"]
    conversation.answer(map(line, texts), 10_000, replies)
    heard = [SERVER.public.open(reply).decode() for reply in replies]
    assert heard == ["PUT: OK", "1", "1", "PUT: OK", "GET a"]


@pytest.mark.parametrize("last", ["CONNECT bob", "DISCONNECT"])
def test_the_line_that_begins_or_ends_the_session_is_the_last_of_its_call(
    service: Service, last: str
) -> None:
    conversation = talk(service) if last.startswith("CONNECT") else talk(service, "CONNECT bob")
    lines = iter([line(last), line("GET a"), line("GET a")])
    replies: list[bytes] = []
    conversation.answer(lines, 1000, replies)
    assert len(replies) == 1 and len(list(lines)) == 2


def test_a_violation_leaves_the_replies_to_earlier_lines(service: Service) -> None:
    conversation = talk(service, "CONNECT alice", "PUT a", "1")
    replies: list[bytes] = []
    with pytest.raises(ConnectionError):
        conversation.answer(map(line, ["GET a", "GET a", "get a", "GET a"]), 1000, replies)
    assert len(replies) == 2
    assert len(service.store) == 0
    assert conversation.work >= 3


def test_an_error_of_our_own_leaves_the_session_to_whoever_counts_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = talk(service, "CONNECT alice", "PUT a", "1")
    line("GET a")  # sealed by the client while it can be
    monkeypatch.setattr(PrivateKey, "_seal_block", lambda *_: 1 / 0)
    with pytest.raises(ArithmeticError):
        say(conversation, "GET a")
    assert len(service.store) == 1
    conversation.close()
    assert len(service.store) == 0


@pytest.mark.parametrize("bits", [128, 512, 1024, 2048, 4096])
def test_a_block_costs_more_to_seal_than_to_open_and_more_the_larger_the_key(bits: int) -> None:
    opening, sealing = work(bits)
    assert 1 <= opening <= sealing
    assert work(4 * bits)[0] >= opening and work(4 * bits)[1] > sealing


def test_the_longest_message_is_the_longest_value_asked_for_with_the_longest_key() -> None:
    service = Service(Wire(), SERVER, Store())
    of_one_block = 0.001
    longest = service.longest_message(of_one_block * len(FIXED_REPLIES))
    assert 5 * of_one_block < longest < 10 * of_one_block


def test_a_session_remembers_no_more_than_its_share_and_what_it_is_charged() -> None:
    store = Store()
    session = store.begin("alice")
    most = 0
    for number in range(2 * SHARE // REMEMBERED):
        session.remember(str(number), b"line %d" % number, b"reply %d" % number)
        most = max(most, session.answers.charged)
        kept = sum(
            cost(line.decode().removeprefix("line "), line, reply)
            for line, reply in session.answers.items()
        )
        assert session.answers.charged == TABLES + kept == store.remembered
    assert SHARE / 2 < most <= SHARE


@pytest.mark.parametrize("answers", [1, 2, 6, 11, 22])  # where a dict has just grown
def test_what_is_remembered_takes_no_more_memory_than_it_is_charged(answers: int) -> None:
    store = Store()
    sessions = [store.begin(str(number)) for number in range(200)]
    tracemalloc.start()
    try:
        for number in range(answers):
            for session in sessions:
                # Three strings that nobody else has, as they come from a client.
                session.remember(f"{number:04}", b"%88d" % number, b"%88d" % number)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert all(len(session.answers) == answers for session in sessions)
    assert 0.6 * store.remembered < taken <= store.remembered


def test_all_sessions_together_remember_no_more_than_an_eighth_of_the_setting() -> None:
    store = Store(capacity=3_200_000)
    sessions = [store.begin(str(number)) for number in range(100)]
    for number in range(100):
        for session in sessions:
            session.remember(str(number), b"%87d" % number, b"x" * 88)
            assert store.remembered <= 400_000
    assert store.remembered > 200_000
    late = store.begin("late")
    late.remember("k", b"x" * 88, b"x" * 88)
    assert late.answers  # however greedy the others were
    for session in [*sessions, late]:
        store.end(session)
    assert store.remembered == 0


def test_who_is_over_its_part_gives_back_first() -> None:
    store = Store(capacity=4_000_000)
    modest = store.begin("modest")
    for number in range(10):
        modest.remember(str(number), b"%d" % number, b"x" * 88)
    greedy = [store.begin(str(number)) for number in range(20)]
    for number in range(1000):
        for session in greedy:
            session.remember(str(number), b"%d" % number, b"x" * 88)
    assert len(modest.answers) == 10
    for number in range(10, 40):
        modest.remember(str(number), b"%d" % number, b"x" * 88)
    assert len(modest.answers) == 40


def test_with_hundreds_of_greedy_sessions_everybody_elses_hot_values_stay_hot() -> None:
    key = CountingKey()
    service = Service(Wire(), key, Store(capacity=25_000_000))
    ours = talk(service, "CONNECT ours", "PUT k", LONGEST, "GET k")
    greedy = [talk(service, f"CONNECT {number}", "PUT k", "v") for number in range(300)]
    for number in range(270):
        for other in greedy:  # as if each had stored, and asked for, so many values
            answers = other.session.answers
            answers.keep(str(number), b"%88d" % number, b"x" * 88)
    newcomer = talk(service, "CONNECT newcomer", "PUT k", LONGEST, "GET k")
    assert service.store.remembered > service.store.capacity // 16
    key.count = 0
    for round_ in range(20):
        for conversation in (ours, newcomer):
            assert say(conversation, "GET k") == LONGEST
        for other in itertools.islice(greedy, 100):
            other.session.answers.keep("more", b"more %d" % round_, b"x" * 88)
    assert key.count == 0


# --- the account, to the octet ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity", "sessions", "part"),
    [(0, 0, 0), (1, 1, 1), (512, 0, 512), (512, 1, 512), (511, 1, 256), (1000, 2, 256)],
)
def test_a_part_is_a_power_of_two(capacity: int, sessions: int, part: int) -> None:
    memory = Memory(capacity)
    memory.sessions = sessions
    assert memory.part() == part
    assert memory.has_room(capacity) and not memory.has_room(capacity + 1)


def test_no_part_is_larger_than_the_share() -> None:
    assert SHARE // 2 < Memory(1 << 40).part() <= SHARE


def keep(answers: Answers, key: str, octets: int) -> bool:
    """Whether an answer that is charged so many octets is remembered."""
    answers.keep(key, key.encode(), b"r" * (octets - cost(key, key.encode(), b"")))
    return key.encode() in answers


@pytest.fixture
def memory() -> Iterator[Memory]:
    """One of which a part is 2,048 octets, and a share 4,096."""
    with mock.patch.object(ready, "SHARE", 4096):
        made = Memory(4096)
        made.sessions = 2
        yield made


def test_an_answer_must_be_smaller_than_a_part(memory: Memory) -> None:
    answers = Answers(memory)
    assert not keep(answers, "k", 2048 - TABLES) and memory.used == 0
    assert keep(answers, "k", 2047 - TABLES)
    assert answers.charged == memory.used == 2047 and memory.freed == 0
    answers.forget("other")
    assert answers
    answers.forget("k")
    assert (answers.charged, memory.used, memory.freed) == (0, 0, 2047)
    assert keep(answers, "one", 300) and keep(answers, "other", 300)
    answers.forget("one")  # and no other
    assert (list(answers), answers.charged) == ([b"other"], 300 + TABLES)


@pytest.mark.parametrize(
    ("others", "before", "most"),
    [(0, 3184, 4095), (1184, 2384, 2912), (2784, 1184, 2047)],  # a share; what is free; a part
)
def test_who_would_be_over_its_bound_forgets_all_before(
    memory: Memory, others: int, before: int, most: int
) -> None:
    for octets, left in [(most - before, most), (most - before + 1, most - before + 1 + TABLES)]:
        other, answers = Answers(memory), Answers(memory)
        for each, total in ((other, others), (answers, before)):
            while each.charged < total:  # each time it is larger, or fails
                assert keep(each, str(each.charged), 400)
            assert each.charged == total
        assert keep(answers, "last", octets) and answers.charged == left
        gave_back = others + left > 4096
        assert other.charged == (0 if gave_back else others)
        other.clear()
        answers.clear()
        assert memory.used == 0 and not any(memory._levels)


def test_a_client_seals_and_opens_each_text_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = ClientConversation(Wire(), CLIENT), ServerConversation(service)
    client.receive(server.receive(CLIENT.public.to_line()))

    def ask(command: Command) -> str:
        replies = [server.receive(line) for line in client.lines(command)]
        answered = client.receive(replies[-1])
        assert answered is not None
        return answered[1]

    ask(Command.connect(Wire(), "alice"))
    ask(Command.put(Wire(), "k", "v"))
    assert ask(Command.get(Wire(), "k")) == "v"
    monkeypatch.setattr(PrivateKey, "seal", never)
    monkeypatch.setattr(PublicKey, "open", never)
    assert ask(Command.get(Wire(), "k")) == "v"


def test_a_memory_of_results_is_emptied_when_it_is_full_to_the_octet() -> None:
    results: Recent[str, str] = Recent()
    with mock.patch.object(recent, "CAPACITY", 3 * (ENTRY + 5)):
        for given in ("aa", "bb", "cc"):
            assert results.keep(given, "old") == "old"
        assert (len(results), results.charged) == (3, 3 * (ENTRY + 5))
        assert results.keep("dd", "new") == "new"
    assert (results, results.charged) == ({"dd": "new"}, ENTRY + 5)
