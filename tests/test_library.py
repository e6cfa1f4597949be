"""`from kv import Client`: what a program that uses the library can count on."""

import doctest
import errno
import math
import os
import re
import select
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from conftest import Server
from fake import Conversation, FakeServer
from house import Clock, Dozing, open_descriptors
from patience import patience
from pitfalls.pitfall import bounded
from wire import KEY as SERVER_KEY
from wire import LONGEST_TEXT, OTHER_KEY, Peer, bad_key_lines, bad_lines, new_id

import kv.client
from kv import Client, ConnectRefused, PrivateKey, PutRefused, Refused, TextError, Violation
from kv.caller import Caller
from kv.link import WINDOW
from kv.net.address import Address
from kv.net.directions import Event
from kv.net.reactor import Reactor

KEY = PrivateKey.generate()
LONGEST_KEY = LONGEST_TEXT - len("DELETE ")
MakeClient = Callable[..., Client]
Behaviour = Callable[[Conversation], object]


@pytest.fixture(autouse=True)
def patient() -> Iterator[None]:
    """A call that never returns fails its test: it blocks this very thread."""
    with bounded(patience()):
        yield


@pytest.fixture
def client(server: Server) -> Iterator[MakeClient]:
    """`client()` is a client of the shared server; `client(port=...)` of another."""
    clients: list[Client] = []

    def make(client_id: str | None = None, port: int | None = None, **options: Any) -> Client:
        options = {"key": KEY, "timeout": patience(), **options}
        port = server.port if port is None else port
        clients.append(Client("127.0.0.1", port, client_id=client_id or new_id(), **options))
        return clients[-1]

    yield make
    for one in clients:
        one.close()


class Fake:
    """`fake(behaviour)` is a client of a server that does as `behaviour` says once connected."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.clients: list[Client] = []

    def __call__(self, behaviour: Behaviour, **options: Any) -> Client:
        self.server.behave(lambda conversation: behaviour(conversation.connect()))
        options = {"key": KEY, "timeout": patience(), **options}
        self.clients.append(Client("127.0.0.1", self.server.port, client_id="fake", **options))
        return self.clients[-1]

    def join(self) -> None:
        """Waits for the behaviours to come to their ends."""
        self.server.join()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What clients go by: their time passes when a test says so."""
    clock = Clock()
    monkeypatch.setattr("kv.caller.Reactor", lambda: Reactor(Dozing(), clock))
    return clock


def until_it_speaks(conversation: Conversation, clock: Clock) -> None:
    """Lets time pass until the client sends something, or has given up."""
    while not select.select([conversation.socket], [], [], 0.01)[0]:
        clock.now += 1


@pytest.fixture
def fake() -> Iterator[Fake]:
    with FakeServer() as server:
        fake = Fake(server)
        yield fake
        for one in fake.clients:
            one.close()


# --- as its docstring says -------------------------------------------------------------------


def test_the_examples_in_the_docstring_are_true(server: Server) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(Client, "Client")
    assert len(test.examples) >= 2
    for example in test.examples:
        example.source = example.source.replace("4242", str(server.port))
    output: list[str] = []
    doctest.DocTestRunner().run(test, out=output.append)
    assert not output, "".join(output)


def test_put_get_and_delete(client: MakeClient) -> None:
    kv = client()
    assert kv.put("colour", "blue") is None
    assert kv.get("colour") == "blue"
    kv.put("colour", "green")
    assert kv.get("colour") == "green"
    for _ in range(2):  # a missing key is fine
        kv.delete("colour")
        del kv["colour"]
    assert kv.get("colour") is None


def test_it_is_used_like_a_mapping(client: MakeClient) -> None:
    kv = client()
    with pytest.raises(KeyError, match="colour"):
        kv["colour"]
    kv["colour"] = "blue"
    assert kv["colour"] == "blue"
    assert "colour" in kv
    del kv["colour"]
    assert "colour" not in kv
    with pytest.raises(TypeError):
        iter(kv)


