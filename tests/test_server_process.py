"""The server as a program: its command line, its addresses, its signals, its end."""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, wait_until
from wire import LONGEST_TEXT, Barrier, Peer

MakePeer = Callable[..., Peer]
StartServer = Callable[..., Server]
RunKv = Callable[..., Any]

SIGNALS = [signal.SIGTERM, signal.SIGINT]
GETS = ["GET nothing"] * 1000


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


# --- starting --------------------------------------------------------------------------------


def test_port_0_takes_a_free_port_and_logs_the_real_one(start_server: StartServer) -> None:
    one, two = start_server(), start_server()
    for server in (one, two):
        Peer(server.port).handshake().close()
        listening, arithmetic = server.log().splitlines()[:2]
        assert re.search(r"listening on 127\.0\.0\.1:\d+$", listening)
        assert re.search(r"arithmetic: (pure Python|gmpy2 [\d.]+)$", arithmetic)
    assert one.port != two.port


def test_a_port_can_be_taken_again_right_after_a_server_with_clients_ended(
    start_server: StartServer, peer: MakePeer
) -> None:
    first = start_server()
    client = peer(port=first.port)
    first.signal(signal.SIGTERM)
    assert client.read_to_end() == b""  # the server closed first: its end is in TIME_WAIT
    client.close()
    assert first.wait() == 0
    assert start_server("--port", str(first.port)).port == first.port


