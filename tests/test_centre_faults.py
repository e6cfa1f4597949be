"""Faults that sat between the parts of the centre, each with the small input that showed it.

On a real process where signals, the end of the process or its imports are the matter; otherwise in
the house, whose clock is moved by hand.
"""

import errno
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest
from conftest import ROOT, Server, wait_until
from house import VALUE, Guest, house
from patience import patience
from pitfalls.test_18_no_descriptors import lowest_free
from test_hostile import statistics
from test_server_process import asleep
from wire import Barrier, Peer

from kv.net import tcp
from kv.process import serve
from kv.protocol.conversation import ServerConversation
from kv.protocol.messages import Message, Reply, Wire
from kv.protocol.store import Store
from kv.server import Settings

StartServer = Callable[..., Server]
MakePeer = Callable[..., Peer]

# --- stopping --------------------------------------------------------------------------------


def test_what_the_kernel_has_taken_is_delivered_after_the_end_of_the_process(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server("--shutdown-timeout", "0.2")
    client = peer(port=server.port, small_buffers=True)
    client.send_text("PUT x", VALUE, *["GET x"] * 100)  # 43 KB of replies
    with closing(Barrier(server.port)) as barrier:
        barrier.wait(100)
    server.signal(signal.SIGTERM)
    assert server.wait() == 1  # nobody can know whether the rest arrives
    assert "1 connection cut short" in server.log().splitlines()[-1]
    assert client.read_texts_to_end() == ["PUT: OK", *[VALUE] * 100]


def test_a_reader_that_takes_its_time_is_not_reset_while_the_server_stops() -> None:
    with house() as h:
        guest = h.owed(320)
        h.server.stop(60)
        h.settle()
        for _ in range(20):  # 16,000 octets a second: 8.6 s in all, more than the linger deadline
            for _ in range(8):
                guest.take(2000)
                h.settle()
            h.wait(1)
        guest.read_on(323)
        assert guest.values == 320
        guest.socket.close()
        h.settle()
        assert not h.server.cut_short and not h.server.drops


def test_a_client_that_stalls_during_a_stop_is_counted() -> None:
    with house(stream={"stall_timeout": 5}) as h:
        h.owed(600)
        h.server.stop(60)
        h.settle()
        for _ in range(10):  # the kernels move the last octets in their own time
            h.wait(3)
        assert h.server.drops == {"stall": 1}
        assert h.server.cut_short == 1


@pytest.mark.parametrize(("last", "short"), [("GET unlucky", 1), ("DISCONNECT", 0)])
def test_a_client_whom_a_stop_finds_in_an_error_of_the_servers_is_counted(
    last: str, short: int
) -> None:
    with house() as h, executing(OSError(errno.EMFILE, "a mistake")):
        guest = h.guest().connect()
        guest.socket.sendall(guest.key.seal(last.encode()))
        h.server.stop(60)
        h.settle()
        assert h.server.cut_short == short


def asking(port: int, stack: ExitStack, client_id: str) -> Peer:
    """A client that has sent all it has to say before anybody answered."""
    client = stack.enter_context(Peer(port))
    client.send_raw(client.key.line + client.seal(f"CONNECT {client_id}") + client.seal("GET x"))
    return client


def answered(client: Peer) -> bool:
    """Whether it got its key line, its session and its reply, and then a polite end."""
    client.read_key()
    return client.read_texts_to_end() == ["CONNECT: OK", "GET: ERROR"]


def test_those_who_wait_to_be_accepted_when_the_signal_comes_are_answered(
    start_server: StartServer,
) -> None:
    server = start_server()
    with ExitStack() as stack:
        with asleep(server):
            clients = [asking(server.port, stack, str(number)) for number in range(200)]
            server.signal(signal.SIGTERM)
        assert all(map(answered, clients))
    assert server.wait() == 0


def test_those_who_wait_at_the_limit_when_the_signal_comes_are_answered(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server("--max-connections", "2")
    with ExitStack() as stack:
        for name in ("a", "b"):
            stack.enter_context(Peer(server.port)).handshake().connect(name)
        with asleep(server):
            clients = [asking(server.port, stack, str(number)) for number in range(20)]
            server.signal(signal.SIGTERM)
        assert all(map(answered, clients))
    assert server.wait() == 0


def test_those_for_whom_there_is_no_descriptor_at_a_stop_are_counted() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with house() as h, ExitStack() as stack:
        h.owed(600)  # keeps its descriptor to the end
        waiting = [stack.enter_context(socket.socket()) for _ in range(3)]
        for sock in waiting:
            sock.connect(("127.0.0.1", h.port))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), limits[1]))
        try:
            h.server.stop(5)
            h.settle()
            for _ in range(6):
                h.wait(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert not h.server.connections
        assert h.server.cut_short == 4


def test_a_deadline_that_passes_right_after_the_end_of_a_stop_finds_a_closed_socket() -> None:
    with house(idle_timeout=5) as h:
        h.owed(600)
        h.server.stop(4.9)
        h.settle()
        h.wait(5)  # a late loop runs both timers in one turn, the stop's first
        assert not h.server.connections
        assert (h.server.cut_short, h.server.drops) == (1, {})


# --- deadlines -------------------------------------------------------------------------------


def read_at(guest: Guest, octets: int, seconds: int) -> Iterator[int]:
    """Reads so many octets in each second; yields at the end of each."""
    for second in range(seconds):
        left = octets
        for _ in range(200):
            taken = guest.take(min(left, 2000))
            left -= taken
            guest.house.settle()
            if not left:
                break
            if not taken:
                select.select([guest.socket], [], [], 0.01)
        guest.house.wait(1)
        yield second


def test_a_reader_of_40_kb_a_second_is_not_stalled_after_two_seconds() -> None:
    with house(stream={"stall_timeout": 2}) as h:
        guest = h.owed(1000)
        for second in read_at(guest, 40_000, 8):
            assert not h.server.drops, f"after {second + 1} s"


def test_the_kernel_is_as_patient_as_the_stall_deadline() -> None:
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("needs TCP_USER_TIMEOUT")
    for stall, bound in ((2.0, 105_000), (60.0, 105_000), (600.0, 615_000), (1e9, 2**31 - 1)):
        with socket.socket() as sock:
            tcp.prepare(sock, stall)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == bound


def test_a_client_that_is_owed_replies_and_reads_them_is_not_idle() -> None:
    with house(idle_timeout=3) as h:
        guest = h.owed(3000)
        for _ in read_at(guest, 60_000, 30):
            assert not h.server.drops
            if guest.values == 3000:
                break
        assert guest.values == 3000
        h.wait(1)  # it has had the last of them for one second already
        assert not h.server.drops
        h.wait(3)
        assert h.server.drops == {"idle": 1}


# --- whose fault it is -----------------------------------------------------------------------


def executing(error: Exception) -> Any:
    """Replaces what the server does for a GET by a mistake of its own."""
    real = ServerConversation._execute

    def execute(self: ServerConversation, message: Message, argument: str) -> Reply:
        if argument == "unlucky":
            raise error
        return real(self, message, argument)

    return mock.patch.object(ServerConversation, "_execute", execute)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files", "/usr/lib/python3/some_module.py"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        TimeoutError("a time-out of something else"),
    ],
    ids=repr,
)
def test_an_oserror_that_is_not_from_the_peers_socket_is_the_servers_own_error(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with house() as h, executing(error):
        bad, good = h.guest().connect("bad"), h.guest().connect("good")
        bad.send("GET unlucky")
        assert bad.ended
        assert h.server.drops == {"error": 1}
        assert good.ask("GET k") == ["GET: ERROR"]
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "an error in this server" in record.getMessage()


def test_a_connection_that_is_dropped_and_then_lost_is_counted_once() -> None:
    with house() as h:
        guest = h.owed(600)
        guest.send("HELLO")
        guest.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, tcp.NO_LINGER)
        guest.socket.close()
        h.settle()
        assert sum(h.server.drops.values()) == 1


