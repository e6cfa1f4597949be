"""The examples do what they say, as programs of their own, and are as short as they claim."""

import re
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from ladder.grid import descriptors, lines_of_code, tried
from ladder.server import ROOT, Client, Server
from ladder.troupe import TROUPE, Peer
from patience import patience

HERE = Path(__file__).resolve().parent


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The example that the test is about."""
    with Server(f"-m tests.examples.{request.param}", word="ok") as running:
        yield running


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", [name], indirect=True)


COURSE = " ".join((ROOT / "kv/README.md").read_text().split())


def length(name: str) -> int:
    """The lines of code of an example, imports left out."""
    return lines_of_code((HERE / f"{name}.py").read_text())


@pytest.mark.parametrize("name", ["echo", "chat", "pool"])
def test_an_example_is_on_kv_net_alone(name: str) -> None:
    text = (HERE / f"{name}.py").read_text()
    assert "from kv." in text and text.count("from kv.") == text.count("from kv.net.")


def test_the_course_says_how_short_the_examples_are() -> None:
    assert f"is an echo server in {length('echo')} lines of code, and" in COURSE
    assert f"a chat in {length('chat')}." in COURSE
    assert length("echo") <= 10 and length("chat") <= 25


def without_comments(text: str) -> list[str]:
    return [line.partition("  #")[0].strip() for line in text.splitlines() if line.strip()]


def test_the_code_that_the_course_quotes_is_that_of_the_examples() -> None:
    quoted = re.findall(r"^```python\n(.*?)^```", (ROOT / "kv/README.md").read_text(), re.M | re.S)
    sources = "\n".join(path.read_text() for path in HERE.glob("*.py"))
    assert quoted and set(without_comments("\n".join(quoted))) <= set(without_comments(sources))


@of("echo")
def test_every_line_comes_back_however_it_was_cut(server: Server) -> None:
    with server.client() as client:
        for piece in (b"one l", b"ine\n\ntwo", b" lines\nand half"):
            client.send(piece)
            client.settle()
        assert client.lines(3) == [b"one line", b"", b"two lines"]
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest() == [b"one line", b"", b"two lines"]  # and no half a line


@of("echo")
def test_many_lines_come_back_to_a_slow_reader(server: Server) -> None:
    lines = [b"%d" % number for number in range(10_000)]
    with server.client(small=True) as client:
        client.send(b"\n".join([*lines, b""]))
        client.settle()
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest() == lines


def joined(server: Server, name: bytes) -> Client:
    """Somebody who is there, and has heard so."""
    guest = server.client()
    guest.send(name + b"\n")
    assert guest.lines(1) == [b"* %s is here" % name]
    return guest


@of("chat")
def test_a_line_goes_to_all_who_are_there_and_everybody_hears_who_leaves(server: Server) -> None:
    with joined(server, b"alice") as alice, joined(server, b"bob") as bob:
        assert alice.lines(2)[1] == b"* bob is here"
        bob.send(b"hello\nand\n")
        assert alice.lines(4)[2:] == bob.lines(3)[1:] == [b"bob: hello", b"bob: and"]
        bob.sock.shutdown(socket.SHUT_WR)
        assert alice.lines(5)[4] == b"* bob has left"
        assert bob.rest()[-1] == b"bob: and"


@of("chat")
def test_who_is_reset_has_left(server: Server) -> None:
    with joined(server, b"alice") as alice:
        bob = joined(server, b"bob")
        bob.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        bob.close()
        assert alice.lines(3)[1:] == [b"* bob is here", b"* bob has left"]


@of("chat")
def test_nobody_waits_for_one_who_does_not_read(server: Server) -> None:
    with joined(server, b"alice") as alice, server.client(small=True) as bob:
        bob.send(b"bob\n")
        assert alice.lines(2)[1] == b"* bob is here"
        for said in range(10_000):
            alice.send(b"x" * 400 + b"\n")
            if b"* bob has left" in alice.lines(3 + said):
                return
        raise AssertionError("bob is still there")


@of("pool")
def test_a_slow_reply_delays_its_own_client_only_and_replies_stay_in_order(server: Server) -> None:
    with server.client() as slow, server.client() as other:
        slow.send(b"2000000\n1\n")  # the second would be ready long before the first
        other.send(b"1\n")
        first = other.lines(1)
        assert not slow.readable()
        replies = slow.lines(2)
        assert replies[1:] == first and replies[0] != first[0]


@of("pool")
def test_who_leaves_before_the_reply_harms_nobody(server: Server) -> None:
    with server.client() as client:
        client.send(b"300000\n")
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with server.client() as client, server.client() as half_closer:
        half_closer.send(b"300000\n2\n")
        half_closer.sock.shutdown(socket.SHUT_WR)
        client.send(b"2\n")
        assert client.lines(1) == half_closer.rest()[1:]


@of("pool")
@pytest.mark.parametrize("line", [b"300000\n" + b"x" * 40, b"no number\n", b"-1\n"])
def test_neither_a_long_line_nor_a_failed_computation_ends_the_loop(
    server: Server, line: bytes
) -> None:
    with server.client() as client, server.client() as other:
        client.send(line)
        assert len(client.rest()) == line.startswith(b"300000")  # it was owed before the long line
        other.send(b"300001\n")  # its reply comes after the other's would
        assert len(other.lines(1)) == 1
    server.signal(signal.SIGTERM)
    assert server.status(patience(2)) == 0


@pytest.mark.parametrize("name", ["echo", "pool"])
def test_an_example_ends_gracefully(name: str) -> None:
    with Server(f"-m tests.examples.{name}", word="ok") as server, server.client() as client:
        client.send(b"1\n")
        client.lines(1)
        server.settle()
        with server.stopped():
            client.send(b"2\n3\n")
            server.signal(signal.SIGTERM)
        assert len(client.rest()) == 3
        client.close()
        assert server.status(patience(2)) == 0


@pytest.mark.parametrize("peer", TROUPE, ids=lambda peer: peer.name)
def test_the_ladders_server_with_coroutines_survives_everybody(peer: Peer) -> None:
    with descriptors():
        cell = tried("-m tests.examples.awaiting", peer, "ok")
    assert cell.word == "ok", cell.told


def test_what_await_needs_is_twenty_lines_and_an_awaited_line_as_many() -> None:
    assert length("coroutines") <= 40
    needed = lines_of_code((HERE / "coroutines.py").read_text().partition("class Lines")[0])
    assert needed == length("coroutines") - needed == 20
    assert "`Future` and `Task` have twenty lines" in COURSE
    assert "connects them with a stream in twenty more" in COURSE


def test_a_coroutine_goes_on_inside_the_call_that_brings_its_line() -> None:
    with Server("-m tests.examples.awaiting", word="ok", arguments=(60, "trace")) as server:
        with server.client() as client:
            client.send(b"hello\n")
            assert client.lines(1) == [b"1 HELLO"]
        server.signal(signal.SIGTERM)
        assert server.status(patience(2)) == 0
        told = server.said()
    assert "> _hand_over > lines_received > line_received > set > step > serve" in told
    assert "#1        recv     6 of 16384 octets" in told
