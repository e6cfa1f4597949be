"""`python -m kv client` as a script sees it: pipes, files, exit statuses, what is sent and when."""

import contextlib
import fcntl
import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import starts
from conftest import ROOT, Server, wait_until
from fake import Conversation, FakeServer
from patience import patience
from pitfalls.in_process import Pipe, asked, turn
from pitfalls.in_process import client as in_process
from pitfalls.pitfall import bounded
from wire import LONGEST_TEXT, Peer, new_id

from kv.link import WINDOW
from kv.net.address import Address
from kv.net.stdio import READ_SIZE
from kv.net.tcp import unacknowledged
from kv.protocol.messages import Command, Wire

MakePeer = Callable[..., Peer]

#: Small enough to be full soon, big enough for POSIX's atomic writes.
SMALL_PIPE = 4096
LONGEST_KEY = LONGEST_TEXT - len("DELETE ")


class Client:
    """`python -m kv client` in a process of its own; three pipes unless told otherwise."""

    def __init__(self, port: int, *args: str, wrapper: tuple[str, ...] = (), **popen: Any) -> None:
        command = ["-m", "kv", "client", "--port", str(port), *args]
        popen = {**dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE), **popen}
        if wrapper:
            command = [*wrapper, sys.executable, *command]
            self.process = subprocess.Popen(command, cwd=ROOT, bufsize=0, **popen)
        else:
            self.process = starts.start(*command, bufsize=0, **popen)
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.stderr = self.process.stderr

    def type(self, text: str) -> None:
        """Writes `text` to its standard input, which stays open."""
        assert self.stdin
        self.stdin.write(text.encode())

    def end_input(self) -> None:
        """Ends its standard input."""
        assert self.stdin
        self.stdin.close()
        self.process.stdin = None  # or `communicate` would flush it

    def read_line(self, pipe: Any = None) -> str:
        """The next line of its standard output, or of another of its pipes."""
        pipe, line = pipe or self.stdout, b""
        while not line.endswith(b"\n"):
            assert select.select([pipe], [], [], patience())[0], f"no more after {line!r}"
            octet = pipe.read(1)
            assert octet, f"the end after {line!r}"
            line += octet
        return line.decode(errors="backslashreplace")

    def end(self, script: bytes | None = None) -> tuple[str, str, int]:
        """Writes `script`, ends its input and waits; what it printed, its notices, its status."""
        out, notices = self.process.communicate(script, patience())
        text = (notices or b"").decode(errors="backslashreplace")
        assert "Traceback" not in text and "Exception ignored" not in text, text
        return (out or b"").decode(errors="backslashreplace"), text, self.process.returncode

    def wait(self) -> int:
        """Waits for it to end by itself, its input still open; its status."""
        return self.process.wait(patience())

    def close(self) -> None:
        """Ends it, if need be, and closes its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe:
                pipe.close()


@pytest.fixture
def start(server: Server) -> Iterator[Callable[..., Client]]:
    """`start(*options)` starts a client of the shared server, `start(port=...)` of another."""
    with contextlib.ExitStack() as stack:

        def make(*args: str, port: int | None = None, **popen: Any) -> Client:
            client = Client(server.port if port is None else port, *args, **popen)
            return stack.enter_context(contextlib.closing(client))

        yield make


@pytest.fixture
def run(start: Callable[..., Client]) -> Callable[..., tuple[str, str, int]]:
    """`run(script, *options)` runs a client to its end: output, notices, exit status."""

    def run_script(script: str | bytes, *args: str, **options: Any) -> tuple[str, str, int]:
        octets = script.encode() if isinstance(script, str) else script
        return start(*args, **options).end(octets)

    return run_script


@pytest.fixture
def told(start: Callable[..., Client], fake: FakeServer) -> Callable[..., tuple[Any, ...]]:
    """`told(script)`: what the fake server is told, and output, notices and exit status."""

    def run_script(script: str | None, *args: str, **popen: Any) -> tuple[Any, ...]:
        client = start(*args, port=fake.port, **popen)
        if script is not None:
            client.type(script)
        if client.stdin:
            client.end_input()
        texts = fake.accept().connect().serve()
        return texts, *client.end()

    return run_script


@pytest.fixture
def script_file(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """`script_file(text)` is a regular file of that text, open for reading."""
    with contextlib.ExitStack() as stack:

        def make(text: str) -> Any:
            path = tmp_path / "script.txt"
            path.write_text(text)
            return stack.enter_context(path.open("rb"))

        yield make


Start = Callable[..., Client]
Run = Callable[..., tuple[str, str, int]]
Told = Callable[..., tuple[list[str], str, str, int]]
ScriptFile = Callable[[str], Any]
Met = tuple[Client, Conversation]


@pytest.fixture
def met(start: Start, fake: FakeServer) -> Met:
    """A client that has connected, and the server's end of its connection."""
    return start(port=fake.port), fake.accept().connect()


def rest(source: Any) -> bytes:
    """All that comes from a pipe until its other end is closed, or nothing more comes."""
    octets = b""
    while select.select([source], [], [], patience())[0] and (more := source.read(65536)):
        octets += more
    return octets


@contextlib.contextmanager
def inside() -> Iterator[tuple[Any, Conversation, Pipe, Pipe]]:
    """A client in this process, its clock moved by hand; its server, its input and its output."""
    with (
        bounded(patience()),
        Pipe() as typed,
        Pipe() as replies,
        in_process(typed.source, replies.sink, replies.sink) as (shell, server),
    ):
        yield shell, server, typed, replies


# --- replies and notices ---------------------------------------------------------------------


