"""The PROXY protocol: who is behind a connection, and who may say so."""

import ipaddress
import re
import socket
import struct
from unittest import mock

import pytest
from house import Guest, House, house
from tls_peer import TlsSocket

from kv.net import reception
from kv.net.proxy import SIGNATURE, BadHeader, networks, parse, within

LOOPBACK = networks("127.0.0.1, ::1")
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 4242\r\n"


def v2(said: int = 0x21, kind: int = 0x11, body: bytes | None = None) -> bytes:
    """A header of version 2: from 192.0.2.7 port 50000, unless said otherwise."""
    if body is None:
        body = bytes([192, 0, 2, 7, 192, 0, 2, 1]) + struct.pack(">HH", 50000, 4242)
    return SIGNATURE + bytes([said, kind]) + struct.pack(">H", len(body)) + body


SIX = ipaddress.ip_address("2001:db8::7").packed + bytes(16) + struct.pack(">HH", 50000, 4242)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (V1, ("192.0.2.7", 50000)),
        (b"PROXY TCP6 2001:DB8::7 ::1 50000 4242\r\n", ("2001:db8::7", 50000, 0, 0)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        (v2(), ("192.0.2.7", 50000)),
        (v2(kind=0x21, body=SIX), ("2001:db8::7", 50000, 0, 0)),
        (v2(kind=0x21, body=SIX + b"\x20\0\x03abc"), ("2001:db8::7", 50000, 0, 0)),  # and more
        (v2(said=0x20), None),  # LOCAL: a health check
        (v2(said=0x20, kind=0, body=b""), None),
        (v2(kind=0, body=b""), None),
        (v2(kind=0x12), None),  # UDP
        (v2(kind=0x31, body=bytes(216)), None),  # UNIX sockets
    ],
)
def test_a_header_says_who_it_is(header: bytes, address: object) -> None:
    for end in range(1, len(header)):
        assert parse(header[:end]) is None, end
    assert parse(header) == parse(header + b"and what follows") == (len(header), address)


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n",
        b"MEgCQQ",
        b"\0",
        b"PROXX",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 50000\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 4242 1\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.1 50000 4242\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 50000 4242\r\n",
        b"PROXY TCP6 192.0.2.7 192.0.2.1 50000 4242\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 050000 4242\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 4242\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 4242\r\n",
        b"PROXY TCP4  192.0.2.7 192.0.2.1 1 4242\r\n",
        b"PROXY TCP5 192.0.2.7 192.0.2.1 1 4242\r\n",
        b"PROXY \xff\r\n",
        b"PROXY " + b"x" * 200,
        v2(said=0x11),
        v2(said=0x22),
        v2(kind=0x41),
        v2(kind=0x13),
        v2(body=b"short"),
        v2(body=bytes(3000)),
    ],
)
def test_what_is_no_header_is_refused(octets: bytes) -> None:
    with pytest.raises(BadHeader):
        parse(octets)


def test_balancers_are_addresses_and_networks() -> None:
    allowed = networks("192.0.2.1, 10.0.0.0/8,2001:db8::/32")
    assert within(("10.1.2.3", 1), allowed) and within(("192.0.2.1", 1), allowed)
    assert within(("::ffff:10.1.2.3", 1, 0, 0), allowed)
    assert within(("2001:db8::1%eth0", 1, 0, 2), allowed)
    assert not within(("192.0.2.2", 1), allowed) and not within(("::1", 1, 0, 0), allowed)


# --- with a server -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def informed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kv")


def begin(h: House, *pieces: bytes) -> Guest:
    """A guest that begins with these octets, a turn between them."""
    guest = h.guest()
    for piece in pieces:
        guest.send_raw(piece)
    return guest


