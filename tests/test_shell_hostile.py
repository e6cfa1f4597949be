"""Servers that mean harm, seen through `python -m kv client`: in a pipe, and in a terminal.

Whatever they do, the client ends by itself, within its time-out, with a sentence and status 3.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from fake import Conversation, FakeServer
from patience import patience
from pitfalls.in_process import Pipe, client, turn
from pitfalls.pitfall import bounded
from test_shell_pipe import Client
from test_shell_terminal import Terminal
from wire import KEY, OTHER_KEY, der_public_key, to_line

from kv.__main__ import run_client
from kv.options import parser
from kv.protocol.messages import Wire
from kv.shell import Shell

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


def opens(octets: bytes) -> Behaviour:
    """Says `octets` in place of a key line, and nothing more."""
    return lambda conversation: (conversation.send_raw(octets), mute(conversation))


REPLY = KEY.seal(b"here")
SHORT_KEY = to_line(der_public_key(KEY.n >> 8, KEY.e))
MUTE = "the server did not reply for 0.5 s"
CLOSED = "the server closed the connection"
TOO_LONG = "the server sent a line of more than 511 octets"
#: Before and after CONNECT is answered: what the server does, and how the client's notice goes on.
CONNECTING: dict[str, tuple[Behaviour, str]] = {
    "says nothing at all": (mute, f"{MUTE}\n"),
    "says half a key": (opens(KEY.line[:50]), MUTE),
    "another key size": (opens(SHORT_KEY), "the key is not one of 512 bits"),
    "closes at once": (Conversation.close, ""),
    "closes after its key": (lambda server: server.handshake().close(), ""),
}
CONNECTED: dict[str, tuple[Behaviour, str]] = {
    "never answers": (answer(b""), MUTE),
    "floods": (flood, "the server sent 'here' without a command"),
    "half-closes": (answer(b"", "half_close"), CLOSED),
    "closes in a reply": (answer(REPLY[:40], "close"), CLOSED),
    "resets in a reply": (answer(REPLY[:40], "reset"), "Connection reset"),
    "closes when all is said": (answer(REPLY, "close"), CLOSED),
    "resets when all is said": (answer(REPLY, "reset"), "Connection reset"),
    "another key": (answer(OTHER_KEY.seal(b"here")), "a block"),
    "no line of the protocol": (answer(b"garbage\x1b\n"), "the line is not base64"),
    "control characters": (answer(REPLY + KEY.seal(b"\x1b[2J\r")), "the server sent '\\x1b[2J\\r'"),
    "a line too long": (answer(b"A" * 600), TOO_LONG),
    "a line without end": (answer(b"A" * 511), TOO_LONG),
}
HOSTILE = {
    **{name: (does, f"cannot connect: {said}") for name, (does, said) in CONNECTING.items()},
    **{name: (does, f"connection lost: {said}") for name, (does, said) in CONNECTED.items()},
}


def timeout(said: str) -> tuple[str, ...]:
    """Options for a client that has to say so: what is not about the time has all of it."""
    return ("--timeout", "0.5") if "0.5 s" in said else ()


@pytest.mark.parametrize("name", HOSTILE)
def test_in_a_pipe_the_client_ends_by_itself(fake: FakeServer, name: str) -> None:
    behaviour, said = HOSTILE[name]
    fake.behave(behaviour)
    with contextlib.closing(Client(fake.port, *timeout(said))) as program:
        program.type("GET x\n")
        status = program.wait()  # its input stays open
        out, notices, _ = program.end()
    assert status == 3 and notices.startswith(said), notices
    assert notices[-1] == "\n" and notices[:-1].isprintable()
    assert out == ("here\n" if "line 1 was the last that was answered" in notices else "")


@pytest.mark.parametrize("name", ["never answers", "floods", "resets in a reply"])
def test_in_a_terminal_the_client_ends_by_itself(fake: FakeServer, name: str) -> None:
    behaviour, said = HOSTILE[name]
    fake.behave(behaviour)
    with contextlib.closing(Terminal(fake.port, *timeout(said))) as terminal:
        terminal.press(b"GET x\n")
        text, status = terminal.end()
    assert status == 3 and said in text


@pytest.mark.parametrize(
    ("closes", "reason"),
    [
        (False, "the server did not take all that is sent to it for 10 s"),
        (True, "the server closed the connection"),  # which is told at once
    ],
)
def test_a_server_that_answers_and_takes_nothing_is_left(
    tmp_path: Path, closes: bool, reason: str
) -> None:
    """No reply is owed, but what was sent is not taken: something is owed all the same."""
    script = tmp_path / "script"
    script.write_text("GET x\n" * 100_000)  # 9 MB when sealed: more than all buffers hold
    with script.open("rb") as source, Pipe() as output, Pipe() as notices:
        with (
            bounded(patience()),
            client(source.fileno(), output.sink, notices.sink) as (shell, server),
        ):
            answered = 0
            turn(shell, lambda: not shell._link.idle)
            while owed := shell._link._conversation.awaiting:
                answered += len(owed)
                server.reply(*["here"] * len(owed))
                turn(shell, lambda last=answered: shell._order.answered == last)
                os.read(output.source, 65536)
            if closes:
                server.half_close()
            else:
                shell._reactor.time.now += 10.0  # type: ignore[attr-defined]
            turn(shell, lambda: shell._status)
        said = os.read(notices.source, 1000).decode()
    assert shell._status == 3
    assert said == (
        f"connection lost: {reason}; line {answered} was the last that was answered,"
        " none after it were sent\n"
    )


def test_no_time_runs_while_the_output_is_not_read(tmp_path: Path) -> None:
    """Whoever holds the server up cannot complain that it does not come to an end."""
    script = tmp_path / "script"
    script.write_text("GET x\n")
    with (
        script.open("rb") as source,
        Pipe() as output,
        Pipe() as notices,
        bounded(patience()),
        client(source.fileno(), output.sink, notices.sink, raw=True) as (shell, server),
    ):
        turned(shell)
        assert server.read_text() == "GET x"
        replies = 0
        while not shell._link._held:
            server.reply(*["v" * 265] * 50)
            replies += 50
            turned(shell)
        shell._reactor.time.now += 100.0  # type: ignore[attr-defined]
        turned(shell)
        assert shell._status is None
        server.half_close()
        lines = 0
        while lines < replies:
            turned(shell)
            lines += os.read(output.source, 65536).count(b"\n")
        turn(shell, lambda: shell._status is not None)
    assert shell._status == 0


def turned(shell: Shell) -> None:
    """Ten turns of the loop, which never sleeps."""
    for _ in range(10):
        shell._reactor.turn()


def test_a_flood_of_replies_to_a_raw_client_waits_until_they_are_read(fake: FakeServer) -> None:
    """Nobody reads the client's output; what the server can send is what buffers hold."""
    sent = 0
    line = KEY.seal(b"\0" * 265)
    chunk = line * 100
    with contextlib.closing(Client(fake.port, "--raw")) as program:
        conversation = fake.accept().connect()
        conversation.socket.settimeout(0.5)  # nothing taken for so long: it is held back
        with contextlib.suppress(TimeoutError):
            while sent < 64 * 1024 * 1024:
                sent += conversation.socket.send(chunk)
        assert sent < 16 * 1024 * 1024
        conversation.close()
        out, _, _ = program.end()  # once it is read, all that was sent comes
        assert out.count("\n") == sent // len(line)


@pytest.mark.parametrize("call", ["kv.shell.Reactor", "kv.net.reactor.socket.socketpair"])
def test_a_loop_that_gets_no_descriptors_is_a_sentence(
    capfd: pytest.CaptureFixture[str], call: str
) -> None:
    options = parser().parse_args(["client", "--port", "1"])
    with mock.patch(call, side_effect=OSError(errno.EMFILE, "Too many open files")):
        assert run_client(options, Wire()) == 3
    assert capfd.readouterr().err == "cannot run the client: Too many open files\n"
