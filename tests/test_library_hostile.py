"""Servers that mean harm, and a client that neither waits for ever nor believes them.

Each does one hostile thing. `LINGER` is set to an hour where a client that is too polite would
hang, and every test is interrupted when it does.
"""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from fake import Conversation, FakeServer
from house import Clock, Dozing, Selector
from patience import patience
from pitfalls.pitfall import bounded
from wire import KEY as SERVER_KEY
from wire import OTHER_KEY

from kv import Client, ConnectRefused, PrivateKey, Violation
from kv.link import UNSENT, Link
from kv.net.reactor import Reactor
from kv.owner import Target
from kv.protocol.messages import Command, Wire

KEY = PrivateKey.generate()
SHORT = 0.3  #: seconds that a client waits which waits in vain
Behaviour = Callable[[Conversation], object]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A call that hangs fails its test: it blocks this very thread."""
    monkeypatch.setattr("kv.owner.LINGER", 3600.0)
    with bounded(patience()):
        yield


@pytest.fixture
def client(fake: FakeServer) -> Iterator[Callable[..., Client]]:
    """`client(behaviour)` connects to a server that then does as `behaviour` says.

    Its clock begins to run when it has connected, however long that takes on a busy machine.
    """
    made: list[Client] = []

    def make(behaviour: Behaviour, timeout: float = SHORT) -> Client:
        fake.behave(lambda conversation: behaviour(conversation.connect()))
        with late_clock() as begin:
            made.append(connect(fake, timeout))
            begin()
        return made[-1]

    yield make
    for one in made:
        one.close()


@contextlib.contextmanager
def late_clock() -> Iterator[Callable[[], None]]:
    """A client that is made meanwhile has a clock that stands still until this is called."""
    began: list[float] = []

    def clock() -> float:
        return time.monotonic() - began[0] if began else 0.0

    with mock.patch("kv.caller.Reactor", lambda: Reactor(Dozing(), clock)):
        yield lambda: began.append(time.monotonic())


def connect(fake: FakeServer, timeout: float = SHORT) -> Client:
    """A client of a server whose behaviour has been set."""
    return Client("127.0.0.1", fake.port, client_id="alice", key=KEY, timeout=timeout)


Connect = Callable[..., Client]


# --- while connecting ------------------------------------------------------------------------


@contextlib.contextmanager
def linked(
    fake: FakeServer,
) -> Iterator[tuple[Link, Conversation, Clock, list[Exception | None]]]:
    """A link that has sent its key, its server's end, its clock, and how it has ended."""
    ended: list[Exception | None] = []
    owner: Any = SimpleNamespace(
        connected=list, replied=lambda *_: None, may_send=list, ended=ended.append
    )
    reactor = Reactor(Selector(), clock := Clock())
    address = [(socket.AF_INET, ("127.0.0.1", fake.port))]
    link = Link(reactor, Target(address, Wire(), KEY, "alice", timeout=10), owner)
    with contextlib.closing(reactor):
        turn(link, lambda: link._stream)
        yield link, fake.accept(), clock, ended
        link.abort(None)


def turn(link: Link, until: Callable[[], object]) -> None:
    """Turns its loop, which never sleeps, until `until()`."""
    while not until():
        link._reactor.turn()


def test_each_step_of_connecting_takes_from_one_and_the_same_time(fake: FakeServer) -> None:
    """The key comes late, and then nothing: the deadline is the one that was set at the start."""
    with linked(fake) as (link, server, clock, ended):
        server.read_line()
        clock.now = 9.0
        server.send_raw(SERVER_KEY.line)
        turn(link, lambda: link.greeted)
        assert not ended
        clock.now = 10.1
        turn(link, lambda: ended)
    assert isinstance(ended[0], TimeoutError)


def test_connect_is_not_said_before_the_servers_key_has_come(fake: FakeServer) -> None:
    """A simple server that reads one line, and takes all that has come for it, is served, too."""
    with linked(fake) as (link, server, *_):
        for _ in range(50):
            link._reactor.turn()
        assert server.socket.recv(65536) == KEY.public.to_line() + b"\n"
        server.send_raw(SERVER_KEY.line)
        turn(link, lambda: not link.idle)
        for _ in range(50):
            link._reactor.turn()
        server.client_key = (KEY.public.n, KEY.public.e)
        assert server.read_text() == "CONNECT alice"
        assert not select.select([server.socket], [], [], 0)[0]