@pytest.mark.parametrize("header", [V1, v2(), v2(body=v2()[16:] + bytes(1000))])
@pytest.mark.parametrize("tls", [False, True])
def test_the_log_says_who_is_behind_it(
    header: bytes, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with house(balancers=LOOPBACK, tls=tls) as h:
        h.tls = False  # the header is no matter of TLS
        guest = begin(h, header)
        if tls:
            guest.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            guest.socket = TlsSocket(guest.socket)  # type: ignore[assignment]
        guest.connect("alice")
        guest.send_raw(b"nonsense\n")
    assert "dropped 'alice' at 192.0.2.7:50000: " in caplog.text


@pytest.mark.parametrize("header", [V1, v2()])
def test_a_header_may_come_in_pieces_and_with_what_follows(header: bytes) -> None:
    with house(balancers=LOOPBACK) as h:
        pieces = [header[i : i + 1] for i in range(len(header))]
        guest = begin(h, *pieces[:-1])
        guest.send_raw(pieces[-1] + guest.key.line + guest.key.seal(b"CONNECT alice"))
        assert guest.texts() == ["CONNECT: OK"]


def test_a_health_check_is_served_like_anybody() -> None:
    with house(balancers=LOOPBACK) as h:
        guest = begin(h, v2(said=0x20, kind=0, body=b"")).connect("probe")
        assert guest.ask("GET k") == ["GET: ERROR"]


@pytest.mark.parametrize(
    ("balancers", "octets", "why"),
    [
        ("127.0.0.1", b"GET / HTTP/1.1\r\n", "it begins with no PROXY header"),
        ("127.0.0.1", b"\xff" * 3000, "it begins with no PROXY header"),
        ("192.0.2.1", V1, "it is not one of the balancers"),
    ],
    ids=["HTTP", "no text", "another"],
)
def test_whoever_has_no_header_or_is_no_balancer_is_dropped(
    balancers: str, octets: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with house(balancers=networks(balancers)) as h:
        guest = begin(h, octets)
        assert guest.ended and not guest.received
    assert re.search(rf"dropped 127\.0\.0\.1:\d+: {why}", caplog.text)


def test_a_header_has_its_time_and_nobody_spins_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with house(balancers=LOOPBACK, handshake_timeout=5) as h:
        guest = begin(h, V1[:10])
        h.wait(4)
        guest.send_raw(V1[10:12])
        assert not guest.ended
        h.wait(1.5)
        assert guest.ended
    assert "no PROXY header in 5 s" in caplog.text


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("header", [b"", V1[:9], v2(said=0x20)])
def test_a_health_check_that_says_nothing_is_no_news(
    header: bytes, leave: str, caplog: pytest.LogCaptureFixture
) -> None:
    with house(balancers=LOOPBACK) as h:
        guest = begin(h, header)
        guest.reset() if leave == "reset" else guest.socket.close()
        h.settle()
        assert not h.server.drops
    assert "lost" not in caplog.text and "dropped" not in caplog.text


def test_whoever_asks_what_became_of_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "kv")
    with house(balancers=LOOPBACK) as h:
        begin(h, V1[:9]).socket.close()
        h.settle()
    told = r"lost 127\.0\.0\.1:\d+: it ended before its PROXY header$"
    assert re.search(told, caplog.text, re.M)


def test_those_who_wait_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MOST", 3)
    with house(balancers=LOOPBACK) as h:
        silent = [h.guest() for _ in range(5)]
        assert [guest.ended for guest in silent] == [False] * 3 + [True] * 2
        silent[0].send_raw(V1)
        silent[0].connect("alice")
        begin(h, V1).connect("bob")


def test_a_connection_counts_before_its_header_has_come() -> None:
    with house(balancers=LOOPBACK, max_connections=2, handshake_timeout=5) as h:
        late, silent = h.guest(), h.guest()
        waiting = begin(h, V1, h.guests[0].key.line)
        gone = begin(h, b"GET / HTTP/1.1\r\n")
        late.send_raw(V1)
        late.connect("late")
        assert len(h.server.connections) == 1 and not waiting.received and not gone.ended
        h.wait(5)  # the silent one is dropped, so the next one gets in
        assert silent.ended and waiting.received and not gone.ended
        late.socket.close()
        h.settle()
        assert gone.ended and len(h.server.connections) == 1
        assert waiting.ask("CONNECT another") == ["CONNECT: OK"]
        assert "accepting paused 2 times" in h.server.statistics()


def test_a_stop_looks_once_more_for_headers_that_have_come() -> None:
    with house(balancers=LOOPBACK) as h:
        late, part = h.guest(), h.guest()
        late.unsent += V1 + late.key.line + late.key.seal(b"CONNECT a")
        part.unsent += V1[:9]
        late.read()
        part.read()  # nobody has looked since
        h.server.stop(5)
        h.settle()
        assert late.texts() == ["CONNECT: OK"] and late.ended and part.ended


def test_whoever_cannot_be_waited_for_takes_no_place() -> None:
    with house(balancers=LOOPBACK, max_connections=1) as h:
        with mock.patch.object(h.selector, "register", side_effect=OSError("no room")):
            assert h.guest().ended
        h.wait(1)  # the listener has its pause, too
        begin(h, V1).connect("next")


def test_a_stop_answers_whoever_has_said_who_it_is() -> None:
    with house(balancers=LOOPBACK) as h:
        silent = h.guest()
        queued, mute = Guest(h), Guest(h)  # the kernel alone knows of them
        h.guests += [queued, mute]
        queued.unsent += v2() + queued.key.line + queued.key.seal(b"CONNECT a")
        queued.read()
        h.server.stop(5)
        h.settle()
        assert silent.ended and mute.ended
        assert queued.texts() == ["CONNECT: OK"] and queued.ended