def test_standard_output_has_the_replies_one_a_line_and_nothing_else(run: Run) -> None:
    script = "PUT colour\nblue\nGET colour\nDELETE colour\nDELETE colour\nPUT x\n1\n"
    assert run(script) == ("PUT: OK\nblue\nDELETE: OK\nDELETE: OK\nPUT: OK\n", "", 0)


def test_a_value_is_printed_raw_with_its_control_characters(start: Start) -> None:
    value = bytes(octet for octet in range(128) if octet != 0x0A)
    client = start()
    out, notices = client.process.communicate(b"PUT x\n" + value + b"\nGET x\n", patience())
    assert out == b"PUT: OK\n" + value + b"\n"
    assert (notices, client.process.returncode) == (b"", 0)


def test_help_goes_to_standard_error_too(run: Run) -> None:
    out, notices, status = run("help\n")
    assert (out, status) == ("", 0)
    for verb in ("CONNECT", "PUT", "GET", "DELETE", "DISCONNECT"):
        assert verb in notices


def test_without_an_id_it_takes_user_name_process_id_and_something_random(
    start: Start, fake: FakeServer
) -> None:
    """User name and process id alone repeat between containers: root-1."""
    ids = []
    for _ in range(2):
        client = start(port=fake.port, env={**os.environ, "LOGNAME": "carol"})
        text = fake.accept().handshake().read_text()
        assert re.fullmatch(rf"CONNECT carol-{client.process.pid}-[0-9a-f]{{8}}", text)
        ids.append(text.rpartition("-")[2])
    assert len(set(ids)) == 2


# --- the input and its end -------------------------------------------------------------------


def test_the_end_of_input_disconnects_politely_and_does_not_print_that_reply(told: Told) -> None:
    assert told("GET x\n") == (["GET x", "DISCONNECT"], "x\n", "", 0)


PADDING = "\n" * (READ_SIZE - len("GET x\nDISCONNECT\n"))  # the DISCONNECT ends a read


@pytest.mark.parametrize("kind", ["pipe", "file"])
@pytest.mark.parametrize(
    ("before", "after", "noticed"),
    [
        ("", "GET y\n", True),
        ("", "GET y\n" * 10_000, True),
        (PADDING, "GET y\n", True),
        ("", "\n  \n", False),
    ],
    ids=["a line", "60 KB", "after a read", "blank lines"],
)
def test_what_follows_a_disconnect_is_not_sent_and_a_notice_says_so(
    told: Told, script_file: ScriptFile, kind: str, before: str, after: str, noticed: bool
) -> None:
    script = before + "GET x\nDISCONNECT\n" + after
    how = {"stdin": script_file(script)} if kind == "file" else {}
    texts, out, notices, status = told(None if how else script, **how)
    assert texts == ["GET x", "DISCONNECT"]
    assert (out, status) == ("x\nDISCONNECT: OK\n", int(noticed))  # something was not done
    assert ("not sent" in notices, notices.count("\n")) == (noticed, noticed)


def test_a_disconnect_ends_the_client_though_its_input_stays_open(start: Start) -> None:
    client = start()
    client.type("DISCONNECT\n")
    assert client.wait() == 0
    assert client.end() == ("DISCONNECT: OK\n", "", 0)


def test_an_empty_input_is_an_empty_session(told: Told) -> None:
    assert told(None, stdin=subprocess.DEVNULL) == (["DISCONNECT"], "", "", 0)


def test_output_and_notices_may_be_regular_files(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "notices").open("wb") as notices:
        client = start(stdout=out, stderr=notices)
        client.end(b"PUT x\n1\nhello\nGET x\n" * 100)
    assert (tmp_path / "out").read_text() == "PUT: OK\n1\n" * 100
    assert (tmp_path / "notices").read_text().count("'hello' is not a command") == 100


def test_a_fifo_that_stays_open_gets_each_reply_as_it_comes(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "fifo").open("r+b", buffering=0) as fifo:
        client = start(stdin=fifo)
        fifo.write(b"PUT x\n1\n")
        assert client.read_line() == "PUT: OK\n"
        fifo.write(b"GET x")
        fifo.write(b"\n")
        assert client.read_line() == "1\n"
        fifo.write(b"DISCONNECT\n")
        assert client.end() == ("DISCONNECT: OK\n", "", 0)


def test_the_last_line_needs_no_line_feed(run: Run) -> None:
    assert run("GET x\nPUT x\nblue") == ("GET: ERROR\nPUT: OK\n", "", 1)


def test_blank_lines_are_skipped_but_an_empty_value_is_stored(
    told: Told, script_file: ScriptFile
) -> None:
    texts, *rest = told(None, stdin=script_file("\n \n\t\nPUT x\n\n\nPUT y\n  \nGET x\n"))
    assert texts == ["PUT x", "", "PUT y", "  ", "GET x", "DISCONNECT"]
    assert rest == ["PUT: OK\nPUT: OK\nx\n", "", 0]


def test_a_put_without_its_value_at_the_end_of_input_is_refused(told: Told) -> None:
    texts, out, notices, status = told("GET x\nPUT y\n")
    assert (texts, out, status) == (["GET x", "DISCONNECT"], "x\n", 1)
    assert "PUT has no value" in notices


def test_a_put_is_sent_together_with_its_value_and_not_before(met: Met) -> None:
    client, conversation = met
    client.type("GET before\nPUT x\n")
    assert conversation.read_text() == "GET before"
    conversation.reply("here")
    assert client.read_line() == "here\n"  # by now both lines have been looked at
    conversation.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        conversation.socket.recv(1)
    conversation.socket.settimeout(patience())
    client.type("1\n")
    assert conversation.read_texts(2) == ["PUT x", "1"]


