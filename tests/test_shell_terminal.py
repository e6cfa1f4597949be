"""`python -m kv client` as a person sees it: a real pseudo-terminal, keystrokes, what is shown.

Keys are pressed only when the prompt is there, so what the terminal echoes and what the client
shows come in one order, and whole screens can be compared.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import starts
from conftest import Server
from fake import Conversation, FakeServer
from patience import patience
from pitfalls.in_process import asked, client, turn
from pitfalls.pitfall import bounded
from wire import LONGEST_TEXT, new_id

from kv.link import WINDOW
from kv.typed import SKIPPED

CTRL_C, CTRL_D, CTRL_V = b"\x03", b"\x04", b"\x16"
STANDARD = ("stdin", "stdout", "stderr")


class Terminal:
    """A pseudo-terminal with a client in it: the test holds the side with the screen and keys."""

    def __init__(self, port: int, *args: str, **popen: Any) -> None:
        self.master, self.slave = os.openpty()
        self._seen = b""
        popen = {**dict.fromkeys(STANDARD, self.slave), **popen}
        client = ("-m", "kv", "client", "--port", str(port), *args)
        self.process = starts.start(*client, terminal=self.slave, **popen)

    def press(self, keys: bytes) -> None:
        """Types `keys`."""
        os.write(self.master, keys)

    def shown(self, until: str) -> str:
        """What the screen shows from where the last call left off, up to `until` and with it."""
        wanted = until.replace("\n", "\r\n").encode()
        deadline = time.monotonic() + patience()
        while wanted not in self._seen:
            ready = select.select([self.master], [], [], deadline - time.monotonic())[0]
            assert ready, f"waited in vain for {until!r} in {self._seen!r}"
            self._seen += os.read(self.master, 65536)
        end = self._seen.index(wanted) + len(wanted)
        text, self._seen = self._seen[:end], self._seen[end:]
        return text.decode().replace("\r\n", "\n")

    def line(self, keys: str, prompt: str = "kv> ") -> str:
        """Types a line; what is shown after its echo and before the prompt that follows."""
        self.press(keys.encode() + b"\n")
        shown = self.shown(prompt)
        assert shown.startswith(keys + "\n"), shown
        return shown.removeprefix(keys + "\n").removesuffix(prompt)

    def end(self) -> tuple[str, int]:
        """Waits for the client to end; what is left on the screen, and its exit status."""
        status = self.process.wait(patience())
        while select.select([self.master], [], [], 0)[0]:
            self._seen += os.read(self.master, 65536)
        text, self._seen = self._seen.decode(errors="backslashreplace"), b""
        assert "Traceback" not in text and "Exception ignored" not in text, text
        return text.replace("\r\n", "\n"), status

    def flags(self) -> int:
        """The flags of the open file that the client shares with whoever started it."""
        return fcntl.fcntl(self.slave, fcntl.F_GETFL)

    def close(self) -> None:
        """Ends the client, if need be, and closes the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


Start = Callable[..., Terminal]


@pytest.fixture
def start(server: Server) -> Iterator[Start]:
    """`start(*options)` starts a client of the shared server, `start(port=...)` of another."""
    with contextlib.ExitStack() as stack:

        def make(*args: str, port: int | None = None, **popen: Any) -> Terminal:
            terminal = Terminal(server.port if port is None else port, *args, **popen)
            stack.callback(terminal.close)
            return terminal

        yield make


Prompted = tuple[Terminal, Conversation]


@pytest.fixture
def terminal(start: Start) -> Terminal:
    """A client of the shared server that asks for a command."""
    terminal = start()
    terminal.shown("kv> ")
    return terminal


@pytest.fixture
def prompted(start: Start, fake: FakeServer) -> Prompted:
    """The same, and the server's end of its connection."""
    terminal = start(port=fake.port)
    conversation = fake.accept().connect()
    terminal.shown("kv> ")
    return terminal, conversation


# --- a session -------------------------------------------------------------------------------


