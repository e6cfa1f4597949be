"""Servers that mean harm, seen through `python -m kv client`: in a pipe, and in a terminal.

Whatever they do, the client ends by itself, within its time-out, with a sentence and status 3.
"""

import contextlib
from collections.abc import Callable

import pytest
from fake import Conversation, FakeServer
from test_shell_pipe import Client
from test_shell_terminal import Terminal
from wire import KEY, OTHER_KEY

Behaviour = Callable[[Conversation], object]


def answer(octets: bytes, end: str = "drain") -> Behaviour:
    """Connects, reads `GET x`, says `octets`, and ends."""

    def behave(conversation: Conversation) -> None:
        conversation.connect().read_text()
        with contextlib.suppress(OSError):
            conversation.send_raw(octets)
            getattr(conversation, end)()

    return behave


def flood(conversation: Conversation) -> None:
    conversation.connect().read_text()
    with contextlib.suppress(OSError):
        while True:
            conversation.reply(*["here"] * 1000)


def mute(conversation: Conversation) -> None:
    with contextlib.suppress(OSError):
        conversation.drain()


def half_key(conversation: Conversation) -> None:
    conversation.send_raw(KEY.line[:50])
    mute(conversation)


REPLY = KEY.seal(b"here")
HOSTILE: dict[str, tuple[Behaviour, str]] = {
    "never answers": (answer(b""), "did not reply for 0.5 s"),
    "says nothing at all": (mute, "did not reply for 0.5 s"),
    "says half a key": (half_key, "did not reply for 0.5 s"),
    "floods": (flood, "'here' without a command"),
    "half-closes": (answer(b"", "half_close"), "the server closed the connection"),
    "closes in a reply": (answer(REPLY[:40], "close"), "the server closed the connection"),
    "resets in a reply": (answer(REPLY[:40], "reset"), "onnection reset"),
    "another key": (answer(OTHER_KEY.seal(b"here")), "connection lost"),
    "a line too long": (answer(b"A" * 600), "more than 511 octets"),
    "a line without end": (answer(b"A" * 511), "more than 511 octets"),
}


def timeout(said: str) -> tuple[str, ...]:
    """Options for a client that has to say so: what is not about the time has all of it."""
    return ("--timeout", "0.5") if "0.5 s" in said else ()


@pytest.mark.parametrize("name", HOSTILE)
def test_in_a_pipe_the_client_ends_by_itself(fake: FakeServer, name: str) -> None:
    behaviour, said = HOSTILE[name]
    fake.behave(behaviour)
    client = Client(fake.port, *timeout(said))
    try:
        client.type("GET x\n")
        status = client.wait()  # its input stays open
        _, notices, _ = client.end()
    finally:
        client.process.kill()
        client.process.wait()
    assert status == 3 and said in notices and notices.count("\n") == 1


@pytest.mark.parametrize("name", ["never answers", "floods", "resets in a reply"])
def test_in_a_terminal_the_client_ends_by_itself(fake: FakeServer, name: str) -> None:
    behaviour, said = HOSTILE[name]
    fake.behave(behaviour)
    with contextlib.closing(Terminal(fake.port, *timeout(said))) as terminal:
        terminal.press(b"GET x\n")
        text, status = terminal.end()
    assert status == 3 and said in text


def test_a_flood_of_replies_to_a_raw_client_waits_until_they_are_read(fake: FakeServer) -> None:
    """Nobody reads the client's output; what the server can send is what buffers hold."""
    client = Client(fake.port, "--raw")
    sent = 0
    line = KEY.seal(b"\0" * 265)
    chunk = line * 100
    try:
        conversation = fake.accept().connect()
        conversation.socket.settimeout(0.5)  # nothing taken for so long: it is held back
        with contextlib.suppress(TimeoutError):
            while sent < 64 * 1024 * 1024:
                sent += conversation.socket.send(chunk)
        assert sent < 16 * 1024 * 1024
        conversation.close()
        out, _, _ = client.end()  # once it is read, all that was sent comes
        assert out.count("\n") == sent // len(line)
    finally:
        client.process.kill()
        client.process.communicate()
