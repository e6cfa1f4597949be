"""Each limit at, below and above: real sockets, and a clock that is moved by hand."""

import logging
import resource
import socket
from unittest import mock

import pytest
from house import VALUE, Guest, House, house

from kv.net import tcp
from kv.net.owner import Limits
from kv.net.stream import Stream
from kv.net.tcp import KERNEL_BUFFER
from kv.process import RESERVED, affordable
from kv.protocol.conversation import ServerConversation
from kv.protocol.store import ENTRY, SESSION
from kv.server import ACCEPTING

# --- deadlines -------------------------------------------------------------------------------


def test_a_handshake_has_ten_seconds_and_octets_do_not_extend_it() -> None:
    with house() as h:
        silent, slow = h.guest(), h.guest()
        for octet in slow.key.line[:9]:
            slow.send_raw(bytes([octet]))
            h.wait(1)
        h.wait(0.99)
        assert not silent.ended and not slow.ended
        h.wait(0.02)
        assert silent.ended and slow.ended and h.server.drops == {"handshake": 2}


def test_whoever_waits_for_its_turn_has_a_second_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "queued", True)
    with house() as h:
        guest = h.guest()
        h.wait(10)
        h.wait(0.99)
        assert not guest.ended
        h.wait(0.02)
        assert guest.ended and h.server.drops == {"handshake": 1}


def test_neither_a_key_nor_a_refused_id_ends_the_handshake() -> None:
    with house() as h:
        h.guest().connect("alice")
        guest = h.guest()
        guest.send_raw(guest.key.line)
        h.wait(5)
        assert guest.ask("CONNECT alice") == ["CONNECT: ERROR"]
        h.wait(4.9)
        assert not guest.ended
        h.wait(0.2)
        assert guest.ended


def test_an_hour_without_a_message_ends_a_session() -> None:
    with house() as h:
        guest = h.guest().connect()
        h.wait(3599)
        guest.send("GET x")
        h.wait(3599)
        assert not guest.ended
        guest.send_raw(b"A")  # an octet is not a message
        h.wait(2)
        assert guest.ended and h.server.drops == {"idle": 1}
        assert len(h.store) == 0


def test_an_idle_timeout_of_0_is_never() -> None:
    with house(idle_timeout=0) as h:
        guest = h.guest().connect()
        h.wait(1e9)
        assert guest.ask("GET x") == ["GET: ERROR"]


def test_what_is_owed_at_two_looks_in_a_row_puts_the_idle_deadline_off() -> None:
    """At a single look it may be the last reply, which a client need not have taken yet."""

    def look(seconds: float, owed: int) -> bool:
        with mock.patch.object(tcp, "unacknowledged", lambda _: owed):
            h.wait(seconds)
        return guest.ended

    for message, looks in [
        (0, [(10, 1), (1, 0)]),  # once is not enough,
        (5, [(5, 1), (1, 0), (4, 1), (1, 0)]),  # nor is twice with another look between
        (0, [(10, 1), (1, 1), (1, 0), (8.9, 0), (0.2, 0)]),  # a second look puts it off
    ]:
        with house(idle_timeout=10) as h:
            guest = h.guest().connect()
            h.wait(message)
            guest.ask("GET x")
            assert [look(*each) for each in looks] == [False] * (len(looks) - 1) + [True]
            assert h.server.drops == {"idle": 1}


def test_who_wrote_in_time_is_answered_after_a_stop_though_its_turn_has_to_come() -> None:
    with house(idle_timeout=60, budget=1) as h:  # a turn is over after one message
        guests = [h.guest().connect(f"guest {number}") for number in range(9)]
        guests += [h.guest() for _ in range(9)]
        for guest in guests[:9]:
            guest.socket.send(guest.key.seal(b"GET x"))
        for number, guest in enumerate(guests[9:]):
            guest.socket.send(guest.key.line + guest.key.seal(b"CONNECT new %d" % number))
        h.wait(100)  # the process was stopped
        assert [guest.texts()[-1] for guest in guests] == ["GET: ERROR"] * 9 + ["CONNECT: OK"] * 9
        h.wait(59)
        assert not h.server.drops
        h.wait(2)
        assert h.server.drops == {"idle": 18}


def stuck(h: House, client_id: str = "stuck") -> Guest:
    """A guest that does not read, and for whom replies wait in the server."""
    guest = h.owed(600, client_id)
    assert waiting(h) > 0
    return guest