def test_a_session_looks_like_this(start: Start, server: Server) -> None:
    client_id = new_id("alice")
    terminal = start("--id", client_id)
    greeting = terminal.shown("kv> ")
    assert greeting == (
        f"connected to 127.0.0.1:{server.port} as '{client_id}';"
        " type help for the commands, Ctrl-D to leave\nkv> "
    )
    assert terminal.line("PUT colour", "value> ") == ""
    assert terminal.line("blue") == "PUT: OK\n"
    assert terminal.line("GET colour") == "blue\n"
    assert terminal.line("DELETE colour") == "DELETE: OK\n"
    assert terminal.line("") == ""
    terminal.press(b"DISCONNECT\n")
    assert terminal.end() == ("DISCONNECT\nDISCONNECT: OK\n", 0)


def test_a_refused_command_is_explained_and_the_session_goes_on(terminal: Terminal) -> None:
    terminal.line("PUT x", "value> ")
    terminal.line("1")
    assert terminal.line("get x") == (
        "'get' is not a command: commands are case sensitive, use GET KEY\n"
    )
    assert terminal.line("GET x") == "1\n"
    terminal.press(CTRL_D)
    assert terminal.end()[1] == 1


#: A PUT, what is said of it, and the prompt; a value, what is said of it, and what is stored.
VALUES = {
    "empty": ("PUT x", "", "value> ", "", "PUT: OK\n", "\n"),
    "too long": (
        *("PUT x", "", "value> ", "v" * (LONGEST_TEXT + 1)),
        *("the value has 266 characters, at most 265 are allowed\n", "GET: ERROR\n"),
    ),
    "skipped": (
        *("put x", f"'put' is not a command: commands are case sensitive, use PUT KEY{SKIPPED}\n"),
        *("value (skipped)> ", "DISCONNECT", "", "GET: ERROR\n"),
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_asked_for_and_then_a_command(terminal: Terminal, name: str) -> None:
    put, above, prompt, value, said, stored = VALUES[name]
    assert terminal.line(put, prompt) == above
    assert terminal.line(value) == said
    assert terminal.line("GET x") == stored


def test_lines_that_are_pasted_get_all_their_replies(terminal: Terminal) -> None:
    terminal.press(b"".join(b"PUT k%d\n%d\nGET k%d\n" % (i, i, i) for i in range(30)))
    terminal.press(b"DISCONNECT\n")
    text, status = terminal.end()
    assert status == 0
    assert text.count("PUT: OK\n") == 30 and text.endswith("DISCONNECT: OK\n")


# --- what peers send -------------------------------------------------------------------------


def test_control_characters_that_were_typed_are_escaped_when_they_come_back(
    terminal: Terminal,
) -> None:
    terminal.line("PUT x", "value> ")
    terminal.press(CTRL_V + b"\x1b[31mred" + CTRL_V + b"\x7f\n")
    terminal.shown("PUT: OK\nkv> ")
    assert terminal.line("GET x") == "\\x1b[31mred\\x7f\n"


def test_no_control_character_of_a_server_reaches_the_terminal(prompted: Prompted) -> None:
    terminal, conversation = prompted
    terminal.press(b"GET x\n")
    conversation.read_text()
    controls = "".join(map(chr, [*range(0x0A), *range(0x0B, 0x20), 0x7F]))
    conversation.reply(f"<{controls}>")
    shown = terminal.shown("kv> ")
    assert shown.startswith("GET x\n<\\x00\\x01") and shown.endswith("\\x7f>\nkv> ")
    assert "\\x1b" in shown and "\\r" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_values_are_escaped_when_only_the_output_is_a_terminal(
    start: Start, fake: FakeServer
) -> None:
    terminal = start(port=fake.port, stdin=subprocess.PIPE)
    terminal.process.stdin.write(b"GET x\n")
    terminal.process.stdin.flush()
    conversation = fake.accept().connect()
    conversation.read_text()
    conversation.reply("\x1b[31mred")
    assert terminal.shown("red\n") == "\\x1b[31mred\n"  # and nobody is prompted
    terminal.process.stdin.close()
    conversation.serve()
    assert terminal.end() == ("", 0)


def test_values_are_raw_and_nobody_is_prompted_when_only_the_input_is_a_terminal(
    start: Start, fake: FakeServer
) -> None:
    terminal = start(port=fake.port, stdout=subprocess.PIPE)
    conversation = fake.accept().connect()
    terminal.press(b"GET x\n")
    conversation.read_text()
    conversation.reply("\x1b[31mred")
    assert terminal.process.stdout.readline() == b"\x1b[31mred\n"
    terminal.press(CTRL_D)
    conversation.serve()
    assert terminal.end() == ("GET x\n", 0)
    assert terminal.process.stdout.read() == b""
    terminal.process.stdout.close()


# --- leaving ---------------------------------------------------------------------------------


#: What is typed and what is sent; how it ends: on the screen, and its status.
LEFT = {
    "at the prompt": (b"", [], "\n", 0),  # the shell's prompt begins in a line of its own
    "for a value": (b"PUT x\n", [], "\nthe last PUT has no value line; it was not sent\n", 1),
    "twice in a line": (b"GET x" + CTRL_D, ["GET x"], "GET xx\n", 0),  # its echo has no line feed
}


@pytest.mark.parametrize("name", LEFT)
def test_ctrl_d_disconnects_politely(prompted: Prompted, name: str) -> None:
    terminal, conversation = prompted
    typed, sent, said, expected = LEFT[name]
    terminal.press(typed)
    if typed.startswith(b"PUT"):
        terminal.shown("value> ")
    terminal.press(CTRL_D)
    assert conversation.serve() == [*sent, "DISCONNECT"]
    text, status = terminal.end()
    assert (text, status) == (said, expected)


AGAIN = "Ctrl-C again within two seconds ends; Ctrl-D leaves politely\n"


@pytest.mark.parametrize("typed", [b"GET x", b"PUT x\nhalf a li", b"put x\n"], ids=ascii)
def test_ctrl_c_drops_the_line_that_is_being_typed_and_the_session_goes_on(
    prompted: Prompted, typed: bytes
) -> None:
    terminal, conversation = prompted
    terminal.press(typed)
    terminal.shown(typed.decode()[-5:])
    if typed.endswith(b"\n"):
        terminal.shown("> ")
    terminal.press(CTRL_C)
    assert terminal.shown("kv> ").endswith(f"\n{AGAIN}kv> ")
    terminal.press(b"GET y\n")
    assert conversation.read_text() == "GET y"
    conversation.reply("here")
    terminal.shown("here\nkv> ")
    terminal.press(CTRL_D)
    assert conversation.serve() == ["DISCONNECT"]
    assert terminal.end()[1] == (1 if typed == b"put x\n" else 0)


def test_ctrl_c_drops_a_part_of_a_line_that_was_read_already() -> None:
    """Ctrl-D in the middle of a line hands over what stands before it."""
    screen, terminal = os.openpty()
    with (
        open(screen, "rb"),
        open(terminal, "wb"),
        bounded(patience()),
        client(terminal, terminal, terminal) as (shell, server),
    ):
        os.write(screen, b"GET x" + CTRL_D)
        turn(shell, lambda: shell._input._buffer)
        shell._interrupted()
        os.write(screen, b"GET y\n")
        assert asked(shell, server) == "GET y"


def test_ctrl_c_twice_ends_it_with_130_and_without_a_traceback(terminal: Terminal) -> None:
    terminal.press(CTRL_C)
    terminal.shown(AGAIN + "kv> ")
    terminal.press(CTRL_C)
    text, status = terminal.end()
    assert (text.strip("^C\n"), status) == ("", 130)


def test_ctrl_c_drops_the_line_again_once_something_has_been_typed(terminal: Terminal) -> None:
    for _ in range(3):
        terminal.press(CTRL_C)
        terminal.shown(AGAIN + "kv> ")
        assert terminal.line("GET x") == "GET: ERROR\n"


def test_after_ctrl_z_and_fg_the_prompt_is_there_again(terminal: Terminal) -> None:
    """In a pseudo-terminal of its own nobody continues the client but the test."""
    os.kill(terminal.process.pid, signal.SIGSTOP)
    os.waitpid(terminal.process.pid, os.WUNTRACED)
    os.kill(terminal.process.pid, signal.SIGCONT)
    assert terminal.shown("kv> ") == "kv> "
    assert terminal.line("GET x") == "GET: ERROR\n"


def test_ctrl_c_ends_it_while_it_is_still_connecting(start: Start, fake: FakeServer) -> None:
    terminal = start(port=fake.port)
    fake.accept().read_line()  # its key is here; it will get none
    terminal.press(CTRL_C)
    text, status = terminal.end()
    assert status == 130
    assert text.strip("^C\n") == ""


@pytest.mark.parametrize(
    ("typed", "shown", "how"),
    [
        (b"PUT col", "PUT col", "close"),
        (b"PUT col", "PUT col", "reset"),
        (b"PUT colour\n", "value> ", "close"),
    ],
    ids=["close", "reset", "value"],
)
def test_the_server_going_away_is_told_at_once_whatever_is_typed(
    prompted: Prompted, typed: bytes, shown: str, how: str
) -> None:
    terminal, conversation = prompted
    terminal.press(typed)
    terminal.shown(shown)
    getattr(conversation, how)()
    text, status = terminal.end()
    assert text.startswith("\nconnection lost: ") and text.endswith("\n")
    assert status == 3


def test_a_half_typed_line_is_not_left_behind_for_the_shell(prompted: Prompted) -> None:
    terminal, conversation = prompted
    terminal.press(b"DELETE ")
    terminal.shown("DELETE ")
    conversation.close()
    assert terminal.end()[1] == 3
    terminal.press(b"what comes next\n")
    assert os.read(terminal.slave, 4096) == b"what comes next\n"


def test_the_server_going_away_is_noticed_while_the_screen_takes_nothing(
    prompted: Prompted,
) -> None:
    """A terminal whose reader has stopped, or one held with Ctrl-S, is a full output.

    What the client may do then is wait for the screen before it ends; what it must not do is
    wait inside a write, where it can see nothing: it closes its end of the connection.
    """
    terminal, conversation = prompted
    terminal.press(b"GET x\n" * WINDOW)
    conversation.read_texts(WINDOW)
    conversation.reply(*["\0" * LONGEST_TEXT] * WINDOW)  # 64 KB on a screen: more than it holds
    conversation.half_close()
    assert conversation.read_to_end() == []
    terminal.shown("connection lost: ")
    assert terminal.end()[1] == 3


def test_it_ends_when_the_terminal_and_the_server_go_away_together() -> None:
    master, slave = os.openpty()
    with client(slave, slave, slave) as (shell, server):
        os.close(slave)
        os.close(master)
        server.half_close()
        for _ in range(100):
            shell._reactor.turn()
        assert shell._status == 3


def test_no_greeting_and_no_prompt_without_a_connection(start: Start, fake: FakeServer) -> None:
    terminal = start(port=fake.port)
    fake.accept().close()
    text, status = terminal.end()
    assert text.startswith("cannot connect: ") and text.count("\n") == 1
    assert status == 3


# --- the terminal itself ---------------------------------------------------------------------


def test_the_terminal_is_as_it_was_during_and_after(start: Start) -> None:
    """O_NONBLOCK belongs to the open file, which the parent shell shares."""
    terminal = start()
    before = (terminal.flags(), termios.tcgetattr(terminal.slave))
    assert not before[0] & os.O_NONBLOCK
    terminal.shown("kv> ")
    assert terminal.line("GET x") == "GET: ERROR\n"
    assert (terminal.flags(), termios.tcgetattr(terminal.slave)) == before
    terminal.press(CTRL_C)
    terminal.shown("kv> ")
    terminal.press(CTRL_C)
    assert terminal.end()[1] == 128 + signal.SIGINT
    assert (terminal.flags(), termios.tcgetattr(terminal.slave)) == before


def test_raw_in_a_terminal_sends_what_is_typed(start: Start, fake: FakeServer) -> None:
    terminal = start("--raw", port=fake.port)
    conversation = fake.accept().connect()
    terminal.shown("kv> ")
    terminal.press(b"get x\n")
    assert conversation.read_text() == "get x"
    conversation.reply("\x1bwhat?")
    assert "\\x1bwhat?\n" in terminal.shown("what?\nkv> ")
    conversation.close()
    text, status = terminal.end()
    assert text == "\nthe server closed the connection\n"
    assert status == 0
