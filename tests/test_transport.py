"""A transport alone: its socket gives what the test wants, its kernel holds what the test says."""

import errno
import select
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from patience import patience

from kv.net import tcp
from kv.net.directions import Event, Incoming, Outgoing
from kv.net.owner import TlsError
from kv.net.transport import Transport

RESET = ConnectionResetError(errno.ECONNRESET, "reset")
PIPE = BrokenPipeError(errno.EPIPE, "broken pipe")
WOULD_BLOCK = BlockingIOError(errno.EAGAIN, "would block")
LINGER = 100


class Sock(mock.Mock):
    """What each call gives comes from a list; what is an exception is raised."""

    def __init__(self, **gives: Any) -> None:
        super().__init__(
            ["fileno", "setblocking", "setsockopt", "recv", "send", "shutdown", "close"]
        )
        for call, results in gives.items():
            getattr(self, call).side_effect = results

    def _get_child_mock(self, **options: Any) -> mock.Mock:
        return mock.Mock(**options)


class StubTls(SimpleNamespace):
    """TLS that turns every octet into `plain`, and has said all, unless told otherwise."""

    def __init__(self, **fields: Any) -> None:
        fixed = {"plain": b"", "error": None, "they_ended": False, "shaking": False, "said": [b""]}
        super().__init__(**{**fixed, "waiting": b"", "notify": [], **fields})

    def pending(self) -> bytes:
        return self.said.pop(0) if self.said else b""

    def received(self, _octets: bytes) -> bytes:
        return self.plain

    def write(self, plaintext: bytes) -> bytes:
        return plaintext + b"sealed"

    def close_notify(self) -> bytes:
        return self.notify.pop() if self.notify else b""

    def ended(self) -> bool:
        return self.error is None


def transport(*steps: Event, tls: Any = None, **gives: Any) -> Transport:
    """One that has come so far, and has told of it."""
    made = Transport(Sock(**gives), 60, LINGER, tls)
    for event in steps:
        made.step(event)
    made.changed = False
    return made


@pytest.fixture
def kernel() -> Iterator[mock.Mock]:
    """`kernel.return_value` octets are not acknowledged."""
    with mock.patch.object(tcp, "unacknowledged", return_value=0) as held:
        yield held


SHUT = (Event.HALF_CLOSE, Event.SENT)


# --- what the peer has not got ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "unsent", "held", "undelivered"),
    [
        ((), b"", None, 0),
        ((), b"four", None, 4),
        ((), b"four", 3, 7),
        ((Event.HALF_CLOSE,), b"four", 3, 7),
        (SHUT, b"", 0, 0),
        (SHUT, b"", 1, 0),  # FIN counts as one, and says nothing
        (SHUT, b"", 4, 3),
    ],
)
def test_what_the_peer_cannot_have_got_is_counted_when_the_connection_breaks(
    kernel: mock.Mock, steps: tuple[Event, ...], unsent: bytes, held: int | None, undelivered: int
) -> None:
    broken = transport(*steps)
    broken.unsent, kernel.return_value = unsent, held
    assert broken.undelivered == 0
    broken.step(Event.RESET)
    assert (broken.undelivered, broken.unsent) == (undelivered, b"")
    kernel.return_value = 1000
    broken.step(Event.ABORT)
    assert broken.undelivered == undelivered  # that was told, and is over


@pytest.mark.parametrize(
    ("held", "acknowledged", "lacks", "delivering"),
    [(None, 9, False, False), (0, 9, False, False), (1, 8, False, True), (2, 7, True, True)],
)
def test_the_kernel_still_delivers_what_the_peer_has_not_acknowledged(
    kernel: mock.Mock, held: int | None, acknowledged: int, lacks: bool, delivering: bool
) -> None:
    sending, shut = transport(), transport(*SHUT)
    ended = transport(*SHUT, Event.FIN)
    kernel.return_value = held
    for each in (sending, shut, ended):
        each.sent = 9
        assert (each.acknowledged(), each.lacks) == (acknowledged, lacks)
    assert (sending.delivering, shut.delivering, ended.delivering) == (False, False, delivering)


