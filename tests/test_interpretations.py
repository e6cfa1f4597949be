"""The decisions where the seed protocol is silent: one test or more for each row of the table.

The memory limit has its own tests; the client's row is tested with the client.
"""

from collections.abc import Callable

import pytest
from conftest import Server
from wire import Peer, new_id

MakePeer = Callable[..., Peer]
Wait = Callable[[], None]

LONG = 265
VIOLATION = "HELLO"
ENDINGS = {"DISCONNECT": ["DISCONNECT: OK"], VIOLATION: []}

#: How a client leaves that has a session.
LEAVING: dict[str, Callable[[Peer], object]] = {
    "reset": Peer.reset,
    "close": Peer.close,
    "half-close": lambda peer: (peer.half_close(), peer.read_to_end()),
    "in a line": lambda peer: (peer.send_raw(peer.seal("GET colour")[:40]), peer.close()),
    "before a value": lambda peer: (peer.send_text("PUT colour"), peer.close()),
    "replies unread": lambda peer: (peer.send_text(*["GET colour"] * 300), peer.close()),
}


# --- a session's life ------------------------------------------------------------------------


@pytest.mark.parametrize("how", LEAVING)
def test_a_lost_connection_ends_the_session_and_its_data(
    peer: MakePeer, barrier: Wait, how: str
) -> None:
    name = new_id()
    client = peer(name)
    client.ask("PUT colour", "blue")
    LEAVING[how](client)
    barrier(10)  # what had arrived is handled first, in some turns
    assert peer(name).ask("GET colour") == "GET: ERROR"


def test_a_session_lives_as_long_as_its_connection(
    connect: MakePeer, peer: MakePeer, barrier: Wait
) -> None:
    name = new_id()
    client = peer(name)
    client.ask("PUT colour", "blue")
    for _ in range(5):
        barrier()
        assert connect().handshake().ask(f"CONNECT {name}") == "CONNECT: ERROR"
    assert client.ask("GET colour") == "blue"


# --- CONNECT ---------------------------------------------------------------------------------


def test_after_an_id_in_use_another_id_can_be_tried_on_the_same_connection(
    connect: MakePeer, peer: MakePeer
) -> None:
    name = new_id()
    holder, client = peer(name), connect().handshake()
    assert client.ask(f"CONNECT {name}") == "CONNECT: ERROR"
    assert client.ask(f"CONNECT {name}") == "CONNECT: ERROR"
    assert client.ask(f"CONNECT {new_id()}") == "CONNECT: OK"
    assert client.ask("PUT x", "y") == "PUT: OK"
    assert holder.ask("GET x") == "GET: ERROR"


def test_after_an_id_in_use_the_same_id_can_be_had_once_its_holder_has_gone(
    connect: MakePeer, peer: MakePeer
) -> None:
    name = new_id()
    holder, client = peer(name), connect().handshake()
    assert client.ask(f"CONNECT {name}") == "CONNECT: ERROR"
    assert holder.ask("DISCONNECT") == "DISCONNECT: OK"
    assert client.ask(f"CONNECT {name}") == "CONNECT: OK"


@pytest.mark.parametrize("command", ["GET x", "PUT x", "DELETE x", "DISCONNECT"])
def test_after_an_id_in_use_a_command_is_still_one_before_connect(
    connect: MakePeer, peer: MakePeer, command: str
) -> None:
    name = new_id()
    holder, client = peer(name), connect().handshake()
    assert client.ask(f"CONNECT {name}") == "CONNECT: ERROR"
    client.send_text(command)
    assert client.read_to_end() == b""
    assert holder.ask("GET x") == "GET: ERROR"


def test_a_client_that_leaves_after_an_id_in_use_does_not_take_the_holders_session_along(
    connect: MakePeer, peer: MakePeer, barrier: Wait
) -> None:
    name = new_id()
    holder = peer(name)
    holder.ask("PUT x", "y")
    client = connect().handshake()
    assert client.ask(f"CONNECT {name}") == "CONNECT: ERROR"
    client.close()
    barrier()
    assert holder.ask("GET x") == "y"
    assert connect().handshake().ask(f"CONNECT {name}") == "CONNECT: ERROR"


def test_connect_inside_a_session_is_an_error_and_the_session_goes_on(
    connect: MakePeer, peer: MakePeer
) -> None:
    name, other = new_id(), new_id()
    client = peer(name)
    client.ask("PUT x", "y")
    assert client.ask(f"CONNECT {other}") == "CONNECT: ERROR"
    assert client.ask(f"CONNECT {name}") == "CONNECT: ERROR"
    assert client.ask("GET x") == "y"
    peer(other)  # nobody took it
    assert connect().handshake().ask(f"CONNECT {name}") == "CONNECT: ERROR"


