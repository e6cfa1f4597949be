"""TLS without a socket, against an `ssl.SSLObject` that is used as one would a blocking socket."""

import gc
import itertools
import os
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from certificates import CA, CLIENT, ENCRYPTED_KEY, EXPIRED, OTHER_CA, SERVER, STRANGER
from crafted import (
    ALERT,
    APPLICATION_DATA,
    ASKED,
    CLOSE_NOTIFY,
    CRAFTED,
    HANDSHAKE,
    KEY_UPDATE,
    Crafter,
    logging_context,
)

from kv.net.credentials import CredentialsError, client_context, server_context
from kv.net.owner import TlsError
from kv.net.records import LARGEST_HELLO, RECORD, ClearRecords
from kv.net.tls import PIECE, TRANSITIONS, Event, State, Tls

STATM = Path("/proc/self/statm")
PLAIN_KEY_LINE = b"MEgCQQC" + b"a" * 90 + b"\n"


class Peer:
    """The other end: OpenSSL behind two BIOs, driven by the test."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_name is None
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server, server_name)
        self.error: ssl.SSLError | None = None

    def hear(self, octets: bytes) -> None:
        if octets:
            self.incoming.write(octets)

    def say(self, call: Callable[..., object], *args: object) -> bytes:
        """What a call makes the peer send. The first error is kept: it is why the peer gives up."""
        try:
            call(*args)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = self.error or error
        return self.outgoing.read()

    def shake(self) -> bytes:
        return self.say(self.tls.do_handshake)

    def write(self, plaintext: bytes) -> bytes:
        return self.say(self.tls.write, plaintext)

    def end(self) -> bytes:
        return self.say(self.tls.unwrap)

    def read(self) -> bytes:
        """All that is there; an end shows as nothing more."""
        plaintext = b""
        try:
            while piece := self.tls.read(RECORD):
                plaintext += piece
        except ssl.SSLWantReadError:
            pass
        return plaintext

    def sees_the_end(self) -> bool:
        try:
            return self.tls.read(1) == b""
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLWantReadError:
            return False


def server(client_ca: str | None = None) -> Tls:
    return Tls(server_context(*SERVER, client_ca))


def our_client(ca: str | None = CA, name: str = "localhost") -> Tls:
    return Tls(client_context(ca), name)


def their_server(client_ca: str | None = None) -> Peer:
    return Peer(server_context(*SERVER, client_ca))


def client(own: tuple[str, str] | None = None) -> Peer:
    return Peer(client_context(CA, *(own or ())), "localhost")


def shaken(tls: Tls, peer: Peer) -> tuple[Tls, Peer]:
    """Both, once neither has anything more to say."""
    ours, theirs = tls.pending(), b""
    while True:
        peer.hear(ours)
        theirs = peer.shake()
        if not theirs and not ours:
            return tls, peer
        tls.received(theirs)
        ours = tls.pending()


@pytest.fixture(params=["server", "client"])
def both(request: pytest.FixtureRequest) -> tuple[Tls, Peer]:
    """Ours, as either side, and the peer, agreed."""
    if request.param == "server":
        return shaken(server(), client())
    return shaken(our_client(), their_server())


def test_plaintext_goes_both_ways(both: tuple[Tls, Peer]) -> None:
    tls, peer = both
    assert tls.received(peer.write(b"there\n")) == b"there\n"
    peer.hear(tls.write(b"and back\n"))
    assert peer.read() == b"and back\n"
    assert tls.state is State.OPEN
    assert not tls.pending()


def in_pieces(tls: Tls, octets: bytes, dice: Random) -> bytes:
    plaintext = b""
    while octets:
        size = dice.choice([1, 2, 5, 100, 5000])
        plaintext += tls.received(octets[:size])
        octets = octets[size:]
    return plaintext


def test_every_cut_gives_the_same_plaintext() -> None:
    for seed in range(20):
        dice = Random(seed)
        tls, peer = server(), client()
        while tls.state is State.HANDSHAKE:
            assert in_pieces(tls, peer.shake(), dice) == b""
            peer.hear(tls.pending())
        for size in [1, 50, 3000, 40_000]:
            said = dice.randbytes(size)
            assert in_pieces(tls, peer.write(said), dice) == said


def test_what_comes_with_the_last_of_the_handshake_is_not_left_behind() -> None:
    """A client need not wait after its Finished: no readiness would tell of what it says (50)."""
    tls, peer = server(), client()
    tls.received(peer.shake())
    peer.hear(tls.pending())
    assert tls.received(peer.shake() + peer.write(b"key line\n") + peer.end()) == b"key line\n"
    assert tls.state is State.THEY_ENDED


def test_a_whole_read_of_plaintext_comes_at_once(both: tuple[Tls, Peer]) -> None:
    tls, peer = both
    said = b"x" * 50 + b"\n"
    octets = peer.write(said * 1000) + b"".join(peer.write(said) for _ in range(100))
    assert tls.received(octets) == said * 1100


def test_what_is_written_in_the_handshake_waits_for_it() -> None:
    tls, peer = our_client(), their_server()
    assert tls.write(b"early\n") == b""  # a write that wants to read (49)
    hello = tls.pending()
    assert not tls.pending()
    peer.hear(hello)
    tls.received(peer.shake())
    peer.hear(tls.pending())
    peer.shake()
    assert peer.read() == b"early\n"


def test_close_notify_follows_what_was_written(both: tuple[Tls, Peer]) -> None:
    tls, peer = both
    peer.hear(tls.write(b"the last reply\n") + tls.close_notify())
    assert tls.state is State.WE_ENDED
    assert peer.read() == b"the last reply\n"
    assert peer.sees_the_end()


def test_either_direction_ends_alone(both: tuple[Tls, Peer]) -> None:
    tls, peer = both
    assert tls.received(peer.write(b"a question\n") + peer.end()) == b"a question\n"
    assert tls.state is State.THEY_ENDED
    peer.hear(tls.write(b"the answer\n"))
    assert peer.read() == b"the answer\n"
    peer.hear(tls.close_notify())
    assert peer.sees_the_end()
    assert tls.state is State.OVER
    tls.ended()
    assert tls.error is None


def test_after_our_end_theirs_is_still_heard(both: tuple[Tls, Peer]) -> None:
    tls, peer = both
    peer.hear(tls.close_notify())
    assert tls.received(peer.write(b"one thing more\n")) == b"one thing more\n"
    assert peer.sees_the_end()
    assert tls.received(peer.write(b"the last\n") + peer.end()) == b"the last\n"
    assert tls.state is State.OVER
    tls.ended()
    assert tls.error is None


def test_half_a_record_survives_our_end(both: tuple[Tls, Peer]) -> None:
    """To say close_notify OpenSSL reads, and throws away what it finds."""
    tls, peer = both
    record = peer.write(b"cut in two\n")
    assert tls.received(record[:20]) == b""
    peer.hear(tls.close_notify())
    assert tls.received(record[20:]) == b"cut in two\n"


def test_an_end_without_close_notify_is_a_loss(both: tuple[Tls, Peer]) -> None:
    tls, peer = both
    assert tls.received(peer.write(b"good\n")) == b"good\n"
    tls.ended()
    assert tls.state is State.OVER
    assert str(tls.error) == "the connection was cut off: it ended without TLS's close_notify"


def test_an_end_in_the_handshake_is_a_loss() -> None:
    tls, peer = server(), client()
    tls.received(peer.shake())
    tls.ended()
    assert "ended the connection in the TLS handshake" in str(tls.error)


def test_what_follows_their_end_means_nothing(both: tuple[Tls, Peer]) -> None:
    tls, peer = both
    octets = peer.write(b"good\n") + peer.end()
    assert tls.received(octets + b"forged\n") == b"good\n"
    assert tls.received(b"forged\n") == b""
    assert tls.state is State.THEY_ENDED


def test_what_came_before_a_forged_record_is_good(both: tuple[Tls, Peer]) -> None:
    tls, peer = both
    good, forged = peer.write(b"good\n"), bytearray(peer.write(b"forged\n"))
    forged[10] ^= 1
    assert tls.received(good + forged + good) == b"good\n"
    assert tls.state is State.OVER
    assert "bad record mac" in str(tls.error)
    peer.hear(tls.pending())
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        peer.read()


def test_a_record_that_was_played_again_is_refused(both: tuple[Tls, Peer]) -> None:
    tls, peer = both
    record = peer.write(b"once\n")
    assert tls.received(record + record) == b"once\n"
    assert tls.error is not None


def test_a_server_sends_no_tickets() -> None:
    tls, peer = server(), client()
    tls.received(peer.shake())
    peer.hear(tls.pending())
    tls.received(peer.shake())
    assert tls.state is State.OPEN
    assert not tls.pending()


def test_a_client_takes_tickets() -> None:
    context = server_context(*SERVER)
    context.num_tickets = 200
    tls, peer = Tls(client_context(CA), "localhost"), Peer(context)
    peer.hear(tls.pending())
    tls.received(peer.shake())
    peer.hear(tls.pending())
    tickets = peer.shake()
    assert len(tickets) > 20_000
    assert tls.received(tickets) == b""
    assert not tls.pending()
    assert tls.received(peer.write(b"the reply\n")) == b"the reply\n"


# Who is who


def old_client() -> Peer:
    context = client_context(CA)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return Peer(context, "localhost")


@pytest.mark.parametrize(
    ("ours", "theirs", "why", "heard"),
    [
        (server, old_client, "the peer does not offer TLS 1.3", "PROTOCOL_VERSION"),
        (partial(server, CA), client, "the peer has no certificate", "CERTIFICATE_REQUIRED"),
        (partial(server, CA), partial(client, STRANGER), "unable to get local", "UNKNOWN_CA"),
        (partial(server, EXPIRED[0]), partial(client, EXPIRED), "expired", "CERTIFICATE_EXPIRED"),
        (partial(our_client, name="x.org"), their_server, "valid for 'x.org'", "BAD_CERTIFICATE"),
        (partial(our_client, OTHER_CA), their_server, "certificate is not accepted", "UNKNOWN_CA"),
        (partial(our_client, None), their_server, "certificate is not accepted", "UNKNOWN_CA"),
        (our_client, partial(their_server, CA), "the peer wants a certificate", "NOT_RETURN"),
    ],
    ids=["TLS 1.2", "none", "strange", "expired", "name", "another's", "the system's", "ours"],
)
def test_who_is_not_accepted_does_not_get_in_and_is_told(
    ours: Callable[[], Tls], theirs: Callable[[], Peer], why: str, heard: str
) -> None:
    tls, peer = ours(), theirs()
    for _ in range(3):
        peer.hear(tls.pending())
        assert tls.received(peer.shake() + peer.write(b"let me in\n")) == b""
    peer.say(peer.tls.read, 1)  # in TLS 1.3 a client is done first, and hears of it later
    assert why in str(tls.error) and heard in str(peer.error)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_an_address_is_a_name_too(name: str) -> None:
    tls, _ = shaken(our_client(name=name), their_server())
    assert (tls.state, tls.error, tls.peer) == (State.OPEN, None, "localhost")


@pytest.mark.parametrize("name", ["", ".x", "a..b", "a\0b", "x" * 300])
def test_what_cannot_be_a_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        our_client(name=name)


@pytest.mark.parametrize(("authority", "name"), [(CA, "alice"), (None, "")])
def test_a_client_whose_certificate_was_asked_for_has_a_name(
    authority: str | None, name: str
) -> None:
    tls, _ = shaken(server(authority), client(own=CLIENT))
    assert (tls.state, tls.peer) == (State.OPEN, name)


# Hostile peers


HTTP, ANSWER = b"GET / HTTP/1.1\r\n", b"HTTP/1.1 400 \r\n"


@pytest.mark.parametrize(
    ("ours", "octets"),
    [
        *((server, o) for o in (HTTP, b"M", b"CONNECT x", b"\0" * 500, b"\x80" * 50)),
        *((our_client, o) for o in (ANSWER, b"SSH-2.0-OpenSSH\r\n")),
        *((ours, PLAIN_KEY_LINE) for ours in (server, our_client)),
    ],
)
def test_plain_octets_are_told_from_tls(ours: Callable[[], Tls], octets: bytes) -> None:
    tls = ours()
    assert tls.received(octets) == b""
    assert str(tls.error) == "the peer does not speak TLS"


@pytest.mark.parametrize("ours", [server, our_client])
def test_garbage_gives_one_error_and_nothing_else(ours: Callable[[], Tls]) -> None:
    dice = Random(1)
    for _ in range(300):
        tls = ours()
        kind = dice.choice([20, 21, 22, 23, 24])
        size = dice.choice([0, 1, 4, 100, 16_000, 60_000])
        octets = bytes([kind, 3, dice.choice([1, 3]), *size.to_bytes(2)]) + dice.randbytes(70_000)
        assert tls.received(octets) == b""
        assert tls.state is State.OVER
        assert tls.error is not None
        tls.pending()


def test_a_damaged_handshake_never_opens() -> None:
    dice = Random(2)
    for _ in range(200):
        tls, peer = server(), client()
        hello = bytearray(peer.shake())
        for place in dice.sample(range(len(hello)), dice.choice([1, 3, 30])):
            hello[place] ^= dice.randrange(1, 256)
        assert tls.received(bytes(hello)) == b""
        peer.hear(tls.pending())
        assert tls.received(peer.shake()) == b""
        assert tls.state is not State.OPEN


def test_close_notify_in_the_handshake_is_a_loss() -> None:
    close = b"\x15\x03\x03\x00\x02\x01\x00"
    for tls, said in ((server(), client().shake() + close), (our_client(), close)):
        tls.received(said)
        assert tls.state is State.OVER
        assert "in the TLS handshake" in str(tls.error)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"\x14\x03\x03\x00\x01\x01" * 1000, "None"),  # to be dropped, however many there are
        (b"\x14\x03\x03\x00\x01\x02", "TLS failed: "),
        (b"\x15\x03\x03\x00\x02\x02\x30", "the peer does not know who signed our certificate"),
        (b"\x17\x03\x03\x00\x00", "TLS failed: "),
        (b"\x17\x03\x03\x00\x40" + bytes(64), "TLS failed: "),  # early data
        (client().shake(), "TLS failed: "),
    ],
    ids=["nothing", "a bad nothing", "an alert", "no octet", "early data", "a hello"],
)
def test_what_follows_a_hello_and_should_not(octets: bytes, why: str) -> None:
    tls = server()
    assert tls.received(client().shake() + octets) == b""
    assert str(tls.error).startswith(why)


def test_names_and_protocols_that_nobody_asked_for_are_let_be() -> None:
    context = client_context(CA)
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    tls, peer = shaken(server(), Peer(context, "elsewhere.example"))
    assert (tls.state, peer.tls.selected_alpn_protocol()) == (State.OPEN, None)


# What no library sends


@pytest.fixture
def crafted(tmp_path: Path) -> tuple[Tls, Peer, Crafter]:
    """A server that has shaken hands with a client, whose records are made by hand from now on."""
    log = tmp_path / "keys"
    tls, peer = shaken(server(), Peer(logging_context(log), "localhost"))
    return tls, peer, Crafter(log)


@CRAFTED
def test_a_write_waits_for_the_rest_of_a_message_that_has_begun(
    crafted: tuple[Tls, Peer, Crafter],
) -> None:
    """OpenSSL writes nothing then, and wants to read (49)."""
    tls, peer, crafter = crafted
    begun = crafter.record(APPLICATION_DATA, b"GET a\n") + crafter.record(HANDSHAKE, KEY_UPDATE)
    assert tls.received(begun) == b"GET a\n"
    assert tls.write(b"1" * PIECE + b"2\n") + tls.write(b"3\n") == b""
    assert not tls.pending()
    assert tls.received(crafter.record(HANDSHAKE, ASKED)) == b""
    peer.hear(tls.pending())
    assert peer.read() == b"1" * PIECE + b"2\n3\n"
    assert tls.error is None


@CRAFTED
def test_in_the_midst_of_their_message_we_end_without_close_notify(
    crafted: tuple[Tls, Peer, Crafter],
) -> None:
    tls, _, crafter = crafted
    tls.received(crafter.record(HANDSHAKE, KEY_UPDATE))
    assert tls.write(b"void\n") == b""
    assert tls.close_notify() == b""
    assert tls.state is State.WE_ENDED
    tls.received(crafter.record(HANDSHAKE, ASKED))
    assert tls.pending() == b"" and tls.waiting == b"void\n"  # the peer never gets it


@CRAFTED
@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        (APPLICATION_DATA, b"", "None"),
        (HANDSHAKE, KEY_UPDATE + b"\x02", "TLS failed: "),
        (HANDSHAKE, b"\x18\x01\xff\xff", "TLS failed: "),
        (HANDSHAKE, b"\x04\x00\x00\x10" + bytes(16), "TLS failed: "),
        (HANDSHAKE, b"\x01\x00\x00\x10" + bytes(16), "TLS failed: "),
        (ALERT, CLOSE_NOTIFY[:1], "TLS failed: "),
        (ALERT, b"\x01\x5a", "None"),  # user_canceled: close_notify is to follow
        (ALERT, b"\x02\x28", "the peer says: handshake failure"),
        (20, b"\x01", "TLS failed: "),
    ],
)
def test_sealed_records_of_every_odd_kind(
    crafted: tuple[Tls, Peer, Crafter], kind: int, text: bytes, why: str
) -> None:
    tls, _, crafter = crafted
    assert tls.received(crafter.record(kind, text)) == b""
    assert str(tls.error).startswith(why)


@CRAFTED
def test_a_record_after_close_notify_is_ignored(crafted: tuple[Tls, Peer, Crafter]) -> None:
    tls, _, crafter = crafted
    parts = (APPLICATION_DATA, b"a\n"), (ALERT, CLOSE_NOTIFY), (APPLICATION_DATA, b"b\n")
    assert tls.received(b"".join(crafter.record(*part) for part in parts)) == b"a\n"
    assert tls.state is State.THEY_ENDED


@CRAFTED
def test_answers_to_key_updates_are_short(crafted: tuple[Tls, Peer, Crafter]) -> None:
    tls, _, crafter = crafted
    for _ in range(100):
        update = crafter.key_update()
        tls.received(update)
        assert len(tls.pending()) <= len(update)


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("cut", [[4], [1, 3], [2, 100]])
def test_a_message_that_is_announced_is_not_believed(cut: list[int], second: bool) -> None:
    """OpenSSL sets aside what a ClientHello says it will have: 128 KiB for 9 octets (51)."""
    hello = bytes([1, *LARGEST_HELLO.to_bytes(3)]) + bytes(100)
    too_large = bytes([1, *(LARGEST_HELLO + 1).to_bytes(3)]) + bytes(100)
    tls, fine = server(), server()
    fine.received(records(hello, [4]))
    assert fine.error is None
    tls.received((client().shake() if second else b"") + records(too_large, cut))
    assert "handshake message that is too long" in str(tls.error)


def records(message: bytes, sizes: list[int]) -> bytes:
    octets = b""
    for size in sizes:
        octets += bytes([22, 3, 1, *size.to_bytes(2)]) + message[:size]
        message = message[size:]
    return octets


def test_a_record_in_the_clear_may_be_so_long_and_no_longer() -> None:
    for kind in range(256):  # and it is of a kind that may come in the clear
        records, header = ClearRecords(), bytes([kind]) + b"\x03\x03"
        if kind in (20, 21, 22, 23):
            assert list(records.cut(header + (RECORD + 256).to_bytes(2))) == []
            too_long = header + (RECORD + 257).to_bytes(2)
            with pytest.raises(TlsError, match="a record that is too long"):
                list(ClearRecords().cut(too_long))
        else:
            with pytest.raises(TlsError, match="does not speak TLS"):
                list(records.cut(header))


@pytest.mark.parametrize("cut", [1, 5, 9, 1000])
def test_records_are_cut_as_they_were_sent(cut: int) -> None:
    hello = b"\x01" + (LARGEST_HELLO).to_bytes(3) + bytes(LARGEST_HELLO)
    sent = [b"\x16\x03\x03\x20\x00" + hello[:8192], b"\x16\x03\x03\x00\x04" + hello[8192:]]
    sent += [b"\x17\x03\x03\x00\x00", b"\x15\x03\x03\x00\x02\x01\x00"]
    octets, records = b"".join(sent), ClearRecords()
    pieces = [octets[start : start + cut] for start in range(0, len(octets), cut)]
    assert [record for piece in pieces for record in records.cut(piece)] == sent
    assert not records.rest


def test_a_hello_in_many_records_is_taken() -> None:
    tls, peer = server(), client()
    message = peer.shake()[5:]
    sizes = [100] * (len(message) // 100)
    tls.received(records(message, [*sizes, len(message) - sum(sizes)]))
    assert tls.error is None
    assert tls.pending()


def test_nothing_is_kept_for_who_is_over() -> None:
    tls = server()
    tls.received(PLAIN_KEY_LINE)
    for _ in range(100):
        assert tls.received(bytes(PIECE)) == b""
    assert tls.write(b"void") + tls.pending() + tls.close_notify() == b""


# The states


def test_events_that_a_state_cannot_have_raise() -> None:
    for state, event in itertools.product(State, Event):
        tls = server()
        tls.state = state
        if event in TRANSITIONS[state]:
            tls._enter(event)
            assert tls.state is TRANSITIONS[state][event]
        else:
            with pytest.raises(KeyError):
                tls._enter(event)


def test_every_state_is_reached_and_left() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {after for events in TRANSITIONS.values() for after in events.values()}
    assert reached == set(State) - {State.HANDSHAKE}


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is Linux's to tell")
def test_connections_leave_nothing_behind() -> None:
    def many() -> int:
        for _ in range(200):
            tls, peer = shaken(Tls(context), client())
            tls.received(peer.write(b"a line\n") + peer.end())
            tls.close_notify()
        gc.collect()
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    context = server_context(*SERVER)
    before = many()
    assert many() - before < 200 * 1024  # one of 16 KiB in 16 would be seen


# Certificates and keys


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_text("garbage\n")
    fifo = tmp_path / "fifo"  # which nobody waits for
    os.mkfifo(fifo)
    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    certificate, key = SERVER
    for files, message in {
        (f"{tmp_path}/none", key): f"cannot read {tmp_path}/none: No such file or directory",
        (certificate, f"{tmp_path}/none"): f"cannot read {tmp_path}/none: No such",
        (str(tmp_path), key): f"cannot read {tmp_path}: not a file",
        ("a\0b", key): "cannot read a\0b: ",
        (str(fifo), key): f"cannot read {fifo}: not a file",
        (certificate, ENCRYPTED_KEY): f"the key in {ENCRYPTED_KEY} is encrypted",
        (certificate, CLIENT[1]): f"the key in {CLIENT[1]} is not the one of {certificate}",
        (str(garbage), key): f"no certificate in {garbage}, or no key in {key}",
        (str(broken), key): f"no certificate in {broken}",
        (certificate, str(garbage)): f"no certificate in {certificate}, or no key in {garbage}",
        (certificate, key, f"{tmp_path}/none"): f"cannot read {tmp_path}/none: No such",
        (certificate, key, str(garbage)): f"no certificate in {garbage} that can be used",
        (certificate, key, "/dev/null"): "cannot read /dev/null: not a file",
    }.items():
        with pytest.raises(CredentialsError) as caught:
            server_context(*files)
        assert str(caught.value).startswith(message)


def test_openssls_reason_is_told_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ssl.SSLError(1, "no")
    error.reason = "BAD_END_LINE"
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", mock.Mock(side_effect=error))
    with pytest.raises(CredentialsError, match=r"that can be used: bad end line$"):
        server_context(*SERVER)


def test_a_file_that_may_not_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # the super-user may read everything
    with pytest.raises(CredentialsError, match="permission denied"):
        server_context(*SERVER)


def test_a_certificate_and_its_key_may_be_in_one_file(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(Path(CLIENT[0]).read_text() + Path(CLIENT[1]).read_text())
    tls, _ = shaken(server(CA), Peer(client_context(CA, str(both)), "localhost"))
    assert tls.peer == "alice"