def test_a_selector_that_fails_ends_one_connection_and_leaves_no_descriptor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with house() as h:
        guest, other = h.guest(reads=False), h.guest().connect("other")
        guest.send_raw(guest.key.line).send("CONNECT owed", "PUT k", VALUE)
        stream = next(iter(h.server.connections)).stream
        real = h.selector.modify

        def modify(fileobj: Any, events: int, data: Any = None) -> Any:
            if fileobj is stream.transport.sock:
                h.selector.unregister(fileobj)  # as `selectors` does
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            return real(fileobj, events, data)

        with mock.patch.object(h.selector, "modify", modify):
            guest.send(*["GET k"] * 600)
        assert stream.transport.sock.fileno() < 0
        assert h.server.drops == {"error": 1}
        assert other.ask("GET k") == ["GET: ERROR"]


def test_a_mistake_at_the_end_of_a_connection_is_logged_and_ends_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = ServerConversation.close

    def close(self: ServerConversation) -> None:
        real(self)
        if self.client_id == "bad":
            raise ZeroDivisionError("division by zero")

    with house() as h:
        bad, good = h.guest().connect("bad"), h.guest().connect("good")
        with mock.patch.object(ServerConversation, "close", close):
            bad.socket.close()
            h.settle()
        assert len(h.server.connections) == 1
        assert good.ask("GET k") == ["GET: ERROR"]
    (error,) = (record.exc_info[1] for record in caplog.records if record.exc_info)
    assert isinstance(error, ZeroDivisionError)