def test_a_server_that_refuses_and_does_not_close_is_not_waited_for(fake: FakeServer) -> None:
    def refuse(conversation: Conversation) -> None:
        conversation.handshake().read_text()
        conversation.reply("CONNECT: ERROR")
        begin()
        conversation.drain()

    fake.behave(refuse)
    with late_clock() as begin, pytest.raises(ConnectRefused):
        connect(fake)


@pytest.mark.parametrize("stage", ["nothing", "key", "half a key", "CONNECT"])
@pytest.mark.parametrize("how", ["half_close", "close", "reset"])
def test_a_server_that_goes_while_connecting_is_a_connection_error(
    fake: FakeServer, stage: str, how: str
) -> None:
    def go(conversation: Conversation) -> None:
        if stage == "half a key":
            conversation.send_raw(SERVER_KEY.line[:50])
        elif stage != "nothing":
            conversation.handshake()
        if stage == "CONNECT":
            conversation.read_text()
        getattr(conversation, how)()
        with contextlib.suppress(OSError):
            conversation.drain()

    fake.behave(go)
    with pytest.raises(ConnectionError):
        connect(fake, patience())


# --- in a call -------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [False, True])
def test_a_server_that_answers_before_it_has_read_has_to_read(client: Connect, reads: bool) -> None:
    """No reply is owed, but what was sent is not taken: something is owed all the same."""
    over = threading.Event()
    ready = threading.Event()

    def answer_early(conversation: Conversation) -> None:
        assert ready.wait(patience())
        caller, link, said = one._caller, one._caller._link, 0
        while not over.wait(0.0005):
            owed = len(link._conversation.awaiting)
            if len(caller._replies) == said and owed:  # it has had all that was said so far
                said += owed
                with contextlib.suppress(OSError):
                    conversation.reply(*["PUT: OK"] * owed)
            elif reads and link._stream.unsent > UNSENT:  # only this makes room
                conversation.socket.recv(1 << 20)
        conversation.close()

    one: Any = client(answer_early, patience() if reads else SHORT)
    pipeline = one.pipeline()
    for _ in range(20_000):  # 10 MB: more than all buffers hold
        pipeline.put("k", "v" * 265)
    ready.set()
    try:
        if reads:
            assert pipeline.execute() == [True] * 20_000
        else:
            with pytest.raises(TimeoutError, match=r"did not take all .* for 0\.3 s"):
                pipeline.execute()
    finally:
        over.set()
    assert reads or one.closed


def test_a_server_that_floods_is_a_violation(client: Connect) -> None:
    def flood(conversation: Conversation) -> None:
        conversation.read_text()
        with contextlib.suppress(OSError):
            while True:
                conversation.reply(*["here"] * 1000)

    one = client(flood, patience())
    assert one.get("x") == "here"
    with pytest.raises(ConnectionError, match="without a command"):
        one.get("x")
    assert one.closed


@pytest.mark.parametrize("octets", [b"A", b"A" * 511, b"\n"], ids=["one", "a line", "LF"])
def test_a_server_that_floods_with_what_is_no_line_is_a_violation(
    client: Connect, octets: bytes
) -> None:
    def flood(conversation: Conversation) -> None:
        conversation.read_text()
        with contextlib.suppress(OSError):
            while True:
                conversation.send_raw(octets * 1000)

    with pytest.raises(Violation):
        client(flood, patience()).get("x")


def test_a_server_that_never_reads_is_a_timeout_error(client: Connect) -> None:
    over = threading.Event()
    one = client(lambda _: over.wait(patience()))
    pipeline = one.pipeline()
    for number in range(1000):
        pipeline.put(str(number % 10), "v" * 265)
    try:
        with pytest.raises(TimeoutError):
            pipeline.execute()
    finally:
        over.set()


