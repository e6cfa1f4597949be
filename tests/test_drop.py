"""Dropping a client: what it is still owed, what it costs the others, what the log says."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Server, wait_until
from wire import LONGEST_TEXT, Peer, bad_key_lines, bad_messages, new_id

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

ENDINGS = {name: BAD_MESSAGES[name] for name in ("unknown verb", "not base64", "line too long")}


# --- what the dropped client is owed ---------------------------------------------------------


@pytest.mark.parametrize("name", ENDINGS)
def test_replies_owed_reach_a_client_that_goes_on_sending_rubbish(
    peer: MakePeer, name: str
) -> None:
    client = peer()
    client.send_raw(client.seal("GET x") * 50 + ENDINGS[name])
    for _ in range(100):
        client.send_raw(b"\x00rubbish\n" * 113)  # 100 KB in all
    assert client.read_texts_to_end() == ["GET: ERROR"] * 50


def test_replies_owed_reach_a_client_whose_rubbish_is_in_the_same_segment(peer: MakePeer) -> None:
    client = peer()
    client.send_raw(client.seal("GET x") * 50 + client.seal("HELLO") + bytes(100_000))
    assert client.read_texts_to_end() == ["GET: ERROR"] * 50


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


def test_disconnect_ok_reaches_a_client_that_goes_on_sending_rubbish(peer: MakePeer) -> None:
    client = peer()
    client.send_raw(client.seal("DISCONNECT"))
    for _ in range(100):
        client.send_raw(bytes(1000))
    assert client.read_texts_to_end() == ["DISCONNECT: OK"]


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


# --- the bounds of politeness ----------------------------------------------------------------


def test_a_dropped_client_that_sends_for_ever_is_cut_off(peer: MakePeer) -> None:
    client = peer()
    client.send_text("HELLO")
    with pytest.raises(ConnectionError):
        for _ in range(1024):  # 64 MB at the most
            client.send_raw(bytes(65536))


def test_dropped_clients_leave_no_descriptor_behind(server: Server, peer: MakePeer) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("no /proc here to look for descriptors in")
    ports = set()
    for _ in range(5):
        client = peer()
        ports.add(client.port)
        assert client.port in connected_to(server)
        client.send_text("HELLO")
        assert client.read_to_end() == b""
        client.close()
    wait_until(lambda: not ports & connected_to(server), "the server to close their sockets")


def connected_to(server: Server) -> set[int]:
    """The client ports of the connections that the server's process holds a descriptor of."""
    inodes = set()
    for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(descriptor.readlink()))
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {int(row[2].split(":")[1], 16) for row in rows if f"socket:[{row[9]}]" in inodes}


# --- the others, and the log -----------------------------------------------------------------


def raw_control_characters(log: str) -> str:
    return "".join(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", log))


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_drop_leaves_others_alone_and_is_logged_in_one_line_with_its_reason(
    server: Server, peer: MakePeer, name: str
) -> None:
    bystander, client = peer(), peer()
    bystander.ask("PUT colour", "blue")
    bystander.send_text("PUT shade")  # its value is awaited while the other one is dropped
    client.send_raw(BAD_MESSAGES[name])
    assert client.read_to_end() == b""
    client.close()
    assert bystander.ask("dark") == "PUT: OK"
    assert bystander.ask("GET colour") == "blue"
    assert len(server.log().splitlines()) == 1, server.log()
    (line,) = server.log_lines(f":{client.port}:")
    assert re.search(rf":{client.port}: \S", line)
    assert REASONS.get(name, "") in line
    assert not re.search("HELLO|get x|DISCONNECT", line), "what a client says is its data"
    assert raw_control_characters(server.log()) == ""


@pytest.mark.parametrize("name", BAD_KEY_LINES)
def test_a_bad_key_leaves_others_alone_and_is_logged_in_one_line_with_its_reason(
    server: Server, connect: MakePeer, peer: MakePeer, name: str
) -> None:
    bystander, client = peer(), connect()
    bystander.ask("PUT colour", "blue")
    client.send_raw(BAD_KEY_LINES[name])
    assert client.read_to_end() == b""
    client.close()
    assert bystander.ask("GET colour") == "blue"
    assert len(server.log().splitlines()) == 1, server.log()
    assert re.search(rf":{client.port}: \S", server.log())


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b]0;owned\x07",
        "HELLO\r2026-01-01 00:00:00,000 INFO forged",
        "HELLO\n2026-01-01 00:00:00,000 INFO forged",
        "\x00\x01\x08\x0b\x0c\x7f",
        "\\x1b is not \x1b",
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


def test_a_long_bad_message_does_not_make_a_long_log_line(
    start_server: Callable[..., Server], peer: MakePeer
) -> None:
    server = start_server("--log-level", "debug")
    client = peer(port=server.port)
    client.send_text("\x1b" * LONGEST_TEXT)
    assert client.read_to_end() == b""
    assert max(map(len, server.log().splitlines())) < 400