def test_get_of_a_missing_key_gives_the_default(client: MakeClient) -> None:
    client, default = client(), object()
    assert client.get("colour") is None
    assert client.get("colour", default) is default
    client["colour"] = ""
    assert client.get("colour", default) == ""
    assert "colour" in client and client["colour"] == ""


def test_values_come_back_as_they_went(client: MakeClient) -> None:
    kv = client()
    every = "".join(chr(number) for number in range(128) if number != 0x0A)
    for value in ("", " ", every, "v" * LONGEST_TEXT, "DISCONNECT", "PUT: ERROR", "\r"):
        kv[every] = value
        assert kv[every] == value
    longest = "k" * LONGEST_KEY
    kv[longest] = "1"
    assert kv[longest] == "1"
    del kv[longest]
    assert longest not in kv


def test_the_session_ends_with_the_block(server: Server, client: MakeClient) -> None:
    client_id = new_id()
    with client(client_id) as kv:
        kv["x"] = "1"
    with client(client_id) as again:  # the id is free at once
        assert "x" not in again


def test_the_session_ends_when_the_block_is_left_by_an_exception(client: MakeClient) -> None:
    client_id = new_id()
    with pytest.raises(ZeroDivisionError), client(client_id):
        raise ZeroDivisionError
    client(client_id)


# --- errors that leave it usable -------------------------------------------------------------

IMPOSSIBLE: dict[str, Callable[[Any], object]] = {
    "key not ASCII": lambda kv: kv.get("caf\u00e9"),
    "key with a line feed": lambda kv: kv.get("a\nb"),
    "empty key": lambda kv: kv.get(""),
    "key too long": lambda kv: kv.get("k" * (LONGEST_KEY + 4)),
    "put, key too long": lambda kv: kv.put("k" * (LONGEST_KEY + 1), "1"),
    "delete, key too long": lambda kv: kv.delete("k" * (LONGEST_KEY + 1)),
    "value not ASCII": lambda kv: kv.put("x", "\x80"),
    "value with a line feed": lambda kv: kv.put("x", "a\n"),
    "value too long": lambda kv: kv.put("x", "v" * (LONGEST_TEXT + 1)),
    "value that means a missing key": lambda kv: kv.put("x", "GET: ERROR"),
    "lone surrogate": lambda kv: kv.put("x", "\udcff"),
    "in brackets": lambda kv: kv["caf\u00e9"],
    "set in brackets": lambda kv: kv.__setitem__("x", "caf\u00e9"),
    "in": lambda kv: "caf\u00e9" in kv,
    "pipeline put": lambda kv: kv.pipeline().get("x").put("x", "caf\u00e9").execute(),
    "pipeline get": lambda kv: kv.pipeline().put("x", "1").get("").execute(),
    "pipeline delete": lambda kv: kv.pipeline().put("x", "1").delete("a\n").execute(),
}


def test_a_text_that_cannot_be_carried_is_a_value_error_before_anything_is_sent(
    fake: Fake,
) -> None:
    texts: list[str] = []
    with fake(lambda conversation: texts.extend(conversation.serve())) as client:
        for name, call in IMPOSSIBLE.items():
            with pytest.raises(ValueError) as caught:
                call(client)
            assert isinstance(caught.value, TextError), name
        assert client.get("here") == "here"  # and the client is as good as new
    fake.join()
    assert texts == ["GET here", "DISCONNECT"]


@pytest.mark.parametrize("wrong", [b"bytes", 1, None], ids=repr)
def test_what_is_no_text_is_a_type_error_before_anything_is_sent(fake: Fake, wrong: Any) -> None:
    texts: list[str] = []
    with fake(lambda conversation: texts.extend(conversation.serve())) as client:
        for call in (client.get, client.delete, lambda value: client.put("x", value)):
            with pytest.raises(TypeError, match=type(wrong).__name__):
                call(wrong)
    fake.join()
    assert texts == ["DISCONNECT"]