def test_no_flag_is_set_on_descriptors_that_others_share(start: Start) -> None:
    """O_NONBLOCK belongs to the open file, not to the descriptor."""
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    with contextlib.ExitStack() as stack:
        for descriptor in (theirs_in, ours_in, ours_out, theirs_out):
            stack.callback(os.close, descriptor)
        before = [fcntl.fcntl(one, fcntl.F_GETFL) for one in (theirs_in, theirs_out)]
        client = start(stdin=theirs_in, stdout=theirs_out, stderr=theirs_out)
        os.write(ours_in, b"GET x\n")
        assert select.select([ours_out], [], [], patience())[0]
        during = [fcntl.fcntl(one, fcntl.F_GETFL) for one in (theirs_in, theirs_out)]
        os.write(ours_in, b"DISCONNECT\n")
        assert client.wait() == 1
        after = [fcntl.fcntl(one, fcntl.F_GETFL) for one in (theirs_in, theirs_out)]
    assert before == during == after


def test_descriptors_that_others_have_made_non_blocking_work_too(start: Start) -> None:
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    with open(ours_out, "rb", buffering=0) as output, open(ours_in, "wb") as source:
        os.set_blocking(theirs_in, False)
        os.set_blocking(theirs_out, False)
        fcntl.fcntl(theirs_out, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
        client = start(stdin=theirs_in, stdout=theirs_out)
        os.close(theirs_in)
        os.close(theirs_out)
        source.write(b"PUT x\n" + b"v" * 200 + b"\n" + b"GET x\n" * 100)
        source.close()
        assert rest(output) == b"PUT: OK\n" + (b"v" * 200 + b"\n") * 100
        assert client.end() == ("", "", 0)


# --- what is checked before it is sent -------------------------------------------------------

REFUSED = {
    "hello": ["'hello' is not a command", "GET KEY", "PUT KEY", "DELETE KEY", "DISCONNECT"],
    "GETx": ["'GETx' is not a command"],
    "get x": ["'get' is not a command: commands are case sensitive, use GET KEY"],
    "Delete x": ["'Delete' is not a command", "case sensitive", "use DELETE KEY"],
    "disconnect": ["'disconnect' is not a command", "case sensitive", "use DISCONNECT"],
    " GET x": ["' GET x' is not a command", "use GET KEY"],
    "GET": ["GET needs a key", "use GET KEY"],
    "GET ": ["GET needs a key", "use GET KEY"],
    "DELETE": ["DELETE needs a key", "use DELETE KEY"],
    "exit": ["'exit' is not a command: type help; Ctrl-D leaves"],
    "quit": ["'quit' is not a command: type help; Ctrl-D leaves"],
    "?": ["'?' is not a command: type help; Ctrl-D leaves"],
    "HELP": ["'HELP' is not a command: type help; Ctrl-D leaves"],
    "CONNECT": ["CONNECT has been done already", "--id"],
    "CONNECT somebody else": ["CONNECT has been done already", "--id"],
    "GETT x": ["'GETT' is not a command"],
    "DISCONNECT now": ["'DISCONNECT now' is not a command", "use DISCONNECT"],
    "PATCH x\x1b[2J\x07": ["'PATCH' is not a command"],
    "GET caf\u00e9": ["not an ASCII character"],
    "DELETE \U0001f600": ["not an ASCII character"],
    "\u00fcber": ["is not a command"],
    "\u2028": [],  # white space to Python, so a blank line
    f"GET {'k' * (LONGEST_KEY + 4)}": ["262 characters", "at most 261"],
    f"DELETE {'k' * (LONGEST_KEY + 1)}": ["259 characters", "at most 258"],
    "x" * 10_000: ["is not a command", "10000 characters"],
}


def test_what_the_server_would_drop_is_refused_and_the_session_goes_on(told: Told) -> None:
    script = "".join(f"{line}\n" for line in REFUSED) + "GET still here\n"
    texts, out, notices, status = told(script)
    assert (texts, out, status) == (["GET still here", "DISCONNECT"], "still here\n", 1)
    by_line = dict(line.split(": ", 1) for line in notices.splitlines())
    for number, (line, words) in enumerate(REFUSED.items(), 1):
        notice = by_line.pop(f"line {number}", "")
        assert all(word in notice for word in words), f"{line[:40]!r} got {notice!r}"
        assert bool(notice) == bool(words) and len(notice) < 400, notice
    assert not by_line


def test_octets_that_are_no_text_at_all_are_refused(run: Run) -> None:
    lines = [b"\xff", b"GET \xff", b"GET caf\xe9", b"GET \x80x", b"\xed\xa0\x80", b"get \xc3"]
    out, notices, status = run(b"PUT x\n1\n" + b"\n".join(lines) + b"\nGET x\n")
    assert (out, status) == ("PUT: OK\n1\n", 1)
    assert [notice.split(":")[0] for notice in notices.splitlines()] == [
        f"line {number}" for number in range(3, 3 + len(lines))
    ]
    assert notices.isascii() and "udc" not in notices
    assert "the line has the octet 0xE9, not an ASCII character" in notices


def test_a_value_that_cannot_be_carried_is_refused_and_the_put_is_not_sent(
    start: Start, fake: FakeServer
) -> None:
    client = start(port=fake.port)
    values = [b"\xff", "caf\u00e9".encode(), b"v" * (LONGEST_TEXT + 1), b"GET: ERROR"]
    values.append(b"PUT \xff")  # which skips nothing: it is a value
    client.stdin.write(b"".join(b"PUT x\n" + value + b"\n" for value in values) + b"GET y\n")
    client.end_input()
    assert fake.accept().connect().serve() == ["GET y", "DISCONNECT"]
    out, notices, status = client.end()
    assert (out, status) == ("y\n", 1)
    one, two, three, four, five = notices.splitlines()
    assert one.startswith("line 2: the value has ") and "not an ASCII character" in one
    assert two.startswith("line 4: the value has ") and "not an ASCII character" in two
    assert three == "line 6: the value has 266 characters, at most 265 are allowed"
    assert four.startswith("line 8: the value 'GET: ERROR' cannot be stored")
    assert five == "line 10: the value has the octet 0xFF, not an ASCII character"


def test_the_longest_key_and_the_longest_value_go_through(run: Run) -> None:
    key, value = "k" * LONGEST_KEY, "v" * LONGEST_TEXT
    script = f"PUT {key}\n{value}\nGET {key}\nDELETE {key}\n"
    assert run(script) == (f"PUT: OK\n{value}\nDELETE: OK\n", "", 0)


def test_a_value_may_read_like_a_command(run: Run) -> None:
    values = ("DISCONNECT", "help", "put y", "PUT: ERROR", "DELETE: ERROR")
    script = "".join(f"PUT x\n{value}\nGET x\n" for value in values)
    assert run(script) == ("".join(f"PUT: OK\n{value}\n" for value in values), "", 0)


def test_a_refused_put_in_whatever_case_takes_its_value_line_with_it(told: Told) -> None:
    puts = ["put x", "Put x", "PUT", "PUT ", "put", " PUT x", "\tput", "PUT\tx", "PUT caf\u00e9"]
    puts.append(f"PUT {'k' * (LONGEST_KEY + 1)}")
    puts += ["PUTT x", "PTU x", "PU x", "UT x", "OUT x", "PUTx", "PUT:x", "put=x"]  # slips
    puts += ['"PUT x"', "'PUT x", "\0PUT x", "\u200bPUT x", "> PUT x", "P\0U\0T\0 x\0"]  # wrappings
    puts += ["\ufeffPUT x", "\x1b[200~PUT x", "\x1b[APUT x", "\x1bOAPUT x", "\uff30\uff35\uff34 x"]
    puts += ["\u0420UT x", "PUT\u00a0x"]  # a letter that looks like P, a space that is none
    puts += ["kv> PUT x", "kv>PUT x", "bob> kv> put x"]  # copied from a terminal
    puts += ["value (skipped)> PUT x", "P\x1fUT x", f"{' ' * 2000}PUT x"]
    values = ["GET x", "DISCONNECT", "put x", "PUT x", "", "help", "caf\u00e9", "v" * 300, "x", "y"]
    values += ["DISCONNECT", "GET x", "DELETE y"] * 9
    texts, out, notices, status = told(
        "".join(f"{put}\n{value}\nGET y\n" for put, value in zip(puts, values, strict=True))
    )
    assert texts == ["GET y"] * len(puts) + ["DISCONNECT"]
    assert (out, status) == ("y\n" * len(puts), 1)
    for number, notice in enumerate(notices.splitlines()):
        assert notice.startswith(f"line {3 * number + 1}: ")
        assert notice.endswith("; the next line, its value, is skipped")
    assert notices.count("\n") == len(puts)


# --- order ------------------------------------------------------------------------------------


def test_a_refusal_comes_after_the_replies_to_earlier_lines(start: Start, fake: FakeServer) -> None:
    """With `2>&1` both go the same way."""
    client = start(port=fake.port, stderr=subprocess.STDOUT)
    client.type("GET a\nGET b\nhello\nGET c\nPUT d\nget e\n")
    conversation = fake.accept().connect()
    assert conversation.read_texts(3) == ["GET a", "GET b", "GET c"]
    conversation.reply("1", "2", "3")
    client.end_input()
    conversation.serve()
    out, _, status = client.end()
    assert [line[:18] for line in out.splitlines()] == [
        "1",
        "2",
        "line 3: 'hello' is",
        "3",
        "PUT: OK",
    ]
    assert status == 1


def test_a_refusal_is_held_back_until_the_earlier_reply_is_there(met: Met) -> None:
    client, conversation = met
    client.type("GET a\nhello\nGET b\n")
    assert conversation.read_texts(2) == ["GET a", "GET b"]  # by now `hello` was looked at
    assert not select.select([client.stderr], [], [], 0)[0]
    conversation.reply("1")
    assert "line 2: 'hello'" in client.read_line(client.stderr)


# --- Windows' files ---------------------------------------------------------------------------


def test_a_byte_order_mark_at_the_very_start_is_skipped(run: Run) -> None:
    assert run(b"\xef\xbb\xbfPUT x\n1\nGET x\n") == ("PUT: OK\n1\n", "", 0)
    assert run(b"\xef\xbb\xbf") == ("", "", 0)


def test_lines_that_end_in_cr_are_sent_as_they_are_and_spoken_of_once(told: Told) -> None:
    texts, out, notices, status = told("GET a\n\r\nPUT b\r\nDISCONNECT\r\n\r\nGET c\r\n")
    assert texts == ["GET a", "PUT b\r", "DISCONNECT\r", "GET c\r", "DISCONNECT"]
    assert (out, status) == ("a\nPUT: OK\nc\r\n", 0)
    assert notices.startswith("line 3 ends in a carriage return (CR)")
    assert notices.count("\n") == 1


# --- --strict ---------------------------------------------------------------------------------


def test_strict_ends_the_script_at_the_first_refusal(start: Start, fake: FakeServer) -> None:
    client = start("--strict", port=fake.port)
    client.type("GET a\nGETT b\nGET c\n")  # and the input stays open
    assert fake.accept().connect().serve() == ["GET a", "DISCONNECT"]
    assert client.wait() == 1
    out, notices, status = client.end()
    assert (out, status) == ("a\n", 1)
    assert notices.startswith("line 2: 'GETT' is not a command")
    assert notices.endswith("; the script ends here\n") and notices.count("\n") == 1


def test_without_refusals_strict_changes_nothing(run: Run) -> None:
    """An ERROR is a reply."""
    script = "GET x\nPUT x\n1\nGET x\n"
    assert run(script, "--strict") == ("GET: ERROR\nPUT: OK\n1\n", "", 1)


# --- exit statuses ---------------------------------------------------------------------------


def test_any_error_reply_is_printed_and_is_status_1(met: Met) -> None:
    client, conversation = met
    client.type("PUT x\n1\nDELETE x\n")
    conversation.read_texts(3)
    conversation.reply("PUT: ERROR", "DELETE: ERROR")
    assert client.read_line() == "PUT: ERROR\n"
    client.end_input()
    conversation.serve()
    assert client.end() == ("DELETE: ERROR\n", "", 1)


@pytest.mark.parametrize("options", [(), ("--raw",)], ids=str)
def test_an_id_in_use_is_a_clear_notice_and_status_1(
    run: Run, peer: MakePeer, options: tuple[str, ...]
) -> None:
    taken = new_id("taken already")
    peer(taken)
    out, notices, status = run("GET x\n", *options, "--id", taken)
    assert (out, status) == ("", 1)
    assert f"CONNECT: ERROR: the client id '{taken}' is in use" in notices
    assert "--id" in notices


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--id", "", "client id"), ("--id", "x" * 258, "client id"), ("--key-bits", "8192", "8192")],
    ids=["empty id", "long id", "key bits"],
)
def test_a_wrong_option_is_a_usage_message_and_status_2(
    run: Run, option: str, value: str, said: str
) -> None:
    out, notices, status = run("", option, value)
    assert (out, status) == ("", 2)
    assert "usage:" in notices and "error:" in notices and said in notices