def test_every_server_has_a_new_key(start_server: StartServer, connect: MakePeer) -> None:
    keys = {connect(start_server(afresh=True).port).handshake().server_key for _ in range(2)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "nosuch.invalid", "203.0.113.1", "a..b", "1.2.3.4.5"]
)
def test_an_address_that_cannot_be_had_is_one_clear_line_and_status_1(
    server: Server, run_kv: RunKv, host: str
) -> None:
    result = run_kv("server", "--host", host, "--port", str(server.port))
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert host in line and str(server.port) in line
    assert ("in use" in line) == (host == "127.0.0.1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--port x", "invalid port value: 'x'"),
        ("--key-bits 80000000000", "use a multiple of 8 from 128 to 4096"),
        ("--key-bits 1024 --receive-buffer-size 1024", "does not fit"),
        # Here a key fits, but not each of the fixed replies.
        ("--key-bits 136 --receive-buffer-size 393", "does not fit"),
    ],
)
def test_what_cannot_be_is_refused_at_start_with_status_2(
    run_kv: RunKv, options: str, message: str
) -> None:
    result = run_kv("server", "--port", "0", *options.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: ")
    assert message in result.stderr.splitlines()[-1]
    assert "listening" not in result.stderr and "Traceback" not in result.stderr


# --- what is said at the start ----------------------------------------------------------------


def test_settings_that_let_clients_make_others_wait_are_warned_of(
    start_server: StartServer,
) -> None:
    """A message of thousands of blocks; a hash whose collisions can be chosen."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    warned = start_server("--receive-buffer-size", "4000000", env=environment)
    warned.wait_for_log("PYTHONHASHSEED")
    wait, collide = warned.log_lines("WARNING")
    assert re.search(r"one message can take \d{3,} ms, and everybody waits", wait)
    assert "PYTHONHASHSEED=0: clients can choose keys that make the store slow" in collide


# --- addresses -------------------------------------------------------------------------------


@needs_ipv6
def test_an_ipv6_host_is_logged_in_brackets(start_server: StartServer, connect: MakePeer) -> None:
    server = start_server("--host", "::1")
    assert f"listening on [::1]:{server.port}\n" in server.log()
    assert connect(server.port, host="::1").handshake().connect("a").ask("PUT x", "y") == "PUT: OK"


@needs_ipv6
def test_the_ipv6_wildcard_serves_ipv4_too(start_server: StartServer, connect: MakePeer) -> None:
    server = start_server("--host", "::")
    assert server.log_lines("listening on") == server.log_lines(f"listening on [::]:{server.port}")
    for host in ("::1", "127.0.0.1"):
        client = connect(server.port, host=host).handshake().connect(host)
        assert client.ask("PUT x", "y") == "PUT: OK"


def with_patch(directory: Path, code: str) -> dict[str, Any]:
    """Arguments of Popen with which the interpreter runs `code` before the program."""
    (directory / "sitecustomize.py").write_text(code)
    return {"env": {**os.environ, "PYTHONPATH": str(directory)}}


#: A machine whose `localhost` has two addresses; not every one is.
TWO_ADDRESSES = """
import socket
original = socket.getaddrinfo
def both(host, port, *args, **options):
    hosts = ("::1", "127.0.0.1") if host == "localhost" else (host,)
    return [found for host in hosts for found in original(host, port, *args, **options)]
socket.getaddrinfo = both
"""


@needs_ipv6
def test_a_name_with_several_addresses_gets_a_listener_for_each_on_one_port(
    start_server: StartServer, connect: MakePeer, tmp_path: Path
) -> None:
    server = start_server("--host", "localhost", **with_patch(tmp_path, TWO_ADDRESSES))
    wait_until(lambda: len(server.ports) == 2, "two listeners")
    assert set(server.ports) == {server.port}
    for host, shown in (("::1", "[::1]"), ("127.0.0.1", "127.0.0.1")):
        assert len(server.log_lines(f"listening on {shown}:{server.port}")) == 1
        connect(server.port, host=host).handshake().connect(host)


# --- stopping --------------------------------------------------------------------------------


#: A signal that comes the very moment `listening on` can be read.
SIGNAL_AT_ONCE = """
import os
original = os.write
def write(descriptor, data):
    count = original(descriptor, data)
    if b"listening on" in data:
        os.kill(os.getpid(), {})
    return count
os.write = write
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_as_soon_as_the_server_listens_ends_it_with_status_0(
    start_server: StartServer, tmp_path: Path, number: int
) -> None:
    patch = with_patch(tmp_path, SIGNAL_AT_ONCE.format(int(number)))
    server = start_server(listening=False, **patch)
    assert server.wait() == 0
    assert "listening on" in server.log()


def test_a_signal_with_a_client_that_has_not_even_sent_its_key_ends_the_server_with_status_0(
    start_server: StartServer, connect: MakePeer
) -> None:
    server = start_server()
    silent, halfway = connect(server.port), connect(server.port)
    halfway.send_raw(halfway.key.line[:20])
    Barrier(server.port).close()  # so both have been accepted
    server.signal(signal.SIGTERM)
    for client in (silent, halfway):
        assert client.read_to_end() == b""
        client.close()
    assert server.wait() == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stopping_server_accepts_nobody_and_ends_once_its_client_closes(
    start_server: StartServer, peer: MakePeer, number: int
) -> None:
    server = start_server("--shutdown-timeout", "60")
    client = peer(port=server.port)
    server.signal(number)
    assert client.read_to_end() == b""
    with pytest.raises(ConnectionRefusedError):
        Peer(server.port)
    client.close()
    assert server.wait() == 0


@contextlib.contextmanager
def asleep(server: Server) -> Any:
    """The server's process is stopped meanwhile: what happens to it, happens at one moment."""
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGHUP])
def test_every_message_that_had_arrived_when_the_signal_came_is_answered(
    start_server: StartServer, peer: MakePeer, number: int
) -> None:
    server = start_server()
    one, two = peer(port=server.port), peer(port=server.port)
    with asleep(server):
        one.send_text(*GETS)
        two.send_text("PUT x", "v" * LONGEST_TEXT, *["GET x"] * 50, "DELETE x", "GET x")
        two.send_raw(two.seal("GET x")[:-1])  # incomplete
        server.signal(number)
    assert one.read_texts_to_end() == ["GET: ERROR"] * 1000
    expected = ["PUT: OK", *["v" * LONGEST_TEXT] * 50, "DELETE: OK", "GET: ERROR"]
    assert two.read_texts_to_end() == expected
    one.close()
    two.close()
    assert server.wait() == 0


