"""Dropping a client: what it is still owed, what it costs the others, what the log says."""

import re
from collections.abc import Callable

import pytest
from conftest import Server
from wire import KEY, LONGEST_TEXT, Peer, bad_key_lines, bad_messages, new_id

MakePeer = Callable[..., Peer]
Wait = Callable[..., None]

BAD_MESSAGES = bad_messages()
BAD_KEY_LINES = bad_key_lines()

#: A word that the logged reason must have, where one is obvious.
REASONS = {
    "unknown verb": "not a command",
    "non-ASCII octet": "ASCII",
    "LF in the text": "line feed",
    "not base64": "base64",
    "base64 with spare bits": "base64",
    "block short of an octet": "63",
    "block not below the modulus": "modulus",
    "block type 02": "padding",
    "short block in the middle": "not full",
    "empty last block": "empty",
    "line too long": "511",
}

#: What ends a session, and what else is answered.
ENDINGS = {name: [BAD_MESSAGES[name]] for name in ("unknown verb", "not base64", "line too long")}
ENDINGS |= {"DISCONNECT": [KEY.seal(b"DISCONNECT"), "DISCONNECT: OK"]}


# --- what the dropped client is owed ---------------------------------------------------------


@pytest.mark.parametrize("in_one_segment", [False, True])
@pytest.mark.parametrize("name", ENDINGS)
def test_replies_owed_reach_a_client_that_goes_on_sending_rubbish(
    peer: MakePeer, name: str, in_one_segment: bool
) -> None:
    client = peer()
    ending, *last = ENDINGS[name]
    said = client.seal("GET x") * 50 + ending
    rubbish = b"\x00rubbish\n" * 113  # 100 KB in all
    for octets in [said + rubbish * 100] if in_one_segment else [said, *[rubbish] * 100]:
        client.send_raw(octets)
    assert client.read_texts_to_end() == ["GET: ERROR"] * 50 + last


def test_replies_owed_reach_a_client_that_reads_only_when_all_is_over(
    peer: MakePeer, barrier: Wait
) -> None:
    client = peer()
    client.send_text("PUT x", "v" * LONGEST_TEXT, *["GET x"] * 300, "HELLO")
    client.send_raw(bytes(100_000))
    barrier()
    assert client.read_texts_to_end() == ["PUT: OK", *["v" * LONGEST_TEXT] * 300]


@pytest.mark.parametrize("last", ["HELLO", "DISCONNECT", "half-close"])
def test_replies_owed_reach_a_slow_reader_whatever_its_last_message(
    peer: MakePeer, barrier: Wait, last: str
) -> None:
    """The server holds most of the replies itself and sends them bit by bit."""
    client = peer(small_buffers=True)
    client.send_text("PUT x", "v" * LONGEST_TEXT, *["GET x"] * 500)
    expected = ["PUT: OK", *["v" * LONGEST_TEXT] * 500]
    if last == "half-close":
        client.half_close()
    else:
        client.send_text(last)
        client.send_raw(bytes(10_000))
        expected += ["DISCONNECT: OK"] if last == "DISCONNECT" else []
    barrier(500)
    assert client.read_texts_to_end() == expected


def test_replies_written_when_the_end_comes_still_reach_a_slow_reader(
    peer: MakePeer, barrier: Wait
) -> None:
    """Few enough that the server reads on, so it sees the end while they wait to be sent."""
    client = peer(small_buffers=True)
    client.send_text("PUT x", "v" * LONGEST_TEXT, *["GET x"] * 300)
    barrier(300)
    client.half_close()
    barrier()
    assert client.read_texts_to_end() == ["PUT: OK", *["v" * LONGEST_TEXT] * 300]


def test_the_servers_key_reaches_a_client_that_is_dropped_right_after(connect: MakePeer) -> None:
    client = connect()
    client.send_raw(client.key.line * 2 + bytes(100_000))
    client.read_key()
    assert client.read_to_end() == b""


# --- the dropped client's session ------------------------------------------------------------


def test_the_id_is_free_while_the_dropped_client_still_sends(peer: MakePeer, barrier: Wait) -> None:
    name = new_id()
    client = peer(name)
    client.ask("PUT x", "y")
    client.send_text("HELLO")
    barrier()
    for _ in range(10):
        client.send_raw(bytes(1000))
        successor = peer(name)
        assert successor.ask("GET x") == "GET: ERROR"
        assert successor.ask("DISCONNECT") == "DISCONNECT: OK"
    assert client.read_to_end() == b""


def test_the_end_of_a_dropped_client_does_not_end_its_successors_session(
    connect: MakePeer, peer: MakePeer, barrier: Wait
) -> None:
    name = new_id()
    client = peer(name)
    client.send_text("HELLO")
    assert client.read_to_end() == b""
    successor = peer(name)
    successor.ask("PUT x", "y")
    client.close()
    barrier()
    assert successor.ask("GET x") == "y"
    assert connect().handshake().ask(f"CONNECT {name}") == "CONNECT: ERROR"


# --- the others, and the log -----------------------------------------------------------------


def raw_control_characters(log: str) -> str:
    return "".join(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", log))


@pytest.mark.parametrize("name", [*BAD_MESSAGES, *(f"key: {name}" for name in BAD_KEY_LINES)])
def test_a_drop_leaves_others_alone_and_is_logged_in_one_line_with_its_reason(
    server: Server, connect: MakePeer, peer: MakePeer, name: str
) -> None:
    bad_key = name.startswith("key: ")
    bystander, client = peer(), connect() if bad_key else peer()
    bystander.ask("PUT colour", "blue")
    bystander.send_text("PUT shade")  # its value is awaited while the other one is dropped
    client.send_raw(BAD_KEY_LINES[name[5:]] if bad_key else BAD_MESSAGES[name])
    assert client.read_to_end() == b""
    client.close()
    assert bystander.ask("dark") == "PUT: OK"
    assert bystander.ask("GET colour") == "blue"
    (line,) = server.log().splitlines()
    assert re.search(rf":{client.port}: \S", line)
    assert REASONS.get(name, "") in line
    assert not re.search("HELLO|get x|DISCONNECT", line), "what a client says is its data"
    assert raw_control_characters(server.log()) == ""


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b]0;owned\x07",
        "HELLO\r2026-01-01 00:00:00,000 INFO forged",
        "HELLO\n2026-01-01 00:00:00,000 INFO forged",
        "\x00\x01\x08\x0b\x0c\x7f",
        "\\x1b is not \x1b",
        "\x1b" * LONGEST_TEXT,
    ],
)
def test_a_bad_message_is_quoted_for_debugging_only_and_its_control_characters_are_escaped(
    start_server: Callable[..., Server], peer: MakePeer, text: str
) -> None:
    server = start_server("--log-level", "debug")
    client = peer(port=server.port)
    client.send_text(text)
    assert client.read_to_end() == b""
    assert raw_control_characters(server.log()) == ""
    assert max(map(len, server.log().splitlines())) < 400
    if "\x1b" in text:
        (line,) = server.log_lines(r"\x1b")
        assert " DEBUG " in line


def test_control_characters_of_a_client_id_are_escaped_in_the_log(
    server: Server, peer: MakePeer
) -> None:
    client = peer(new_id("\x1b[31m\r\x7f\x07"))
    client.send_text("HELLO")
    assert client.read_to_end() == b""
    assert len(server.log().splitlines()) == 1, server.log()
    assert raw_control_characters(server.log()) == ""