def test_a_port_that_nobody_listens_on_is_one_notice_and_status_3(run: Run, deaf: Address) -> None:
    out, notices, status = run("GET x\n", port=deaf[1])
    assert (out, status) == ("", 3)
    assert notices.startswith("cannot connect: ") and notices.count("\n") == 1
    assert f"127.0.0.1:{deaf[1]}" in notices and "refused" in notices
    assert notices.endswith("is the server running?\n")


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_host_that_is_none_is_one_notice_and_status_3(run: Run, host: str) -> None:
    out, notices, status = run("GET x\n", "--host", host, port=1)
    assert (out, status) == ("", 3)
    assert notices.startswith("cannot connect") and notices.count("\n") == 1


def test_every_address_of_a_name_is_tried(
    run: Run, server: Server, deaf: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is a fork, and has this test's resolver."""
    found = [(socket.AF_INET, 1, 6, "", address) for address in (deaf, ("127.0.0.1", server.port))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    assert run("PUT x\n1\n", "--host", "two.example", port=1) == ("PUT: OK\n", "", 0)


def test_localhost_works_whatever_addresses_it_has(run: Run) -> None:
    assert run("PUT x\n1\n", "--host", "localhost") == ("PUT: OK\n", "", 0)


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        (["1", "2"], "line 2 was the last that was answered, 1 after it were sent"),
        ([], "lines sent: 3, answered: none"),
    ],
)
def test_replies_that_came_before_the_connection_was_lost_are_printed(
    met: Met, replies: list[str], told: str
) -> None:
    client, conversation = met
    client.type("GET a\nGET b\nGET c\n")
    conversation.read_texts(3)
    conversation.reply(*replies)
    conversation.close()
    assert client.wait() == 3
    out, notices, _ = client.end()
    assert out.split() == replies
    assert notices.startswith("connection lost: ") and notices.endswith(f"; {told}\n")