WRONG: dict[str, list[dict[str, Any]]] = {
    "client id": [{"client_id": client_id} for client_id in ("", "a\nb", "caf\u00e9", "x" * 258)],
    "is not a port": [{"port": 0}, {"port": 99_999}],
    "is not a time-out": [{"timeout": 0}, {"timeout": -1}, {"timeout": math.nan}],
    "8192 bits": [{"key_bits": 8192}],
    "256 bits, not 512": [{"key": PrivateKey.generate(256)}],
    "512 bits, not 1024": [{"key": KEY, "key_bits": 1024}],
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_is_a_value_error_before_connecting(said: str) -> None:
    for wrong in WRONG[said]:
        with pytest.raises(ValueError, match=said):
            Client("no.such.host.invalid", **{"port": 1, "client_id": "a", **wrong})


def test_a_put_that_the_server_refuses_is_put_refused(fake: Fake) -> None:
    def refuse(conversation: Conversation) -> None:
        conversation.read_texts(2)
        conversation.reply("PUT: ERROR")
        conversation.serve()

    client = fake(refuse)
    with pytest.raises(PutRefused, match="colour") as caught:
        client.put("colour", "blue")
    assert isinstance(caught.value, Refused) and not isinstance(caught.value, OSError)
    assert client.get("x") == "x"  # the conversation goes on


def test_an_id_in_use_is_connect_refused(client: MakeClient) -> None:
    client_id = new_id()
    client(client_id)
    with pytest.raises(ConnectRefused, match=client_id) as caught:
        client(client_id)
    assert isinstance(caught.value, Refused) and not isinstance(caught.value, OSError)


# --- errors that close it --------------------------------------------------------------------


def assert_closed(client: Client, why: str = "") -> None:
    """Everything but `close` says that the client is closed, and why."""
    calls: list[Callable[[], object]] = [
        lambda: client.get("x"),
        lambda: client.put("x", "1"),
        lambda: client.delete("x"),
        lambda: client["x"],
        lambda: "x" in client,
        lambda: client.pipeline().get("x").execute(),
        lambda: client.pipeline().execute(),
    ]
    for call in calls:
        with pytest.raises(ConnectionError, match=f"this client is closed: {why}"):
            call()
    client.close()
    client.close()


def test_a_closed_client_says_so(client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "kv")
    kv = client()
    kv.close()
    assert_closed(kv, "close was called")
    connected, ended = caplog.messages
    assert re.fullmatch(r"connected to 127\.0\.0\.1:\d+ as '.+'", connected)
    assert re.fullmatch(r"the connection as '.+' has ended: no error", ended)


@pytest.mark.parametrize("how", ["close", "half_close", "reset"])
def test_a_connection_lost_in_a_call_is_a_connection_error(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def lose(conversation: Conversation) -> None:
        conversation.read_text()
        getattr(conversation, how)()

    client = fake(lose)
    abort = client._caller._link.abort
    # A signal's handler may close the client just then.
    monkeypatch.setattr(client._caller._link, "abort", lambda _: (client.close(), abort(None)))
    with pytest.raises(ConnectionError):
        client.get("x")
    assert_closed(client)


@pytest.mark.parametrize("how", ["close", "half_close", "reset"])
@pytest.mark.parametrize("call", ["get", "close"])
def test_a_connection_lost_between_two_calls_is_a_connection_error_in_the_next(
    fake: Fake, how: str, call: str
) -> None:
    """A reset is reported by the very first `send`, before the reactor runs."""
    lost = threading.Event()

    def lose(conversation: Conversation) -> None:
        getattr(conversation, how)()
        lost.set()

    client = fake(lose)
    assert lost.wait(patience())
    if call == "close":
        client.close()  # is not interested
    else:
        with pytest.raises(ConnectionError):
            client.get("x")
    assert_closed(client)


@pytest.mark.parametrize("answer", ["connected", "replied"])
def test_a_connection_lost_with_the_answer_is_a_connection_error_in_the_next_call(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    take = getattr(Caller, answer)

    def take_and_lose(caller: Caller, *what: Any) -> None:
        take(caller, *what)
        caller.ended(ConnectionError("lost with it"))

    monkeypatch.setattr(Caller, answer, take_and_lose)
    client = fake(lambda peer: answer == "replied" and peer.reply(peer.read_text()))
    assert answer == "connected" or client.get("x") == "GET x"
    assert_closed(client, "lost with it")


def test_a_connection_lost_in_a_pipeline_is_a_connection_error(fake: Fake) -> None:
    def lose(conversation: Conversation) -> None:
        conversation.read_texts(2)
        conversation.reply("one")
        conversation.close()

    client = fake(lose)
    with pytest.raises(ConnectionError):
        client.pipeline().get("1").get("2").execute()
    assert_closed(client)


def test_a_network_that_is_gone_is_a_connection_error_with_its_number(fake: Fake) -> None:
    """A router, or our own kernel, says so of a connection that there is already."""
    gone = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    client = fake(lambda conversation: conversation.reply(conversation.read_text()))
    fails = mock.patch("kv.net.transport.Transport.read", lambda t, _: t.fail(Event.RESET, gone))
    with fails, pytest.raises(ConnectionError) as caught:
        client.get("x")
    assert caught.value.errno == errno.EHOSTUNREACH
    assert_closed(client, re.escape(str(gone)))


def test_nobody_listening_is_a_connection_refused_error(deaf: Address) -> None:
    with pytest.raises(ConnectionRefusedError, match=re.escape(f"127.0.0.1:{deaf[1]}")):
        Client("127.0.0.1", deaf[1], client_id="a", key=KEY)


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_host_that_is_none_is_an_os_error(host: str) -> None:
    with pytest.raises(OSError) as caught:
        Client(host, 1, client_id="a", key=KEY)
    assert str(caught.value)


def test_a_server_that_does_not_reply_is_a_timeout_error(fake: Fake, clock: Clock) -> None:
    def mute(conversation: Conversation) -> None:
        conversation.read_text()
        until_it_speaks(conversation, clock)

    client = fake(mute, timeout=10)
    with pytest.raises(TimeoutError, match="10 s"):
        client.get("x")
    assert_closed(client)


@pytest.mark.parametrize("stage", ["key", "half a key", "CONNECT"])
def test_a_server_that_does_not_let_it_in_is_a_timeout_error(
    client: MakeClient, clock: Clock, stage: str
) -> None:
    def mute(conversation: Conversation) -> None:
        if stage == "CONNECT":
            conversation.handshake().read_text()
        else:
            conversation.read_line()
        if stage == "half a key":
            conversation.send_raw(SERVER_KEY.line[:-1])
        until_it_speaks(conversation, clock)

    with FakeServer() as server:
        server.behave(mute)
        with pytest.raises(TimeoutError, match="10 s"):
            client(port=server.port, timeout=10)


def test_the_timeout_is_the_time_without_a_reply_and_not_that_of_the_whole(
    fake: Fake, clock: Clock
) -> None:
    """Three replies, each after more than half the time-out: together they take twice of it."""

    def slow(conversation: Conversation) -> None:
        conversation.read_texts(WINDOW)
        for _ in range(3):
            clock.now += 6
            conversation.reply("slow")
            conversation.read_text()  # the client has seen it, and asks for one more
        conversation.reply(*["rest"] * WINDOW)
        conversation.serve()

    pipeline = fake(slow, timeout=10).pipeline()
    for number in range(WINDOW + 3):
        pipeline.get(str(number))
    assert pipeline.execute() == ["slow"] * 3 + ["rest"] * WINDOW


@pytest.mark.parametrize("timeout", [1e9, math.inf])
def test_a_very_long_timeout_is_no_trouble(client: MakeClient, timeout: float) -> None:
    with client(timeout=timeout) as kv:
        assert kv.get("x") is None


BROKEN = {
    "value to a PUT": SERVER_KEY.seal(b"blue"),
    "reply to another command": SERVER_KEY.seal(b"DELETE: OK"),
    "lower case": SERVER_KEY.seal(b"put: ok"),
    "octet that is not ASCII": SERVER_KEY.seal(b"PUT: \xff"),
    "LF in the text": SERVER_KEY.seal(b"PUT: OK\n"),
    "empty text": SERVER_KEY.seal(b""),
    "line without end": b"A" * 511,
    **{name: line for name, line in bad_lines(SERVER_KEY).items() if "another" not in name},
    "sealed by another key": OTHER_KEY.seal(b"PUT: OK"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_server_that_breaks_the_protocol_is_a_violation(fake: Fake, name: str) -> None:
    def misbehave(conversation: Conversation) -> None:
        conversation.read_texts(2)
        conversation.send_raw(BROKEN[name])
        conversation.read_to_end()  # the client leaves

    client = fake(misbehave)
    with pytest.raises(Violation) as caught:
        client.put("x", "1")
    assert isinstance(caught.value, ConnectionError)
    assert_closed(client)


@pytest.mark.parametrize("name", bad_key_lines())
def test_a_server_whose_key_line_is_none_is_a_violation(client: MakeClient, name: str) -> None:
    with FakeServer() as server:

        def misbehave(conversation: Conversation) -> None:
            conversation.send_raw(bad_key_lines()[name])
            conversation.drain()

        server.behave(misbehave)
        with pytest.raises(Violation):
            client(port=server.port)


def test_a_server_that_speaks_without_being_asked_is_a_violation_in_the_next_call(
    fake: Fake,
) -> None:
    connected, said = threading.Event(), threading.Event()

    def misbehave(conversation: Conversation) -> None:
        assert connected.wait(patience())
        conversation.reply("GET: ERROR", "GET: ERROR")
        said.set()
        conversation.read_to_end()

    client = fake(misbehave)
    connected.set()
    assert said.wait(patience())
    with pytest.raises(Violation):
        client.pipeline().put("x", "1").get("x").execute()
    assert_closed(client)


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, even if these tests run in a script's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_the_middle_of_a_call_closes_the_client(
    fake: Fake, ctrl_c_interrupts: None
) -> None:
    """Nobody knows what became of the command, so the next reply might be to that one."""
    here = threading.get_ident()

    def interrupt(conversation: Conversation) -> None:
        conversation.read_text()
        signal.pthread_kill(here, signal.SIGINT)
        conversation.read_to_end()  # the connection is closed, too

    client = fake(interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.get("x")
    assert_closed(client)


# --- pipelines -------------------------------------------------------------------------------


def test_a_pipeline_gives_its_results_in_order(client: MakeClient) -> None:
    kv = client()
    kv["old"] = "0"
    pipeline = kv.pipeline().get("old").put("x", "1").get("x").delete("x").get("x")
    assert pipeline.execute() == ["0", True, "1", True, None]
    assert kv["old"] == "0"


def test_an_executed_pipeline_is_empty_and_can_be_used_again(client: MakeClient) -> None:
    kv = client()
    pipeline = kv.pipeline().put("x", "1")
    assert pipeline.execute() == [True]
    assert pipeline.execute() == []
    assert pipeline.get("x").execute() == ["1"]


def test_a_refused_put_in_a_pipeline_is_false_and_the_rest_goes_on(fake: Fake) -> None:
    def refuse(conversation: Conversation) -> None:
        conversation.read_texts(4)
        conversation.reply("PUT: OK", "PUT: ERROR")
        conversation.serve()

    pipeline = fake(refuse).pipeline()
    assert pipeline.put("x", "1").put("y", "2").get("z").execute() == [True, False, "z"]


def test_a_pipeline_sends_many_commands_ahead_of_their_replies_but_only_so_many(
    fake: Fake, clock: Clock
) -> None:
    """Ten replies, then silence until the client gives up: the window has moved on by ten."""
    texts: list[str] = []

    def fall_silent(conversation: Conversation) -> None:
        texts.extend(conversation.read_texts(WINDOW))
        for _ in range(10):
            conversation.reply("here")
        texts.extend(conversation.read_texts(10))
        until_it_speaks(conversation, clock)
        texts.extend(conversation.read_to_end())

    pipeline = fake(fall_silent, timeout=10).pipeline()
    for number in range(WINDOW + 100):
        pipeline.get(str(number))
    with pytest.raises(TimeoutError):
        pipeline.execute()
    fake.join()
    assert texts == [f"GET {number}" for number in range(WINDOW + 10)]
    assert WINDOW >= 16  # less would be hardly any pipelining


def test_two_thousand_commands_in_one_pipeline_are_answered_in_order(
    start_server: Callable[..., Server], client: MakeClient
) -> None:
    """Small keys, so that this takes no longer than it must."""
    port = start_server("--key-bits", "128").port
    kv = client(port=port, key_bits=128, key=PrivateKey.generate(128))
    pipeline = kv.pipeline()
    for number in range(1_000):
        pipeline.put(str(number % 7), str(number)).get(str(number % 7))
    results = pipeline.execute()
    assert results == [result for number in range(1_000) for result in (True, str(number))]


# --- keys, threads, signals, descriptors -----------------------------------------------------


def test_a_client_makes_its_own_key_unless_it_is_handed_one(
    client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(kv.client.PrivateKey, "generate", lambda bits: made.append(bits) or KEY)
    one, two = client(key=KEY), client(key=KEY)
    one["x"], two["x"] = "1", "2"
    assert (one["x"], two["x"], made) == ("1", "2", [])
    client(key=None), client(key=None)
    assert made == [512, 512]


def test_other_sizes_than_the_usual_work(
    start_server: Callable[..., Server], client: MakeClient
) -> None:
    options = ("--key-bits", "256", "--receive-buffer-size", "8192")
    port = start_server(*options).port
    with client(port=port, key=None, key_bits=256, receive_buffer_size=8192) as kv:
        longest = (8191 // 8 - 1) // 4 * 3 // 32 * (32 - 11)
        kv["x"] = "v" * longest
        assert kv["x"] == "v" * longest
        with pytest.raises(ValueError, match=f"at most {longest}"):
            kv["x"] = "v" * (longest + 1)


def test_it_works_in_any_thread(client: MakeClient) -> None:
    def use(number: int) -> list[str]:
        with client() as kv:
            for value in range(20):
                kv["x"] = f"{number} {value}"
                assert kv["x"] == f"{number} {value}"
            return [kv["x"]]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(4))) == [[f"{number} 19"] for number in range(4)]


def test_a_client_may_go_from_one_thread_to_another(client: MakeClient) -> None:
    kv = client()
    kv["x"] = "1"
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(kv.get, "x").result(patience()) == "1"
    assert kv["x"] == "1"


def test_it_touches_no_signal_handlers(client: MakeClient) -> None:
    def handlers() -> tuple[object, ...]:
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        return wakeup, *map(signal.getsignal, sorted(signal.valid_signals()))

    before = handlers()
    with client() as kv:
        during = handlers()
        kv["x"] = "1"
    assert before == during == handlers()


def test_it_leaves_no_descriptor_open(
    client: MakeClient, peer: Callable[..., Peer], deaf: Address
) -> None:
    taken = new_id("taken")
    peer(taken)

    def closed_by_an_error() -> None:
        fake.behave(lambda conversation: conversation.connect().close())
        kv = client(port=fake.port)
        fake.join()
        with pytest.raises(ConnectionError):
            kv.get("x")

    with FakeServer() as fake:
        before = open_descriptors()
        for _ in range(5):
            client().close()
            with pytest.raises(ConnectRefused):
                client(taken)
            with pytest.raises(OSError, match="refused"):
                client(port=deaf[1])
            closed_by_an_error()
        assert open_descriptors() == before


def test_a_child_that_closes_its_copy_sees_it_closed(
    client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = client()
    monkeypatch.setattr("kv.caller.os.getpid", lambda: 0)  # as after a fork
    kv.close()
    assert kv.closed and "it belongs to the process that made it" in repr(kv)
    with pytest.raises(RuntimeError, match="parent process"):
        kv.get("x")
