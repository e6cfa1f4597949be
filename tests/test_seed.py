"""The seed protocol, sentence by sentence, from outside: raw sockets against the real server."""

import contextlib
from collections.abc import Callable

import pytest
from conftest import Server
from wire import (
    KEY,
    LONGEST_TEXT,
    OTHER_KEY,
    Peer,
    bad_key_lines,
    bad_lines,
    bad_messages,
    der_public_key,
    from_line,
    new_id,
    to_line,
)

MakePeer = Callable[..., Peer]
LONGEST_KEY = "k" * 261
BAD_MESSAGES = bad_messages()
BAD_KEY_LINES = bad_key_lines()


def assert_dropped(peer: Peer) -> None:
    """The server ended the connection, and said nothing more."""
    assert peer.read_to_end() == b""


# --- the key exchange ------------------------------------------------------------------------


def test_the_server_sends_nothing_before_it_has_the_clients_key(
    connect: MakePeer, barrier: Callable[[], None]
) -> None:
    client = connect()
    barrier()
    assert client.silent()
    client.send_raw(KEY.line[:-1])  # all but its LF
    barrier()
    assert client.silent()
    client.send_raw(b"\n")
    client.read_key()


def test_the_server_answers_the_clients_key_with_its_own(connect: MakePeer) -> None:
    n, e = connect().handshake().server_key or (0, 0)
    assert n.bit_length() == 512
    assert e % 2 and 3 <= e < 2**32


def test_the_server_has_one_key_for_everybody(connect: MakePeer) -> None:
    assert connect().handshake().server_key == connect(key=OTHER_KEY).handshake().server_key


def test_after_its_key_the_server_waits_for_the_client(
    connect: MakePeer, barrier: Callable[[], None]
) -> None:
    client = connect().handshake()
    barrier()
    assert client.silent()


def test_each_client_has_a_key_of_its_own(peer: MakePeer) -> None:
    one, two = peer(key=KEY), peer(key=OTHER_KEY)
    assert one.ask("PUT x", "one") == two.ask("PUT x", "two") == "PUT: OK"
    assert (one.ask("GET x"), two.ask("GET x")) == ("one", "two")


def test_the_servers_own_key_is_no_key_for_a_client(connect: MakePeer, peer: MakePeer) -> None:
    """Or else lines that the server has sealed for others would be messages, without any key."""
    other = peer()
    assert other.ask("PUT x", "CONNECT nobody") == "PUT: OK"
    other.send_text("GET x")
    sealed_by_the_server = other.read_line()
    assert other.server_key
    client = connect()
    client.send_raw(to_line(der_public_key(*other.server_key)) + sealed_by_the_server)
    assert_dropped(client)


@pytest.mark.parametrize("name", BAD_KEY_LINES)
def test_a_first_line_that_is_no_key_is_dropped_without_an_answer(
    connect: MakePeer, name: str
) -> None:
    client = connect()
    client.send_raw(BAD_KEY_LINES[name])
    assert_dropped(client)


# --- CONNECT ---------------------------------------------------------------------------------


def test_connect_with_an_id_in_use_is_answered_with_connect_error(
    connect: MakePeer, peer: MakePeer
) -> None:
    name = new_id()
    peer(name)
    assert connect().handshake().ask(f"CONNECT {name}") == "CONNECT: ERROR"


def test_client_ids_are_case_sensitive(peer: MakePeer) -> None:
    name = new_id("Case")
    for client_id in (name, name.lower(), name.upper()):
        peer(client_id)


def test_a_client_id_may_have_any_character_of_a_text_even_a_space(peer: MakePeer) -> None:
    peer(new_id(" two words ")).ask("PUT x", "y")
    peer(new_id("\x00\x1b\x7f\r\t"))


def test_sessions_do_not_see_each_others_data(peer: MakePeer) -> None:
    one, two = peer(), peer()
    assert one.ask("PUT x", "mine") == "PUT: OK"
    assert two.ask("GET x") == "GET: ERROR"
    assert two.ask("DELETE x") == "DELETE: OK"
    assert one.ask("GET x") == "mine"


# --- PUT, GET, DELETE ------------------------------------------------------------------------


def test_put_is_answered_after_its_value_with_put_ok(
    peer: MakePeer, barrier: Callable[[], None]
) -> None:
    client = peer()
    client.send_text("PUT colour")
    barrier()
    assert client.silent()
    assert client.ask("blue") == "PUT: OK"


#: What is said in a session, and what is answered.
SAID = {
    "get is answered with the bare value": "PUT colour=blue -> PUT: OK, GET colour -> blue",
    "get of a key that is not there": "GET colour -> GET: ERROR",
    "put overwrites": "PUT a=1 -> PUT: OK, PUT a=2 -> PUT: OK, GET a -> 2",
    "delete": "PUT a=1 -> PUT: OK, DELETE a -> DELETE: OK, GET a -> GET: ERROR",
    "delete of a key that is not there": "DELETE a -> DELETE: OK, DELETE a -> DELETE: OK",
    "delete leaves the others": "PUT a=1 -> PUT: OK, PUT b=2 -> PUT: OK, DELETE a -> DELETE: OK,"
    " GET b -> 2",
    "keys are case sensitive": "PUT key=1 -> PUT: OK, PUT Key=2 -> PUT: OK, GET key -> 1,"
    " GET Key -> 2, GET KEY -> GET: ERROR",
    "values keep their case": "PUT colour=bLuE -> PUT: OK, GET colour -> bLuE",
    "one space ends the verb and further ones belong to the key": "PUT  a b =1 -> PUT: OK,"
    " PUT  =2 -> PUT: OK, GET  a b  -> 1, GET a b  -> GET: ERROR, GET  a b -> GET: ERROR,"
    " GET   -> 2",
    "the longest key": f"PUT {LONGEST_KEY}=1 -> PUT: OK, GET {LONGEST_KEY} -> 1,"
    f" DELETE {LONGEST_KEY[:258]} -> DELETE: OK, GET {LONGEST_KEY} -> 1",
}