def test_every_reply_that_came_before_a_reset_is_printed(
    start: Start, fake: FakeServer, script_file: ScriptFile
) -> None:
    """The client still sends when the reset comes; a failed send does not end reading."""
    for _ in range(5):
        client = start(port=fake.port, stdin=script_file("GET x\n" * 1000))
        conversation = fake.accept().connect()
        for number in range(170):
            conversation.read_text()
            conversation.reply(str(number))
        # A reset also voids what this kernel has not sent: the client's has to have it all.
        wait_until(lambda: not unacknowledged(conversation.socket), "acknowledgement")  # noqa: B023
        conversation.reset()  # with unread commands
        assert client.wait() == 3
        out, notices, _ = client.end()
        assert out == "".join(f"{number}\n" for number in range(170))
        assert "line 170 was the last that was answered, " in notices


def test_every_reply_of_a_server_that_is_killed_in_a_script_is_printed(
    start_server: Callable[..., Server], start: Start, script_file: ScriptFile
) -> None:
    """What the notice says of the last line answered is what was printed."""
    for _ in range(3):
        server = start_server()
        client = start(port=server.port, stdin=script_file("PUT x\n1\n" + "GET x\n" * 300_000))
        for _ in range(200):
            client.read_line()
        server.process.kill()
        out, notices, status = client.end()
        server.process.wait()
        assert status == 3
        answered = re.search(r"line (\d+) was the last that was answered", notices)
        assert answered and out.endswith("1\n")
        assert 200 + out.count("\n") == int(answered[1]) - 1  # PUT took two lines