def test_close_notify_owes_nobody_anything_either(kernel: mock.Mock) -> None:
    ending = transport(Event.HALF_CLOSE, tls=StubTls(notify=[b"bye"]), send=[3], shutdown=[None])
    ending.shut_down()
    assert (ending.unsent, ending.outgoing) == (b"bye", Outgoing.FINISHING)
    ending.send()
    ending.shut_down()
    assert ending.outgoing is Outgoing.SHUT
    ending.sock.shutdown.assert_called_once_with(socket.SHUT_WR)  # type: ignore[attr-defined]
    kernel.return_value = 4
    assert not ending.lacks
    kernel.return_value = 5
    assert ending.lacks
    assert ending.tls is not None
    ending.tls.waiting = b"void"
    ending.step(Event.RESET)
    assert ending.undelivered == 1 + 4


def test_a_peer_that_is_gone_when_our_side_ends_is_an_error_unless_it_had_said_goodbye(
    kernel: mock.Mock,
) -> None:
    gone = OSError(errno.ENOTCONN, "not connected")
    for tls, held, error in [
        (None, 0, gone),
        (StubTls(), 0, gone),
        (StubTls(they_ended=True), 2, gone),
        (StubTls(they_ended=True), 1, None),
    ]:
        ending = transport(Event.HALF_CLOSE, tls=tls, shutdown=[gone])
        kernel.return_value = held
        ending.shut_down()
        assert (ending.outgoing, ending.error) == (Outgoing.BROKEN, error)


def test_an_error_that_no_call_has_told_is_found_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname()) as ours:
            assert tcp.failure(ours) is None
            theirs, _ = listening.accept()
            tcp.reset_on_close(theirs)
            theirs.close()
            select.select([ours], [], [], patience())
            found = tcp.failure(ours)
            assert (
                isinstance(found, ConnectionResetError)
                and found.strerror == "Connection reset by peer"
            )
            assert tcp.failure(ours) is None
        assert tcp.failure(ours) is None  # nor does a closed one say anything


# --- in ---------------------------------------------------------------------------------------


def test_readiness_is_only_a_hint_and_the_end_of_what_has_arrived() -> None:
    for steps, then in [
        ((), Incoming.OPEN),
        ((Event.FINISH,), Incoming.DISCARDING),
        ((Event.CLOSE,), Incoming.DISCARDING),
    ]:
        reading = transport(*steps, recv=[WOULD_BLOCK])
        assert reading.read(10) == b""
        assert reading.incoming is then and reading.error is None and reading.received == 0
        assert reading.changed == (steps == (Event.FINISH,))


def test_each_state_has_its_own_allowance_and_what_is_read_counts_against_it(
    kernel: mock.Mock,
) -> None:
    reading = transport(recv=[b"a" * 30, b"b" * 40, b"c" * 60, b"d" * 39, b"e", WOULD_BLOCK])
    assert reading.read(99) == b"a" * 30 and reading.allowance == 0  # lines have no bound
    reading.step(Event.FINISH)
    assert reading.read(99) == b"b" * 40 and reading.allowance == LINGER - 40
    reading.step(Event.FINISH)  # which changes nothing
    assert reading.allowance == LINGER - 40
    reading.step(Event.CLOSE)
    assert reading.allowance == LINGER
    reading.changed = False
    assert reading.read(99) == reading.read(99) == b"" and not reading.changed
    assert not reading.lingers
    reading.read(99)
    assert reading.changed and reading.allowance == 0 and reading.received == 170
    reading.step(Event.SENT)
    assert reading.lingers and reading.allowance == LINGER


def test_the_first_reason_is_the_one_that_is_told(kernel: mock.Mock) -> None:
    ending = transport(send=[PIPE], recv=[b"line\n", RESET])
    ending.unsent = b"void"
    ending.send()
    assert (ending.incoming, ending.outgoing) == (Incoming.DRAINING, Outgoing.BROKEN)
    assert ending.read(10) == b"line\n" and ending.read(10) == b""
    assert (ending.incoming, ending.error, ending.changed) == (Incoming.ENDED, PIPE, True)
    ending.write(b"nobody reads it")
    assert ending.unsent == b""


# --- out --------------------------------------------------------------------------------------


def test_what_the_kernel_does_not_take_stays_in_front() -> None:
    writing = Transport(Sock(send=[3, WOULD_BLOCK, 2, 4, 1]), 60, LINGER)
    assert (writing.full, writing.changed) == (False, False)
    writing.write(b"abcdef")
    assert (writing.unsent, writing.changed) == (b"abcdef", False)
    for rest, sent, full in [(b"def", 3, True), (b"def", 3, True), (b"f", 5, True)]:
        writing.changed = False
        writing.send()
        assert (writing.unsent, writing.sent, writing.full) == (rest, sent, full)
        assert writing.changed
    writing.changed = False
    writing.write(b"ghi")
    assert (writing.unsent, writing.changed) == (b"fghi", True)
    writing.changed = False
    writing.send()  # all of it: the kernel has room again
    assert (writing.unsent, writing.full, writing.changed) == (b"", False, True)
    writing.changed = False
    writing.write(b"j")
    writing.send()  # and all is as before
    writing.send()  # nothing is nothing to send
    assert (writing.sent, writing.full, writing.changed) == (10, False, False)


