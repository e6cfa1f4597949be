"""Lines, however the network cuts them, and their longest."""

import re
from collections.abc import Callable

import pytest
from conftest import Server
from wire import Key, Peer, new_id

MakePeer = Callable[..., Peer]
Wait = Callable[[], None]

LINE_SIZE = 511  # the longest line, LF included


def reason(server: Server, client: Peer) -> str:
    """The reason that the server logged for dropping `client`, and for nothing else."""
    (line,) = server.log_lines(f":{client.port}:")
    return re.sub(rf".*:{client.port}: ", "", line)


# --- cuts ------------------------------------------------------------------------------------


def test_three_messages_cut_at_every_octet_are_the_same_three(
    peer: MakePeer, barrier: Wait
) -> None:
    client = peer()
    lines = b"".join(map(client.seal, ["PUT colour", "blue", "GET colour", "DELETE colour"]))
    for cut in range(1, len(lines)):
        client.send_raw(lines[:cut])
        barrier()
        client.send_raw(lines[cut:])
        assert client.read_texts(3) == ["PUT: OK", "blue", "DELETE: OK"], f"{cut} octets"


def test_a_key_line_cut_at_every_octet_is_the_same_key(connect: MakePeer, barrier: Wait) -> None:
    for cut in range(1, len(connect().key.line)):
        client = connect()
        client.send_raw(client.key.line[:cut])
        barrier()
        client.send_raw(client.key.line[cut:])
        client.read_key()


def test_a_conversation_that_arrives_octet_by_octet_gets_the_same_replies(
    connect: MakePeer, barrier: Wait
) -> None:
    client = connect()
    texts = [f"CONNECT {new_id()}", "PUT colour", "blue", "GET colour", "DISCONNECT"]
    for octet in client.key.line + b"".join(map(client.seal, texts)):
        client.send_raw(bytes([octet]))
        barrier()
    client.read_key()
    assert client.read_texts_to_end() == ["CONNECT: OK", "PUT: OK", "blue", "DISCONNECT: OK"]


def fifty() -> tuple[list[str], list[str]]:
    """Fifty messages and their replies."""
    texts, replies = [], []
    for number in range(10):
        key = f"key {number}"
        texts += [f"PUT {key}", "v" * (number * 29), f"GET {key}", f"DELETE {key}", f"GET {key}"]
        replies += ["PUT: OK", "v" * (number * 29), "DELETE: OK", "GET: ERROR"]
    return texts, replies


@pytest.mark.parametrize("size", [7, 88, 89, 90, 512, 1000, 100_000])
def test_fifty_messages_in_pieces_of_any_size_get_the_same_replies(
    peer: MakePeer, barrier: Wait, size: int
) -> None:
    texts, replies = fifty()
    client = peer()
    stream = b"".join(map(client.seal, texts))
    for start in range(0, len(stream), size):
        client.send_raw(stream[start : start + size])
        barrier()
    assert client.read_texts(len(replies)) == replies


def test_thousands_of_messages_in_one_go_are_all_answered_in_order(peer: MakePeer) -> None:
    """More than one read, more than one turn: the rest must be scheduled, not awaited."""
    client = peer()
    numbers = [str(number % 50) for number in range(2000)]
    client.send_text(*(text for number in numbers for text in ("PUT " + number, number)))
    client.send_text(*("GET " + number for number in numbers[:200]))
    assert client.read_texts(2000) == ["PUT: OK"] * 2000
    assert client.read_texts(200) == numbers[:200]


# --- the longest line ------------------------------------------------------------------------


def test_511_octets_without_an_lf_are_dropped_and_510_are_not(
    server: Server, peer: MakePeer, barrier: Wait
) -> None:
    client = peer()
    client.send_raw(b"A" * (LINE_SIZE - 1))
    barrier()
    assert client.silent()
    client.send_raw(b"A")
    assert client.read_to_end() == b""
    assert str(LINE_SIZE) in reason(server, client)


def test_511_octets_without_an_lf_are_dropped_even_after_good_messages_in_one_segment(
    server: Server, peer: MakePeer
) -> None:
    client = peer()
    client.send_raw(client.seal("GET x") * 3 + b"A" * LINE_SIZE)
    assert client.read_texts_to_end() == ["GET: ERROR"] * 3
    assert str(LINE_SIZE) in reason(server, client)


@pytest.mark.parametrize("size", [508, 509, 510, 511, 512, 513, 1024])
def test_a_line_is_too_long_from_512_octets_on(server: Server, peer: MakePeer, size: int) -> None:
    client = peer()
    client.send_raw(b"A" * (size - 1) + b"\n")
    assert client.read_to_end() == b""  # it is no text, of course
    assert (str(LINE_SIZE) in reason(server, client)) == (size > LINE_SIZE)


def test_a_larger_receive_buffer_carries_longer_texts(
    start_server: Callable[..., Server], peer: MakePeer
) -> None:
    server = start_server("--receive-buffer-size", "8192")
    client = peer(port=server.port)
    longest = 11 * 53  # 11 blocks are 940 octets of base64; 12 would be 1024, and a line is 1023
    assert client.ask("PUT x", "v" * longest) == "PUT: OK"
    assert client.ask("GET x") == "v" * longest
    client.send_raw(b"A" * 1023)
    assert client.read_to_end() == b""
    assert "1023" in reason(server, client)


def test_larger_keys_have_larger_blocks(
    start_server: Callable[..., Server], peer: MakePeer, connect: MakePeer
) -> None:
    server = start_server("--key-bits", "1024")
    client = peer(port=server.port, key=Key.make(1024))
    assert client.server_key and client.server_key[0].bit_length() == 1024
    longest = 2 * 117
    assert client.ask("PUT x", "v" * longest) == "PUT: OK"
    assert client.ask("GET x") == "v" * longest
    small = connect(server.port)
    small.send_raw(small.key.line)
    assert small.read_to_end() == b""