def test_a_loss_says_how_many_lines_were_answered_and_how_many_sent(
    start: Start, fake: FakeServer, script_file: ScriptFile
) -> None:
    """Lines of the input, refused and blank ones and values included."""
    script = "hello\n\nPUT a\n1\n" + "PUT b\n2\n" * 5 + "hullo\n"
    client = start(port=fake.port, stdin=script_file(script))
    conversation = fake.accept().connect()
    conversation.read_texts(13)
    conversation.reply("PUT: OK")
    assert client.read_line() == "PUT: OK\n"
    conversation.reset()
    assert client.wait() == 3
    notices = client.end()[1].splitlines()
    assert notices[-1].endswith("; line 4 was the last that was answered, 10 after it were sent")
    refused = [re.match(r"line \d+: '\w+'", notice) for notice in notices[:-1]]
    assert [one and one[0] for one in refused] == ["line 1: 'hello'", "line 15: 'hullo'"]


def test_a_server_with_other_key_bits_is_hinted_at(
    start: Start, start_server: Callable[..., Server], run: Run
) -> None:
    port = start_server("--key-bits", "256").port
    out, notices, status = run("GET x\n", port=port)
    assert (out, status) == ("", 3)
    assert notices.endswith(": perhaps it speaks TLS, or uses other --key-bits\n")
    assert notices.count("\n") == 1


def test_a_client_that_awaits_nothing_has_no_timeout() -> None:
    """Nothing is typed for a year."""
    with inside() as (shell, server, typed, replies):
        for reply in (b"here", b"there"):
            typed.write(b"GET x\n")
            assert asked(shell, server) == "GET x"
            server.reply(reply.decode())
            turn(shell, lambda: select.select([replies.source], [], [], 0)[0])
            assert os.read(replies.source, 100) == reply + b"\n"
            shell._reactor.time.now += 365 * 86400
            for _ in range(10):
                shell._reactor.turn()


