"""The examples do what they say, as programs of their own, and are as short as they claim."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from ladder.server import Client, Server

HERE = Path(__file__).resolve().parent


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The example that the test is about."""
    with Server(f"-m tests.examples.{request.param}", word="ok") as running:
        yield running


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", [name], indirect=True)


@pytest.mark.parametrize("path", [HERE / "echo.py", HERE / "chat.py"], ids=lambda path: path.stem)
def test_an_example_is_under_fifty_lines_and_on_kv_net_alone(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < 50
    assert "from kv." in text and text.count("from kv.") == text.count("from kv.net.")


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