@pytest.mark.parametrize(
    ("said", "half_closed", "again"),
    [
        (GETS, True, ()),
        ([*GETS, "HELLO", *GETS], False, ()),  # after a violation, nothing is answered
        (GETS, False, (signal.SIGTERM,) * 2),  # which is one signal
        (GETS, False, (signal.SIGINT,) * 2),
    ],
    ids=["half-close", "violation", "SIGTERM again", "SIGINT too"],
)
def test_what_had_arrived_when_sigterm_came_is_answered_and_no_more(
    start_server: StartServer,
    peer: MakePeer,
    said: list[str],
    half_closed: bool,
    again: tuple[int, ...],
) -> None:
    server = start_server()
    client = peer(port=server.port)
    with asleep(server):
        client.send_text(*said)
        if half_closed:
            client.half_close()
        server.signal(signal.SIGTERM)
    for number in again:
        server.signal(number)
    assert client.read_texts_to_end() == ["GET: ERROR"] * 1000
    client.close()
    assert server.wait() == 0


def owe_more_than_is_read(server: Server, peer: MakePeer) -> Peer:
    """A client to which the server has more replies to send, 130 KB, than it can."""
    client = peer(port=server.port, small_buffers=True)
    client.send_text("PUT x", "v" * LONGEST_TEXT, *["GET x"] * 300)
    with contextlib.closing(Barrier(server.port)) as barrier:
        barrier.wait(300)
    return client


def test_replies_cut_short_are_counted_in_a_line_and_the_status_is_1(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server("--shutdown-timeout", "0.2")
    for _ in range(2):
        owe_more_than_is_read(server, peer)
    server.signal(signal.SIGTERM)
    assert server.wait() == 1
    last = server.log().splitlines()[-1]
    assert re.search(r"\b2\b.*cut short", last)


def test_a_slow_reader_gets_every_reply_before_the_server_ends(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server("--shutdown-timeout", "60")
    client = owe_more_than_is_read(server, peer)
    server.signal(signal.SIGTERM)
    server.wait_for_log("SIGTERM")
    assert client.read_texts_to_end() == ["PUT: OK", *["v" * LONGEST_TEXT] * 300]
    client.close()
    assert server.wait() == 0


def test_a_client_that_has_everything_and_only_does_not_close_is_not_cut_short(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server("--shutdown-timeout", "0.2")
    client = peer(port=server.port)
    server.signal(signal.SIGTERM)
    assert client.read_to_end() == b""
    assert server.wait() == 0


def test_signals_that_come_while_it_ends_change_nothing(start_server: StartServer) -> None:
    server = start_server()
    for _ in range(500):
        server.signal(signal.SIGTERM)
        if server.process.poll() is not None:
            break
        time.sleep(0.0005)
    assert server.wait() == 0


@pytest.mark.parametrize(("first", "further"), [SIGNALS])
def test_a_further_signal_a_second_later_ends_the_server_at_once(
    start_server: StartServer, peer: MakePeer, first: int, further: int
) -> None:
    server = start_server("--shutdown-timeout", "3600")
    owe_more_than_is_read(server, peer)
    server.signal(first)
    server.wait_for_log(signal.Signals(first).name)  # it has seen the first one
    second_later = time.monotonic() + 1.05
    wait_until(lambda: time.monotonic() >= second_later, "a second to pass")
    assert server.process.poll() is None
    server.signal(further)
    assert server.wait() == 128 + further


def test_standard_output_stays_empty_and_standard_error_has_the_log(
    start_server: StartServer, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    with output.open("wb") as stdout:
        server = start_server(stdout=stdout, env=environment)
        assert server.stop() == 0
    assert output.read_bytes() == b""
    assert "INFO" in server.log() and "WARNING" not in server.log()
