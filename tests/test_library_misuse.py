"""What a program must not do with a client, and what it is told: threads, signals, forks."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from conftest import ROOT, Server
from fake import Conversation, FakeServer
from patience import patience
from pitfalls.pitfall import bounded
from wire import Peer, new_id

from kv import Client, ConnectRefused, PrivateKey
from kv.caller import Caller
from kv.protocol.messages import Command, Wire

KEY = PrivateKey.generate()
TIMES = 10  #: for each test; the soak does more


@pytest.fixture(autouse=True)
def patient() -> Iterator[None]:
    """A call that never returns fails its test: it blocks this very thread."""
    with bounded(patience(2)):
        yield


@pytest.fixture
def made() -> Iterator[Callable[..., Client]]:
    """`made(port)` is a client, closed in the end."""
    with contextlib.ExitStack() as stack:

        def make(port: int, client_id: str = "alice") -> Client:
            client = Client("127.0.0.1", port, client_id=client_id, key=KEY, timeout=patience())
            stack.callback(client.close)
            return client

        yield make


# --- threads ---------------------------------------------------------------------------------


def test_a_second_thread_is_told_so_and_the_running_call_is_right(
    fake: FakeServer, made: Callable[..., Client]
) -> None:
    """A hundred times; the server replies only when the second thread has been turned away."""
    refused = threading.Barrier(2)

    def serve(conversation: Conversation) -> None:
        conversation.connect()
        for _ in range(TIMES):
            text = conversation.read_text()
            refused.wait(patience())  # the call runs: now the other one comes
            refused.wait(patience())
            conversation.reply(text)
        conversation.serve()

    fake.behave(serve)
    client = made(fake.port)
    mine = client.pipeline().get("mine")
    said: list[str] = []

    def intrude() -> None:
        calls: list[Callable[[], object]] = [
            lambda: client.get("mine"),
            lambda: client.put("mine", "1"),
            mine.execute,
            client.close,
        ]
        for number in range(TIMES):
            refused.wait(patience())
            try:
                calls[number % len(calls)]()
            except RuntimeError as error:
                said.append(str(error))
            refused.wait(patience())

    intruder = threading.Thread(target=intrude)
    intruder.start()
    for number in range(TIMES):
        assert client.get(f"key {number}") == f"GET key {number}"
    intruder.join(patience())
    told = "another call of this client is still running"
    assert len(said) == TIMES and all(told in each for each in said)
    assert mine.execute() == ["mine"]  # what was refused is not lost


def test_threads_that_do_not_care_get_their_own_values_or_are_told(
    server: Server, made: Callable[..., Client]
) -> None:
    client = made(server.port, new_id())
    names = ["a", "b", "c", "d"]
    for name in names:
        client.put(name, name)
    wrong: list[object] = []
    got = dict.fromkeys(names, 0)

    def use(name: str) -> None:
        while got[name] < TIMES:
            try:
                value = client.get(name)
            except RuntimeError:
                continue
            except BaseException as error:
                wrong.append(error)
                return
            got[name] += 1
            if value != name:
                wrong.append((name, value))

    threads = [threading.Thread(target=use, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience())
    assert not wrong and set(got.values()) == {TIMES}


# --- signals and callbacks -------------------------------------------------------------------


def test_a_signal_at_any_moment_leaves_the_client_usable(
    server: Server, made: Callable[..., Client]
) -> None:
    """Signals come as fast as they can, wherever the call is; each handler tries to call."""
    client = made(server.port, new_id())
    client.put("x", "1")
    said: list[object] = []

    def handler(*_: object) -> None:
        try:
            said.append(client.get("x"))
        except RuntimeError as error:
            said.append(str(error)[:40])

    before = signal.signal(signal.SIGUSR2, handler)
    over = threading.Event()
    here = threading.get_ident()

    def pester() -> None:
        while not over.wait(0.0005):
            signal.pthread_kill(here, signal.SIGUSR2)

    thread = threading.Thread(target=pester)
    thread.start()
    try:
        for _ in range(5 * TIMES):
            assert client.get("x") == "1"
    finally:
        over.set()
        thread.join(patience())
        signal.signal(signal.SIGUSR2, before)
    assert said and set(said) <= {"1", "another call of this client is still run"}
    assert client.get("x") == "1"


def test_a_call_at_the_very_end_of_close_is_told_that_the_client_is_closed(
    fake: FakeServer, made: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread or a signal may come just when the turn is given back."""
    fake.behave(lambda conversation: conversation.connect().serve())
    client = made(fake.port)
    execute = Caller.execute

    def interrupted(caller: Caller, commands: Sequence[Command]) -> list[str]:
        replies = execute(caller, commands)
        with pytest.raises(ConnectionError, match="this client is closed"):
            execute(caller, (Command.get(Wire(), "x"),))
        return replies

    monkeypatch.setattr(Caller, "execute", interrupted)
    client.close()
    assert client.closed


# --- fork ------------------------------------------------------------------------------------

