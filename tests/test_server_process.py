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


def test_a_port_that_is_asked_for_is_the_port(start_server: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    assert start_server("--port", str(port)).port == port


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


def assert_one_line_and_status(result: Any, status: int) -> str:
    """The process ended with `status` after one line on standard error; that line."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return str(line)


def test_a_port_in_use_is_one_clear_line_and_status_1(server: Server, run_kv: RunKv) -> None:
    line = assert_one_line_and_status(run_kv("server", "--port", str(server.port)), 1)
    assert str(server.port) in line
    assert "in use" in line


@pytest.mark.parametrize("host", ["nosuch.invalid", "203.0.113.1", "a..b", "1.2.3.4.5"])
def test_a_bad_address_is_one_clear_line_and_status_1(run_kv: RunKv, host: str) -> None:
    line = assert_one_line_and_status(run_kv("server", "--host", host, "--port", "0"), 1)
    assert host in line


@pytest.mark.parametrize(
    "options",
    [
        ["--port", "x"],
        ["--key-bits", "80000000000"],
    ],
    ids=" ".join,
)
def test_a_bad_option_is_usage_and_status_2(run_kv: RunKv, options: list[str]) -> None:
    result = run_kv("server", *options)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("usage: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--key-bits", "4096"],
        ["--receive-buffer-size", "512"],
        ["--key-bits", "1024", "--receive-buffer-size", "1024"],
        # Here a key fits, but not each of the fixed replies.
        ["--key-bits", "128", "--receive-buffer-size", "393"],
        ["--key-bits", "136", "--receive-buffer-size", "393"],
        ["--key-bits", "128", "--receive-buffer-size", "329"],
    ],
    ids=" ".join,
)
def test_a_key_that_does_not_fit_in_a_line_is_refused_at_start(
    run_kv: RunKv, options: list[str]
) -> None:
    result = run_kv("server", "--port", "0", *options)
    assert result.returncode == 2, result.stderr
    assert "listening" not in result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert "bits" in last and "does not fit" in last


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


def test_the_ipv4_wildcard_serves_the_loopback(
    start_server: StartServer, connect: MakePeer
) -> None:
    server = start_server("--host", "0.0.0.0")
    connect(server.port).handshake().connect("a")


def with_patch(directory: Path, code: str) -> dict[str, Any]:
    """Arguments of Popen with which the interpreter runs `code` before the program."""
    (directory / "sitecustomize.py").write_text(code)
    return {"env": {**os.environ, "PYTHONPATH": str(directory)}}


def test_localhost_gets_a_listener_for_each_of_its_addresses(
    start_server: StartServer, connect: MakePeer
) -> None:
    found = socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)
    hosts = {address[0] for _, _, _, _, address in found} - (set() if has_ipv6() else {"::1"})
    server = start_server("--host", "localhost")
    wait_until(lambda: len(server.ports) == len(hosts), f"a listener for each of {hosts}")
    for host in hosts:
        connect(server.port, host=host).handshake().connect(str(host))


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


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_with_nobody_connected_ends_the_server_with_status_0(
    start_server: StartServer, number: int
) -> None:
    server = start_server()
    server.signal(number)
    assert server.wait() == 0


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


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_with_an_idle_session_ends_the_server_once_the_client_closes(
    start_server: StartServer, peer: MakePeer, number: int
) -> None:
    server = start_server("--shutdown-timeout", "60")
    client = peer(port=server.port)
    server.signal(number)
    assert client.read_to_end() == b""
    client.close()
    assert server.wait() == 0


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


def test_a_stopping_server_accepts_nobody(start_server: StartServer, peer: MakePeer) -> None:
    server = start_server()
    client = peer(port=server.port)
    server.signal(signal.SIGTERM)
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
        one.send_text(*["GET nothing"] * 1000)
        two.send_text("PUT x", "v" * LONGEST_TEXT, *["GET x"] * 50, "DELETE x", "GET x")
        two.send_raw(two.seal("GET x")[:-1])  # incomplete
        server.signal(number)
    assert one.read_texts_to_end() == ["GET: ERROR"] * 1000
    expected = ["PUT: OK", *["v" * LONGEST_TEXT] * 50, "DELETE: OK", "GET: ERROR"]
    assert two.read_texts_to_end() == expected
    one.close()
    two.close()
    assert server.wait() == 0


def test_what_a_half_closed_client_had_sent_when_the_signal_came_is_answered(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server()
    client = peer(port=server.port)
    with asleep(server):
        client.send_text(*["GET nothing"] * 1000)
        client.half_close()
        server.signal(signal.SIGTERM)
    assert client.read_texts_to_end() == ["GET: ERROR"] * 1000
    client.close()
    assert server.wait() == 0


def test_what_arrives_after_a_violation_is_not_answered_because_the_server_stops(
    start_server: StartServer, peer: MakePeer
) -> None:
    server = start_server()
    client = peer(port=server.port)
    with asleep(server):
        client.send_text(*["GET nothing"] * 10, "HELLO", *["GET nothing"] * 10)
        server.signal(signal.SIGTERM)
    assert client.read_texts_to_end() == ["GET: ERROR"] * 10
    client.close()
    assert server.wait() == 0


@pytest.mark.parametrize("second", SIGNALS)
def test_a_signal_that_arrives_twice_at_once_is_one_signal(
    start_server: StartServer, peer: MakePeer, second: int
) -> None:
    server = start_server()
    client = peer(port=server.port)
    with asleep(server):
        client.send_text(*["GET nothing"] * 1000)
        server.signal(signal.SIGTERM)
    server.signal(second)
    server.signal(second)
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