# --- TLS in both places -----------------------------------------------------------------------


def test_what_tls_says_goes_first_and_what_is_written_is_sealed() -> None:
    writing = transport(tls=StubTls(said=[b"hello,"]))
    writing.write(b"text,")
    assert writing.unsent == b"hello,text,sealed"


@pytest.mark.parametrize(
    ("steps", "tls", "unsent", "overhead", "incoming", "changed"),
    [
        ((), {"plain": b"text"}, b"", 6, Incoming.OPEN, False),
        ((), {"plain": b"more than ten"}, b"", 0, Incoming.OPEN, False),
        ((), {"said": [b"", b"key"]}, b"key", 13, Incoming.OPEN, True),
        ((Event.HALF_CLOSE,), {"said": [b"", b"key"]}, b"key", 13, Incoming.OPEN, True),
        (SHUT, {"said": [b"", b"key"]}, b"", 13, Incoming.OPEN, False),
        ((), {"plain": b"last", "they_ended": True}, b"", 6, Incoming.ENDED, True),
    ],
)
def test_what_tls_makes_of_octets(
    steps: tuple[Event, ...],
    tls: dict[str, Any],
    unsent: bytes,
    overhead: int,
    incoming: Incoming,
    changed: bool,
) -> None:
    reading = transport(*steps, tls=StubTls(**tls), recv=[b"ten octets"])
    assert reading.read(99) == tls.get("plain", b"")
    assert (reading.unsent, reading.overhead, reading.incoming) == (unsent, overhead, incoming)
    assert reading.changed == changed


@pytest.mark.parametrize("octets", [b"forged", b""])
def test_after_a_failure_of_tls_the_alert_is_sent_and_the_rest_thrown_away(
    kernel: mock.Mock, octets: bytes
) -> None:
    tls = StubTls(plain=b"good\n", error=TlsError("forged"), said=[b"", b"alert"])
    reading = transport(tls=tls, recv=[octets, b"rest" * 20, b"rest" * 10], send=[PIPE])
    reading.unsent = b"alert" if not octets else b""
    assert reading.read(99) == (b"good\n" if octets else b"")
    assert reading.error is tls.error and reading.incoming is Incoming.ENDED
    assert reading.sock.send.call_args[0][0] == b"alert"  # type: ignore[attr-defined]
    sizes = [call.args[0] for call in reading.sock.recv.call_args_list]  # type: ignore[attr-defined]
    assert sizes == [99, LINGER, LINGER - 80]


@pytest.mark.parametrize(("held", "undelivered"), [(5, 0), (9, 4)])
def test_an_alert_owes_nobody_anything(kernel: mock.Mock, held: int, undelivered: int) -> None:
    tls = StubTls(error=TlsError("forged"), said=[b"", b"alert"])
    reading = transport(tls=tls, recv=[b"forged", WOULD_BLOCK], send=[5])
    kernel.return_value = held
    reading.read(99)
    assert reading.undelivered == undelivered


def test_the_end_of_a_stream_that_is_thrown_away_needs_no_goodbye(kernel: mock.Mock) -> None:
    for steps, error in [((), "cut"), ((Event.FINISH,), "cut"), ((Event.CLOSE,), None)]:
        cut = TlsError("cut")
        reading = transport(*steps, tls=StubTls(error=cut), recv=[b"", WOULD_BLOCK])
        reading.read(99)
        assert reading.incoming is Incoming.ENDED
        assert reading.error is (cut if error else None)


def test_an_end_of_ours_waits_for_the_handshake_while_the_peer_can_still_shake_hands() -> None:
    assert transport(tls=StubTls(shaking=True)).shaking
    assert transport(Event.FINISH, tls=StubTls(shaking=True)).shaking
    for other in (
        transport(),
        transport(tls=StubTls()),
        transport(Event.FIN, tls=StubTls(shaking=True)),
        transport(Event.CLOSE, tls=StubTls(shaking=True)),
    ):
        assert not other.shaking