def test_a_slow_reader_of_the_replies_gets_them_all_and_the_session_goes_on() -> None:
    with inside() as (shell, server, typed, replies):
        fcntl.fcntl(replies.sink, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
        for number in range(1, 41):
            typed.write(b"GET x\n")
            assert asked(shell, server) == "GET x"
            server.reply("v" * LONGEST_TEXT)
            turn(shell, lambda number=number: shell._order.answered == number)
        read = 0
        while read < 40 * (LONGEST_TEXT + 1):
            read += len(os.read(replies.source, 1000))
            shell._reactor.call_soon(lambda: None)
            shell._reactor.turn()
            assert shell._status is None
        typed.write(b"GET y\n")
        assert asked(shell, server) == "GET y"


def test_no_more_lines_are_taken_than_the_turn_allows_nor_after_the_end() -> None:
    with inside() as (shell, server, *_):
        value, end = (server.key.seal(text)[:-1] for text in (b"v", b"DISCONNECT: OK"))
        for command in [Command.get(Wire(), "x")] * 4 + [Command.disconnect()]:
            shell._send(command, 1)
        link = shell._link
        assert link.lines_received(iter([value] * 4), 2) == 2
        link.hold(True)
        assert link.lines_received(iter([value] * 2), 9) == 1
        link.hold(False)
        lines = iter([value, end, value])
        assert link.lines_received(lines, 9) == 2 and list(lines) == [value]


def test_so_many_replies_and_notices_are_waited_for_and_no_more() -> None:
    with inside() as (shell, server, typed, _):
        typed.write(b"GET x\n" + b"hello\n" * 300)
        assert asked(shell, server) == "GET x"
        for _ in range(10):
            shell._reactor.turn()
        assert len(shell._order) == 2 * WINDOW


def test_asking_for_more_does_not_put_the_deadline_off() -> None:
    with inside() as (shell, server, typed, _):
        for command in (b"GET a", b"GET b"):
            typed.write(command + b"\n")
            turn(shell, lambda: select.select([server.socket], [], [], 0)[0])
            assert server.read_text() == command.decode()
            shell._reactor.time.now += 5.0  # of ten seconds that the server has
            shell._link.hold(False)  # nor does what was not held up
        for _ in range(5):
            shell._reactor.call_soon(lambda: None)
            shell._reactor.turn()
        assert shell._status == 3 and not shell._input._reading


def test_what_is_flushed_is_sent_before_the_loop_turns_again() -> None:
    with inside() as (shell, server, *_):
        shell._link.send(Command.get(Wire(), "x"))
        shell._link.flush()
        assert select.select([server.socket], [], [], patience())[0]
        assert server.read_text() == "GET x"


# --- output that is full, closed, or on a full disk ------------------------------------------


def test_a_full_output_pipe_does_not_keep_it_from_noticing_the_server_going_away(
    start: Start, fake: FakeServer
) -> None:
    source, sink = os.pipe()
    with open(source, "rb", buffering=0) as output:
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
        client = start(port=fake.port, stdout=sink)
        conversation = fake.accept().connect()
        value, count = "v" * LONGEST_TEXT, 0
        poll = select.poll()
        poll.register(sink, select.POLLOUT)
        while poll.poll(0) or count < 2 * SMALL_PIPE // LONGEST_TEXT:
            client.type("GET x\n")
            conversation.read_text()
            conversation.reply(value)
            count += 1
            assert count < 1000, "the pipe is never full"
        os.close(sink)
        conversation.close()
        assert "connection lost" in client.read_line(client.stderr)  # stdout is still full
        assert client.process.poll() is None  # it has replies to hand over first
        assert rest(output) == (value.encode() + b"\n") * count
        assert client.wait() == 3


def test_an_output_nobody_reads_holds_the_commands_up(
    start: Start, fake: FakeServer, script_file: ScriptFile
) -> None:
    """100,000 long replies would take 26 MB; the client asks for no more than it can hand on."""
    client = start(port=fake.port, stdin=script_file("GET x\n" * 100_000))
    conversation = fake.accept().connect()
    conversation.socket.settimeout(0.2)  # no command for so long: the client is held up
    count, value = 0, "v" * LONGEST_TEXT
    with contextlib.suppress(TimeoutError):
        while count < 2000:
            conversation.read_text()
            conversation.reply(value)
            count += 1
    # A pipe of 64 KB, as much in the client, the window and a write under way.
    assert count < 128 * 1024 // LONGEST_TEXT + 3 * WINDOW
    conversation.socket.settimeout(patience())
    assert client.read_line() == value + "\n"


def test_a_reader_that_has_had_enough_ends_it_quietly(start: Start) -> None:
    client = start()
    client.type("PUT x\n1\n" + "GET x\n" * 5)
    assert client.read_line() == "PUT: OK\n"
    client.stdout.close()
    client.process.stdout = None
    with contextlib.suppress(BrokenPipeError):
        for _ in range(1000):
            client.type("GET x\n" * 100)
    assert client.wait() == 0
    assert client.end() == ("", "", 0)


def test_a_reader_that_left_while_the_pipe_was_full_ends_it_quietly(
    start: Start, script_file: ScriptFile
) -> None:
    value = "v" * LONGEST_TEXT
    client = start(stdin=script_file(f"PUT x\n{value}\n" + "GET x\n" * 2000))
    assert client.read_line() == "PUT: OK\n"
    client.stdout.close()
    client.process.stdout = None
    assert client.end() == ("", "", 0)


def test_an_input_that_cannot_be_read_is_a_notice_and_status_1(
    server: Server, tmp_path: Path
) -> None:
    with open(tmp_path / "written", "wb") as write_only:
        done = starts.run("-m", "kv", "client", "--port", str(server.port), stdin=write_only)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == "cannot read standard input: Bad file descriptor\n"


def test_the_status_is_right_even_if_nobody_can_be_told() -> None:
    with open("/dev/full", "wb") as full:
        done = starts.run("-m", "kv", "client", "--host", "a..b", stderr=full)
    assert (done.stdout, done.returncode) == ("", 3)


def test_a_full_disk_is_a_notice_and_status_1(start: Start) -> None:
    with open("/dev/full", "wb") as full:
        out, notices, status = start(stdout=full).end(b"PUT x\n1\nGET x\n")
    assert (out, status) == ("", 1)
    assert "cannot write to standard output: No space left" in notices
    assert notices.count("\n") == 1


def test_notices_that_nobody_reads_do_no_harm(start: Start) -> None:
    source, sink = os.pipe()
    os.close(source)
    client = start(stderr=sink)
    os.close(sink)
    assert client.end(b"hello\nPUT x\n1\nhello\nGET x\n") == ("PUT: OK\n1\n", "", 1)


def test_a_full_pipe_of_notices_does_not_keep_replies_from_coming(start: Start) -> None:
    source, sink = os.pipe()
    with open(source, "rb", buffering=0) as notices:
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
        client = start(stderr=sink)
        os.close(sink)
        client.type("hello\n" * 200 + "PUT x\n1\n")
        assert client.read_line() == "PUT: OK\n"
        client.end_input()
        received = rest(notices)
        assert received.count(b"'hello' is not a command") == received.count(b"\n") == 200
        assert client.end() == ("", "", 1)


# --- descriptors that are closed at the start ------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_do_no_harm(start: Start, fake: FakeServer, closed: str) -> None:
    """The socket must not become descriptor 0, 1 or 2, or replies and notices go to the server."""
    client = start(port=fake.port, wrapper=("sh", "-c", f'exec "$@" {closed}', "sh"))
    with contextlib.suppress(BrokenPipeError):  # nobody has the other end if it was closed
        client.type("GET x\nhello\nGET y\n")
    client.end_input()
    texts = fake.accept().connect().serve()
    out, notices, status = client.end()
    if "<&-" in closed:
        assert (texts, out, notices, status) == (["DISCONNECT"], "", "", 0)
        return
    assert texts == ["GET x", "GET y", "DISCONNECT"]
    assert out == ("" if " >&-" in f" {closed}" else "x\ny\n")
    assert bool(notices) == ("2>&-" not in closed)
    assert status == 1  # of `hello`


# --- Ctrl-C ----------------------------------------------------------------------------------

#: Runs the client, in a process with a second thread: that one takes the signal, once there is
#: something to read from descriptor argv[1], and the thread with the loop sleeps on.
INTERRUPTED = """\
import os, runpy, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
descriptor = int(sys.argv[1])
def interrupt():
    os.read(descriptor, 1)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
sys.argv = ["kv", *sys.argv[5:]]
runpy.run_module("kv", run_name="__main__", alter_sys=True)
"""


def test_ctrl_c_ends_it_even_if_it_comes_just_before_the_loop_sleeps(start: Start) -> None:
    """A signal that comes then is only noted, and the sleep goes on: it has to wake the loop."""
    source, sink = os.pipe()
    with open(source, "rb"), open(sink, "wb", buffering=0) as trigger:
        wrapper = (sys.executable, "-c", INTERRUPTED, str(source))
        client = start(wrapper=wrapper, pass_fds=[source])
        client.type("GET x\n")
        assert client.read_line() == "GET: ERROR\n"
        trigger.write(b"x")
        assert client.wait() == 130
    assert client.end() == ("", "", 130)


# --- bulk ------------------------------------------------------------------------------------


def test_commands_are_pipelined_up_to_the_window_and_no_further(
    start: Start, fake: FakeServer, script_file: ScriptFile
) -> None:
    """The server says nothing until the client gives up: what came by then is the window.

    A PUT counts once, though it is two lines.
    """
    script = "".join(f"GET {number}\nPUT {number}\n{number}\n" for number in range(5000))
    client = start("--timeout", "0.5", port=fake.port, stdin=script_file(script))
    texts = fake.accept().connect().read_to_end()
    assert texts == script.split("\n")[: WINDOW // 2 * 3]
    assert client.wait() == 3


def test_each_reply_makes_room_for_one_more_command(
    start: Start, fake: FakeServer, script_file: ScriptFile
) -> None:
    client = start(port=fake.port, stdin=script_file("GET x\n" * (WINDOW + 10)))
    conversation = fake.accept().connect()
    conversation.read_texts(WINDOW)
    for number in range(10):
        conversation.reply(str(number))
        assert conversation.read_text() == "GET x"
    conversation.reply(*["rest"] * WINDOW)
    assert conversation.serve() == ["DISCONNECT"]
    out, notices, status = client.end()
    assert out == "".join(f"{number}\n" for number in range(10)) + "rest\n" * WINDOW
    assert (notices, status) == ("", 0)


@pytest.mark.parametrize("line", ["GET x", "hello"], ids=["commands", "refusals"])
def test_reading_pauses_while_too_many_replies_are_outstanding(
    start: Start, fake: FakeServer, line: str
) -> None:
    """8 MB, written for as long as the client lives, and no reply: hardly any of it is taken."""
    client = start("--timeout", "0.5", port=fake.port)
    taken = 0

    def write() -> None:
        nonlocal taken
        with contextlib.suppress(BrokenPipeError):
            client.type("GET x\n")
            while taken < 8_000_000:
                taken += client.stdin.write(f"{line}\n".encode() * 1000)

    writer = threading.Thread(target=write)
    writer.start()
    fake.accept().connect().read_to_end()
    assert client.wait() == 3
    for pipe in (client.stdout, client.stderr):
        pipe.close()
    writer.join(patience())
    assert not writer.is_alive()
    assert taken < 500_000


def test_a_long_script_gets_all_its_replies_in_order(
    start_server: Callable[..., Server], run: Run, script_file: ScriptFile
) -> None:
    small = start_server("--key-bits", "128")
    numbers = range(1000)
    script = "".join(f"PUT {number}\n{number}\nGET {number}\n" for number in numbers)
    out, notices, status = run(script, "--key-bits", "128", port=small.port)
    assert out == "".join(f"PUT: OK\n{number}\n" for number in numbers)
    assert (notices, status) == ("", 0)


# --- raw -------------------------------------------------------------------------------------


def test_raw_sends_every_line_as_it_is_and_half_closes_at_the_end(
    start: Start, fake: FakeServer
) -> None:
    lines = [b"get x", b"", b"PUT", b"  ", b"caf\xc3\xa9 \xff", b"x" * 700, b"DISCONNECT", b"last"]
    client = start("--raw", port=fake.port)
    client.stdin.write(b"\n".join(lines))
    client.end_input()
    conversation = fake.accept().connect()
    assert [conversation.read_octets() for _ in lines] == lines
    with pytest.raises(EOFError):
        conversation.read_line()
    # The client waits for what the server still has to say, and judges none of it.
    conversation.reply("whatever \x1b[1m", "PUT: ERROR")
    conversation.reply("")
    assert client.read_line() == "whatever \x1b[1m\n"
    conversation.close()
    assert client.end() == ("PUT: ERROR\n\n", "the server closed the connection\n", 0)


def test_raw_waits_neither_for_a_value_nor_to_be_asked(start: Start, fake: FakeServer) -> None:
    client = start("--raw", port=fake.port)
    conversation = fake.accept().connect()
    conversation.reply("one", "two")
    assert [client.read_line(), client.read_line()] == ["one\n", "two\n"]
    client.type("PUT x\n")
    assert conversation.read_text() == "PUT x"


def test_raw_shows_the_server_dropping_a_bad_client(start: Start, server: Server) -> None:
    client = start("--raw")
    client.type("PUT x\n1\nGET x\nget x\n")
    assert client.wait() == 0  # at once, though its input is still open
    out, notices, _ = client.end()
    assert out == "PUT: OK\n1\n"
    assert notices == "the server closed the connection\n"
    assert server.log_lines("dropped")


def test_raw_gets_all_its_replies_after_the_half_close(run: Run) -> None:
    script = "PUT x\n1\n" + "GET x\n" * 100 + "DISCONNECT\n"
    out, notices, status = run(script, "--raw")
    assert out == "PUT: OK\n" + "1\n" * 100 + "DISCONNECT: OK\n"
    assert (notices, status) == ("the server closed the connection\n", 0)


def test_raw_does_not_wait_longer_than_the_timeout_after_its_half_close(
    start: Start, fake: FakeServer
) -> None:
    client = start("--raw", "--timeout", "0.5", port=fake.port, stdin=subprocess.DEVNULL)
    conversation = fake.accept().connect()
    with pytest.raises(EOFError):
        conversation.read_line()
    assert client.wait() == 3
    assert "did not reply for 0.5 s" in client.end()[1]