def test_a_server_that_resets_at_each_octet_of_a_reply_is_a_connection_error_or_a_reply(
    fake: FakeServer,
) -> None:
    reply = SERVER_KEY.seal(b"here")
    for octets in range(len(reply) + 1):

        def reset(conversation: Conversation, octets: int = octets) -> None:
            conversation.connect().read_text()
            conversation.send_raw(reply[:octets])
            conversation.reset()

        fake.behave(reset)
        one = connect(fake, patience())
        if octets == len(reply):
            assert one.get("x") == "here"  # it came before the reset
            one.close()
        else:
            with pytest.raises(ConnectionError):
                one.get("x")
        assert one.closed


PRETENDING: dict[str, tuple[Behaviour, str]] = {
    # It then could send back what the client has sealed.
    "its client's key": (lambda server: server.send_raw(server.read_line()), "own"),
    "its key twice": (lambda server: server.send_raw(2 * SERVER_KEY.line), "not whole blocks"),
    "another key": (
        lambda server: server.send_raw(SERVER_KEY.line + OTHER_KEY.seal(b"CONNECT: OK")),
        "a block",
    ),
    "another answer": (lambda server: server.handshake().reply("PUT: OK"), "CONNECT"),
}


@pytest.mark.parametrize("name", PRETENDING)
def test_a_server_whose_key_or_answer_is_wrong_is_a_violation(fake: FakeServer, name: str) -> None:
    behave, said = PRETENDING[name]

    def pretend(conversation: Conversation) -> None:
        behave(conversation)
        with contextlib.suppress(OSError):
            conversation.drain()

    fake.behave(pretend)
    with pytest.raises(Violation, match=said):
        connect(fake, patience())


# --- in `close` ------------------------------------------------------------------------------


def talk(conversation: Conversation) -> None:
    """Says one thing after the other until nobody listens any more."""
    conversation.reply("DISCONNECT: OK")
    silence = threading.Event()
    with contextlib.suppress(OSError):
        while not silence.wait(0.01):
            conversation.reply("and another thing")


RUDE: dict[str, Behaviour] = {
    "never answers": Conversation.drain,
    "never closes": lambda server: (server.reply("DISCONNECT: OK"), server.drain()),
    "goes on talking": talk,
    "lies": lambda server: (server.reply("PUT: OK"), server.drain()),
}


@pytest.mark.parametrize("name", RUDE)
def test_close_neither_waits_nor_raises_whatever_the_server_does(
    client: Connect, name: str
) -> None:
    def behave(conversation: Conversation) -> None:
        assert conversation.read_text() == "DISCONNECT"
        RUDE[name](conversation)

    one = client(behave)
    one.close()
    assert one.closed


def test_all_of_close_takes_from_one_and_the_same_time(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes something now and then, and answers nothing, has ten seconds in all."""
    clock, taken, closed = Clock(), threading.Event(), threading.Event()

    def now() -> float:
        if clock.now == 9.0 and not taken.is_set():
            taken.set()
            one._caller._link.drained()
        return clock.now

    def slow(conversation: Conversation) -> None:
        assert conversation.connect().read_text() == "DISCONNECT"
        clock.now = 9.0
        assert taken.wait(patience())
        clock.now = 10.1
        closed.wait(patience())

    monkeypatch.setattr("kv.caller.Reactor", lambda: Reactor(Selector(), now))
    fake.behave(slow)
    one = connect(fake, timeout=10.0)
    try:
        one.close()
    finally:
        closed.set()
    assert one.closed


def test_a_server_that_has_said_goodbye_and_does_not_close_has_done_nothing_wrong(
    fake: FakeServer,
) -> None:
    """However late it says so."""
    with linked(fake) as (link, server, clock, ended):
        server.handshake()
        turn(link, lambda: not link.idle)
        assert server.read_text() == "CONNECT alice"
        server.reply("CONNECT: OK")
        turn(link, lambda: link.room)
        link.send(Command.disconnect())
        link.flush()
        clock.now = 9.9
        server.reply("DISCONNECT: OK")
        turn(link, lambda: link.idle)
        clock.now = 10.1
        turn(link, lambda: ended)
    assert ended == [None]