IN_CHILD: dict[str, Callable[[Client], object]] = {
    "get": lambda client: client.get("x"),
    "pipeline": lambda client: client.pipeline().get("x").execute(),
    "close": lambda client: client.close(),
    "with": lambda client: client.__exit__(None, None, None),
    "close and close": lambda client: (client.close(), client.close()),
    "close and get": lambda client: (client.close(), client.get("x")),
}


def in_child(call: Callable[[], object]) -> str:
    """What `call` raised in a child of this process, or the empty text."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        said = ""
        try:
            call()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(sink, said.encode())
        os._exit(0)
    os.close(sink)
    with open(source, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize("name", IN_CHILD)
def test_a_child_leaves_the_parents_session_alone(
    fake: FakeServer, made: Callable[..., Client], name: str
) -> None:
    texts: list[str] = []
    fake.behave(lambda conversation: texts.extend(conversation.connect().serve()))
    client = made(fake.port)
    said = in_child(lambda: IN_CHILD[name](client))
    if name in ("get", "pipeline"):
        assert said.startswith("RuntimeError: ") and "after the fork" in said
    elif name == "close and get":
        assert said.startswith("RuntimeError: ")
    else:
        assert said == ""
    assert client.get("still mine") == "still mine"
    client.close()
    fake.join()
    assert texts == ["GET still mine", "DISCONNECT"]


def test_a_child_that_throws_its_copy_away_again_and_again_leaves_the_parents_session_alone(
    server: Server, made: Callable[..., Client]
) -> None:
    client = made(server.port, new_id())
    client.put("x", "1")
    copies = [client]

    def throw_away() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            copies[0].__del__()
            gc.collect()

    for _ in range(TIMES):
        assert in_child(throw_away) == ""
        assert client.get("x") == "1"


def test_a_child_may_make_a_client_of_its_own(server: Server, made: Callable[..., Client]) -> None:
    made(server.port, new_id())

    def use() -> None:
        with Client("127.0.0.1", server.port, client_id=new_id(), key=KEY) as mine:
            mine["x"] = "1"
            assert mine["x"] == "1"

    assert in_child(use) == ""


# --- SIGPIPE ---------------------------------------------------------------------------------

#: Sends into a connection whose peer has gone: the first octets bring RST, the next ones EPIPE.
HOST_PROGRAM = """
import select, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
from kv import Client
client = Client("127.0.0.1", int(sys.argv[1]), client_id="alice", timeout=5)
sys.stdin.readline()
link = client._caller._link
poll = select.poll()
poll.register(link._stream.transport.sock, 0)
link._stream.write(b"x\\n")
link._stream.flush()
poll.poll(5000)
link._stream.write(b"x\\n")
link._stream.flush()
try:
    client.get("x")
except ConnectionError as error:
    print("told:", error)
"""


def test_a_host_program_with_sigpipe_at_its_default_is_not_killed(fake: FakeServer) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOST_PROGRAM, str(fake.port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    fake.accept().connect().close()
    out, _ = process.communicate("go on\n", patience())
    assert process.returncode == 0, "ended by a signal"
    assert out.count("told:") == 1


# --- litter ----------------------------------------------------------------------------------


def test_a_client_that_is_thrown_away_warns_and_frees_its_id_at_once(
    server: Server, peer: Callable[..., Peer]
) -> None:
    client_id = new_id()
    gc.disable()  # reference counts must suffice
    try:
        client = Client("127.0.0.1", server.port, client_id=client_id, key=KEY)
        with pytest.warns(ResourceWarning, match=client_id):
            del client
    finally:
        gc.enable()
    server.wait_for_log(client_id)
    peer(client_id)


def test_a_pipeline_keeps_its_client(fake: FakeServer) -> None:
    fake.behave(lambda conversation: conversation.connect().serve())
    client = Client("127.0.0.1", fake.port, client_id="alice", key=KEY)
    pipeline = client.pipeline().get("x")
    close = client.close
    del client
    assert pipeline.execute() == ["x"]
    close()


def test_a_client_says_what_it_is(fake: FakeServer, made: Callable[..., Client]) -> None:
    fake.behave(lambda conversation: conversation.connect().serve())
    client = made(fake.port)
    assert repr(client) == f"<kv.Client 'alice' at 127.0.0.1:{fake.port}>"
    assert not client.closed
    client.close()
    assert client.closed
    assert repr(client) == "<kv.Client 'alice' closed: close was called>"


def test_a_client_that_never_was_leaves_nothing_to_warn_of(server: Server) -> None:
    client_id = new_id()
    address = ("127.0.0.1", server.port)
    with Client(*address, client_id=client_id, key=KEY), warnings.catch_warnings():
        warnings.simplefilter("error")
        for wrong in (client_id, ""):
            with pytest.raises((ConnectRefused, ValueError)):
                Client(*address, key=KEY, client_id=wrong)
        gc.collect()


def test_the_library_logs_nothing_unless_it_is_asked_to(server: Server) -> None:
    program = (
        "import sys; from kv import Client\n"
        f"with Client(port={server.port}, client_id={new_id()!r}) as kv: kv['x'] = '1'\n"
        "import logging; logging.getLogger('kv').error('ours')\n"
    )
    done: Any = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