def waiting(h: House) -> int:
    return max((c.stream.unsent for c in h.server.connections), default=0)


def test_a_client_that_takes_no_reply_for_a_minute_is_aborted() -> None:
    with house() as h:
        guest = stuck(h)
        with mock.patch.object(tcp, "unacknowledged", lambda _: 1000):
            h.wait(15)  # the first of four looks: it took a little when the time began
            h.wait(59.9)
            assert h.server.connections
            h.wait(0.2)
        assert not h.server.connections and h.server.drops == {"stall": 1}
        assert len(h.store) == 0
        while not guest.ended:
            guest.take(65536)


def test_a_dropped_client_that_does_not_close_is_gone_after_two_seconds() -> None:
    with house() as h:
        guest = h.guest().connect()
        guest.send("HELLO")
        assert guest.ended and h.server.connections
        h.wait(1.99)
        assert h.server.connections
        h.wait(0.02)
        assert not h.server.connections


def test_a_dropped_client_may_go_on_for_a_megabyte() -> None:
    size = Limits().linger_size
    with house() as h:
        guest = h.guest().connect()
        guest.send("HELLO")
        guest.reads = guest.ended = False  # it does not care
        guest.send_raw(bytes(size - 16 * 1024))
        assert h.server.connections
        guest.send_raw(bytes(32 * 1024))
        assert not h.server.connections


def test_what_a_dropped_client_sends_is_counted_only_once_it_has_its_replies() -> None:
    with house(stream={"linger_size": 10_000, "high_water": 1 << 20}) as h:
        guest = stuck(h)
        guest.send("HELLO")
        guest.send_raw(bytes(100_000))
        assert waiting(h) > 0 and not guest.unsent
        guest.read_on(603)
        assert guest.texts() == ["CONNECT: OK", "PUT: OK", *[VALUE] * 600]


# --- buffers ---------------------------------------------------------------------------------


def test_what_waits_for_a_client_that_never_reads_is_bounded() -> None:
    with house(stream={"high_water": 8192, "low_water": 1024}) as h:
        guest = stuck(h)
        guest.send(*["GET k"] * 2000)
        assert 1024 < waiting(h) <= 8192 + 431
        (connection,) = h.server.connections
        kept = connection.stream._lines.octets
        assert sum(kept) <= Limits().read_size + Limits().line_size
        guest.read_on(2603)
        assert guest.texts() == ["CONNECT: OK", "PUT: OK", *[VALUE] * 2600]