# --- the end ---------------------------------------------------------------------------------


def test_the_session_is_removed_before_disconnect_ok_is_sent(peer: MakePeer) -> None:
    name = new_id()
    client = peer(name)
    client.ask("PUT x", "y")
    assert client.ask("DISCONNECT") == "DISCONNECT: OK"
    assert peer(name).ask("GET x") == "GET: ERROR"  # and only now does the client leave
    assert client.read_to_end() == b""


@pytest.mark.parametrize("last", ENDINGS)
def test_what_follows_the_last_message_in_one_segment_is_never_interpreted(
    server: Server, peer: MakePeer, barrier: Wait, last: str
) -> None:
    name, untaken = new_id(), new_id()
    client = peer(name)
    client.send_text("GET x", last, "GET x", f"CONNECT {untaken}", "ANOTHER", "PUT x", "y")
    assert client.read_texts_to_end() == ["GET: ERROR", *ENDINGS[last]]
    peer(untaken)
    barrier()
    assert "ANOTHER" not in server.log()


@pytest.mark.parametrize("last", ENDINGS)
def test_what_follows_the_last_message_later_is_never_interpreted(
    server: Server, peer: MakePeer, barrier: Wait, last: str
) -> None:
    name, untaken = new_id(), new_id()
    client = peer(name)
    client.send_text(last)
    barrier()
    client.send_raw(client.key.line)
    client.send_text(f"CONNECT {untaken}", "GET x", "ANOTHER")
    barrier()
    client.send_raw(b"x" * 1000)
    assert client.read_texts_to_end() == ENDINGS[last]
    peer(untaken)
    peer(name)
    barrier()
    assert "ANOTHER" not in server.log()
    assert len(server.log_lines(f":{client.port}:")) == (last == VIOLATION)


# --- PUT -------------------------------------------------------------------------------------


def test_a_value_that_reads_get_error_is_refused_and_nothing_is_stored(peer: MakePeer) -> None:
    client = peer()
    assert client.ask("PUT x", "GET: ERROR") == "PUT: ERROR"
    client.ask("PUT y", "old")
    assert client.ask("PUT y", "GET: ERROR") == "PUT: ERROR"
    assert client.ask("GET y") == "old"
    assert client.ask("PUT x", "new") == "PUT: OK"
    assert client.ask("GET x") == "new"


def test_a_key_may_read_get_error(peer: MakePeer) -> None:
    client = peer()
    assert client.ask("PUT GET: ERROR", "x") == "PUT: OK"
    assert client.ask("GET GET: ERROR") == "x"


@pytest.mark.parametrize("sent", [0, 1, 40, 88])
def test_a_stream_that_ends_while_a_value_is_awaited_stores_nothing(
    server: Server, peer: MakePeer, sent: int
) -> None:
    name = new_id()
    client = peer(name)
    client.send_text("PUT x")
    client.send_raw(client.seal("value")[:sent])  # at the most all but its LF
    client.half_close()
    assert client.read_to_end() == b""
    assert peer(name).ask("GET x") == "GET: ERROR"


# --- half-close ------------------------------------------------------------------------------


def test_a_half_closed_client_still_gets_its_replies(peer: MakePeer) -> None:
    client = peer()
    client.send_text("PUT x", "y" * LONG, *["GET x"] * 300)
    client.half_close()
    assert client.read_texts_to_end() == ["PUT: OK", *["y" * LONG] * 300]


def test_a_client_that_half_closes_after_its_key_still_gets_the_servers(
    connect: MakePeer,
) -> None:
    client = connect()
    client.send_raw(client.key.line)
    client.half_close()
    client.read_key()
    assert client.read_to_end() == b""


def test_a_client_that_half_closes_before_its_key_is_closed(connect: MakePeer) -> None:
    client = connect()
    client.half_close()
    assert client.read_to_end() == b""


def test_an_incomplete_message_before_a_half_close_is_not_answered(peer: MakePeer) -> None:
    client = peer()
    client.send_raw(client.seal("GET x") + client.seal("GET x")[:-1])
    client.half_close()
    assert client.read_texts_to_end() == ["GET: ERROR"]


def test_a_violation_before_a_half_close_is_still_a_violation(
    server: Server, peer: MakePeer
) -> None:
    client = peer()
    client.send_text("GET x", VIOLATION, "GET x")
    client.half_close()
    assert client.read_texts_to_end() == ["GET: ERROR"]
    assert len(server.log_lines(f":{client.port}:")) == 1