# --- signals ---------------------------------------------------------------------------------


def blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT})


def test_signals_that_the_starter_has_blocked_come_all_the_same(
    start_server: StartServer,
) -> None:
    server = start_server(preexec_fn=blocked)
    assert statistics(server)["connections"].startswith("0 now")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_signals_that_the_starter_has_ignored_stay_ignored(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server(preexec_fn=ignored)
    client = peer(port=server.port)
    for number in (signal.SIGINT, signal.SIGHUP):
        server.signal(number)
        assert client.ask("GET x") == "GET: ERROR"
    assert "received" not in server.log()
    server.signal(signal.SIGTERM)
    assert client.read_to_end() == b""
    client.close()
    assert server.wait() == 0


def test_statistics_are_told_at_any_log_level(start_server: StartServer) -> None:
    server = start_server("--log-level", "error", listening=False)
    wait_until(lambda: caught(server, signal.SIGUSR1), "the server to listen for SIGUSR1")
    assert statistics(server)["connections"].startswith("0 now")


def test_who_asks_for_statistics_too_early_ends_nothing() -> None:
    def certificates() -> NoReturn:
        raise ValueError(repr(signal.getsignal(signal.SIGUSR1)))

    before = signal.getsignal(signal.SIGUSR1)
    try:
        with pytest.raises(ValueError, match="SIG_IGN"):
            serve("127.0.0.1", 0, Wire(), Settings(), Store(), 0, certificates)
    finally:
        signal.signal(signal.SIGUSR1, before)


def caught(server: Server, number: int) -> bool:
    """Whether the server's process has a handler for a signal. Linux only."""
    status = Path(f"/proc/{server.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc")
    found = re.search(r"SigCgt:\s*(\w+)", status.read_text())
    return bool(found and int(found[1], 16) >> (number - 1) & 1)


# --- what is lazy ----------------------------------------------------------------------------


def test_nothing_is_imported_once_the_server_listens(
    start_server: StartServer, tmp_path: Path
) -> None:
    """What is imported at its first use reads files, and may find no descriptor left (47)."""
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    server = start_server(env=environment)
    with Peer(server.port) as client, Peer(server.port) as bad, Peer(server.port) as stranger:
        client.handshake().connect("alice")
        client.send_text("PUT k", "v" * 250, "GET k", "GET k", "DELETE k", "CONNECT x")
        client.read_texts(5)
        bad.handshake().connect("bad").send_text("HELLO")
        bad.read_to_end()
        stranger.send_raw(b"rubbish\n")
        stranger.read_to_end()
        Peer(server.port).reset()
        statistics(server)
        assert client.ask("DISCONNECT") == "DISCONNECT: OK"
    assert server.stop() == 0
    before, _, after = server.log().partition("listening on")
    imported = re.compile(r"import time:.*\|\s*(\S+)$", re.M)
    assert imported.findall(before)
    assert imported.findall(after) == []


#: Logs an exception as a running server would, and says what had to be imported for that.
FIRST_TRACEBACK = """
import sys, kv.__main__, kv.process
log = kv.process.log
log.addHandler(kv.__main__.LogHandler(2))
before = set(sys.modules)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("an error")
print(*set(sys.modules) - before)
"""


def test_the_first_traceback_imports_nothing() -> None:
    command = [sys.executable, "-c", FIRST_TRACEBACK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience())
    assert "ZeroDivisionError" in done.stderr
    assert done.stdout.split() == []