def test_a_connection_holds_little_in_the_kernel_and_is_probed() -> None:
    with house() as h:
        h.guest().connect()
        (connection,) = h.server.connections
        sock = connection.stream.transport.sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * KERNEL_BUFFER
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * KERNEL_BUFFER
        idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", 0)
        first, every, probes = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (idle, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert first + every * probes < 120


# --- connections -----------------------------------------------------------------------------


def test_at_the_limit_of_connections_further_ones_wait_and_get_in_as_others_end() -> None:
    with house(max_connections=2) as h:
        first, second = h.guest().connect("1"), h.guest().connect("2")
        third, fourth = h.guest(), h.guest()
        third.send_raw(third.key.line)
        fourth.send_raw(fourth.key.line)
        assert len(h.server.connections) == 2 and not third.received and not fourth.received
        first.ask("DISCONNECT")
        first.socket.close()
        h.settle()
        assert len(h.server.connections) == 2 and third.received and not fourth.received
        second.socket.close()
        h.settle()
        assert fourth.received
        assert "accepting paused 3 times" in h.server.statistics()


def test_everything_since_the_start_is_counted() -> None:
    with house(max_connections=2, memory=10_000) as h:
        for number in (1, 2):
            guest = h.guest().connect(str(number))
            guest.send("PUT a", "x" * number, "GET a")
        guest.send("nonsense")
        guest.socket.close()
        h.wait(100)
        key, line = len(guest.key.line), 89
        assert h.server.statistics().startswith(
            "up 100 s; connections: 1 now, 2 in all, accepting paused 1 times at the limit;"
            f" sessions: 1 with 1 keys, charged {h.store.used} of 10000 octets; messages: 11;"
            f" octets: {2 * key + 9 * line} received, {2 * key + 6 * line} sent;"
            f" drops: 1 violation; turns: {h.reactor.turns}, the longest "
        )


def test_accepting_a_connection_is_work() -> None:
    with house() as h, socket.create_connection(("127.0.0.1", h.port)):
        h.reactor.turn()
        assert h.server.turns.left == h.server.settings.budget - ACCEPTING


def test_who_has_no_answer_when_the_time_of_a_stop_is_over_is_counted() -> None:
    with house(budget=1) as h:
        guest = h.guest().connect()
        guest.socket.send(guest.key.seal(b"GET x") * 50)
        h.server.stop(0)
        for _ in range(3):  # a message in each
            h.reactor.turn()
        assert not h.server.connections and h.server.cut_short == 1


def test_a_large_session_is_freed_while_its_connection_lingers() -> None:
    with house() as h:
        guest = h.guest(reads=False)
        guest.send_raw(guest.key.line).send("CONNECT alice")
        for number in range(5000):  # many buckets
            h.store.sessions["alice"].put(f"k{number}", "v")
        guest.send("DISCONNECT")
        assert h.server.connections and not h.store.sweep(0)


def test_one_below_the_limit_everybody_gets_in() -> None:
    with house(max_connections=3) as h:
        for name in "12":
            h.guest().connect(name)
        assert "accepting paused 0 times" in h.server.statistics()


UNLIMITED = resource.RLIM_INFINITY
MORE = 500 + RESERVED


@pytest.mark.parametrize(
    ("soft", "hard", "asked", "granted", "raised"),
    [
        (100, 1000, 500, 500, MORE),  # raised as far as needed
        (100, UNLIMITED, 500, 500, MORE),
        (100, 200, 500, 200 - RESERVED, 200),  # and as far as allowed
        (MORE, 1000, 500, 500, None),  # exactly enough
        (MORE - 1, MORE - 1, 500, 499, MORE - 1),  # one too many
        (UNLIMITED, UNLIMITED, 500, 500, None),
        (10, 20, 500, 1, 20),  # one at least
        (100, 0, 500, 100 - RESERVED, 0),  # refused, as a further limit of macOS may have it
    ],
)
def test_the_limit_of_connections_fits_the_descriptors(
    soft: int, hard: int, asked: int, granted: int, raised: int | None
) -> None:
    def set_limits(_: int, limits: tuple[int, int]) -> None:
        assert limits == (raised, hard)
        if not hard:
            raise ValueError

    with (
        mock.patch("kv.process.resource.getrlimit", lambda _: (soft, hard)),
        mock.patch("kv.process.resource.setrlimit", side_effect=set_limits) as done,
        mock.patch("kv.process.log.warning") as said,
    ):
        assert affordable(asked) == granted
    assert done.called == (raised is not None)
    told = [call.args[1:] for call in said.call_args_list]
    assert told == [(granted, asked, hard or soft)] * (granted < asked)


# --- memory ----------------------------------------------------------------------------------


def test_past_the_limit_of_memory_put_is_refused_until_something_goes() -> None:
    room = SESSION + len("alice") + 2 * (ENTRY + 1 + 4)
    with house(memory=room) as h:
        guest = h.guest().connect()
        put = guest.ask("PUT a", "1234", "PUT b", "1234", "PUT c", "", "PUT a", "12345", "GET a")
        assert put == ["PUT: OK", "PUT: OK", "PUT: ERROR", "PUT: ERROR", "1234"]
        assert guest.ask("PUT a", "4321", "GET a") == ["PUT: OK", "4321"]
        assert guest.ask("DELETE b", "PUT c", "1234") == ["DELETE: OK", "PUT: OK"]


# --- mistakes of our own ---------------------------------------------------------------------


def test_an_error_in_handling_one_client_drops_that_client_and_is_logged_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    execute = ServerConversation._execute

    def broken(self: ServerConversation, message: str, argument: str) -> object:
        return execute(self, message, argument) if argument != "bug" else 1 // 0

    monkeypatch.setattr(ServerConversation, "_execute", broken)
    with house() as h, caplog.at_level(logging.INFO, "kv"):
        bystander, guest = h.guest().connect("1"), h.guest().connect("2")
        guest.send("GET bug")
        assert guest.ended and h.server.drops == {"error": 1}
        assert bystander.ask("GET x") == ["GET: ERROR"]
        assert list(h.store.sessions) == ["1"]
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError


def test_a_client_whose_connection_cannot_be_set_up_is_dropped_and_the_rest_get_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with house() as h:
        with monkeypatch.context() as patch:
            patch.setattr("kv.connection.ServerConversation", None)
            guest = h.guest()
            h.settle()
        assert guest.ended and not h.server.connections
        assert h.guest().connect().ask("GET x") == ["GET: ERROR"]