@pytest.mark.parametrize("name", SAID)
def test_a_session_is_answered_as_the_protocol_says(peer: MakePeer, name: str) -> None:
    client = peer()
    for exchange in SAID[name].split(", "):
        said, answer = exchange.split(" -> ")
        assert client.ask(*said.split("=")) == answer, exchange


EVERY = "".join(map(chr, range(128))).replace("\n", "")
TEXTS = ["", " ", "DISCONNECT", "GET x", "PUT: OK", "PUT: ERROR", "get: error", "GET: ERROR "]
#: Of every number of blocks.
SIZES = [1, 52, 53, 54, 105, 106, 107, len(EVERY), 212, 264, LONGEST_TEXT]


@pytest.mark.parametrize("text", [*TEXTS, *((EVERY * 3)[:size] for size in SIZES)], ids=len)
def test_a_key_and_a_value_may_be_any_text_even_a_command(peer: MakePeer, text: str) -> None:
    client, key = peer(), text[: len(LONGEST_KEY)] or "x"
    assert client.ask(f"PUT {key}", text) == "PUT: OK"
    assert client.ask(f"GET {key}") == text


def test_the_longest_client_id_has_257_characters(peer: MakePeer) -> None:
    name = new_id("").ljust(LONGEST_TEXT - len("CONNECT "), "i")
    assert len(name) == 257
    peer(name)


def test_replies_come_in_the_order_of_their_commands(peer: MakePeer) -> None:
    client = peer()
    client.send_text("PUT a", "1", "GET a", "GET b", "DELETE a", "GET a", "PUT b", "2", "GET b")
    assert client.read_texts(7) == [
        *("PUT: OK", "1", "GET: ERROR", "DELETE: OK", "GET: ERROR", "PUT: OK", "2"),
    ]


def test_a_client_may_send_everything_before_it_reads_anything(connect: MakePeer) -> None:
    client = connect()
    client.send_raw(client.key.line)
    client.send_text(f"CONNECT {new_id()}", "PUT a", "1", "GET a", "DISCONNECT")
    client.read_key()
    assert client.read_texts_to_end() == ["CONNECT: OK", "PUT: OK", "1", "DISCONNECT: OK"]


def test_one_text_has_one_line_so_equal_replies_are_equal_lines(peer: MakePeer) -> None:
    one, two = peer(), peer()
    for client in (one, one, two):
        client.send_text("GET nothing")
    lines = {one.read_line(), one.read_line(), two.read_line()}
    assert len(lines) == 1
    assert len(from_line(lines.pop())) == 64


# --- DISCONNECT ------------------------------------------------------------------------------


def test_disconnect_is_answered_with_disconnect_ok_and_the_server_closes(peer: MakePeer) -> None:
    client = peer()
    client.send_text("DISCONNECT")
    assert client.read_texts_to_end() == ["DISCONNECT: OK"]


# --- any other message -----------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_any_other_message_is_dropped_and_the_id_is_free_straight_after(
    peer: MakePeer, name: str
) -> None:
    client_id = new_id()
    client = peer(client_id)
    client.ask("PUT colour", "blue")
    client.send_raw(BAD_MESSAGES[name])
    assert_dropped(client)
    successor = peer(client_id)
    assert successor.ask("GET colour") == "GET: ERROR"


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_any_other_message_before_connect_is_dropped(connect: MakePeer, name: str) -> None:
    client = connect().handshake()
    client.send_raw(BAD_MESSAGES[name])
    assert_dropped(client)


@pytest.mark.parametrize("command", ["PUT x", "GET x", "DELETE x", "DISCONNECT"])
def test_a_command_before_connect_is_dropped(connect: MakePeer, command: str) -> None:
    client = connect().handshake()
    client.send_text(command)
    assert_dropped(client)


# Where a value is awaited every text is one; what is no text at all is still dropped.
BAD_VALUES = [
    *bad_lines(),
    *("non-ASCII octet", "UTF-8", "LF in the text", "LF at the end of the text"),
]


@pytest.mark.parametrize("name", BAD_VALUES)
def test_what_is_no_text_is_dropped_where_a_value_is_awaited(peer: MakePeer, name: str) -> None:
    client_id = new_id()
    client = peer(client_id)
    client.send_text("PUT colour")
    client.send_raw(BAD_MESSAGES[name])
    assert_dropped(client)
    peer(client_id)


def test_a_dropped_client_does_not_disturb_the_server(server: Server, peer: MakePeer) -> None:
    bystander = peer()
    bystander.ask("PUT colour", "blue")
    for octets in (*BAD_MESSAGES.values(), b"\n" * 1000, bytes(100_000)):
        client = peer()
        client.send_raw(octets)
        with contextlib.suppress(ConnectionError):
            client.read_to_end()
    assert bystander.ask("GET colour") == "blue"
