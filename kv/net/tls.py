"""TLS 1.3 without a socket: octets from the peer in, plaintext out, and the other way round.

Generic, and optional: a stream has a `Tls` between its socket and its lines, or None. A `Tls` does
not call the network, wait, or look at a clock.

Some facts about TLS. Plaintext travels in sealed records of up to 16 KiB. A record can be used only
when the whole of it is there. A handshake comes first: both sides send, and nothing else can be
sent before it is over. After it, too, either side may send records that carry no plaintext. Each
side ends its own direction with a record for this, `close_notify`. FIN says the same, but anybody
on the way can forge a FIN.

Some facts about `ssl`. An `SSLSocket` calls `recv` and `send` by itself. On a non-blocking socket
it raises `SSLWantReadError` or `SSLWantWriteError`, and a read may want to write. A program that
then waits for the wrong readiness hangs, or spins (49). An `SSLObject` makes no calls. It takes
what has arrived out of one `MemoryBIO`, and puts what has to be sent into another. It can want
nothing but more octets. So the stream decides which readiness to wait for, as it always does: to
read, and to write while there is something to send.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any

from kv.net.owner import TlsError
from kv.net.records import NOT_TLS, RECORD, ClearRecords

#: Octets of plaintext in each record that we send, and octets fed to the TLS object at a time. Its
#: buffers grow and never shrink: with the largest records, they take 40 KiB for each client.
PIECE = 4096


class State(Enum):
    """How far a TLS connection has come."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    THEY_ENDED = "they ended"
    WE_ENDED = "we ended"
    OVER = "over"


class Event(Enum):
    """What changes that."""

    AGREED = "agreed"  # the handshake is over
    THEY_END = "they end"  # their close_notify has come
    WE_END = "we end"  # our close_notify is sent
    FAILED = "failed"


HANDSHAKE, OPEN, THEY_ENDED, WE_ENDED, OVER = State

#: After those of `asyncio.sslproto`, with both ends of TLS 1.3 told apart.
TRANSITIONS = {
    HANDSHAKE: {Event.AGREED: OPEN, Event.FAILED: OVER},
    OPEN: {Event.THEY_END: THEY_ENDED, Event.WE_END: WE_ENDED, Event.FAILED: OVER},
    THEY_ENDED: {Event.WE_END: OVER, Event.FAILED: OVER},
    WE_ENDED: {Event.THEY_END: OVER, Event.FAILED: OVER},
    OVER: {},
}

#: OpenSSL's word for an error, and our sentence. "The peer" is the program at the other end.
REASONS = {
    "WRONG_VERSION_NUMBER": NOT_TLS,
    "UNSUPPORTED_PROTOCOL": "the peer does not offer TLS 1.3",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer has no certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer does not speak TLS 1.3",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer wants a certificate from us",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not know who signed our certificate",
}


class Tls:
    """One TLS connection. A client gives the `server_name` that the certificate must have."""

    __slots__ = ("_incoming", "_outgoing", "_records", "_tls", "error", "state", "waiting")

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        """Raises `ValueError` if no certificate can be for that name."""
        self.state = HANDSHAKE
        self.error: TlsError | None = None  # set when it has failed
        self.waiting = b""  # plaintext that cannot be sealed yet; at the end, that never was
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        server = server_name is None
        self._records = ClearRecords() if server else None
        try:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server, server_name)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{server_name!r} is not a host name") from error
        if not server:
            self._take(b"")  # the client speaks first

    @property
    def shaking(self) -> bool:
        """Whether the handshake is not over yet."""
        return self.state is HANDSHAKE

    @property
    def they_ended(self) -> bool:
        """Whether their close_notify has come."""
        return self.state is THEY_ENDED or (self.state is OVER and self.error is None)

    @property
    def peer(self) -> str:
        """The name in the peer's certificate, or an empty text if there is none."""
        try:
            certificate: Any = self._tls.getpeercert() or {}
        except ValueError:  # the handshake is not over, or failed
            return ""
        subject = certificate.get("subject", ())
        return ", ".join(value for part in subject for _, value in part)

    # From the peer

    def received(self, octets: bytes) -> bytes:
        """Takes octets from the peer. Returns all the plaintext that they complete.

        A failure is not raised, because the plaintext before it is good: look at `error`. No
        plaintext stays in the TLS object, because no readiness would tell of it (50). It waits in
        the stream, as all plaintext does, for its turn. It has at most as many octets as were
        given, and one record more.
        """
        if self._records is not None:
            octets = self._take_clear(octets, self._records)
        return in_pieces(self._take, octets)

    def ended(self) -> bool:
        """FIN has come. False, and an error, if close_notify did not come before it (52)."""
        if self.state is HANDSHAKE:
            self._fail("the peer ended the connection in the TLS handshake: it may not speak TLS")
        elif self.state in (OPEN, WE_ENDED):
            self._fail("the connection was cut off: it ended without TLS's close_notify")
        return self.error is None

    def _take(self, octets: bytes) -> bytes:
        plaintext = b""
        if self.state in (THEY_ENDED, OVER):
            return plaintext  # octets after the end are ignored (RFC 8446, section 6.1)
        try:
            self._incoming.write(octets)
            if self.state is HANDSHAKE:
                self._tls.do_handshake()
                self._enter(Event.AGREED)
            while self._incoming.pending:
                piece = self._tls.read(RECORD)
                if not piece:
                    raise ssl.SSLZeroReturnError
                plaintext += piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            if self.state is HANDSHAKE:
                self.ended()
            else:
                self._enter(Event.THEY_END)
        except ssl.SSLError as error:
            self._fail(said(error))
        return plaintext

    def _take_clear(self, octets: bytes, records: ClearRecords) -> bytes:
        """Takes one record at a time while the handshake lasts. Returns what follows it."""
        try:
            for record in records.cut(octets):
                self._take(record)
                if self.state is not HANDSHAKE:
                    self._records = None
                    return bytes(records.rest)
        except TlsError as error:
            self._fail(str(error))
        return b""

    # To the peer

    def write(self, plaintext: bytes) -> bytes:
        """The octets to send for this plaintext. During the handshake none: the plaintext waits.

        This is a write that wants to read. It waits for octets from the peer. To wait for a
        writable socket would make the loop spin (49). It waits later, too, for the rest of a
        message that the peer has begun.
        """
        if self.state is HANDSHAKE or self.waiting:
            self.waiting += plaintext
        elif self.state in (OPEN, THEY_ENDED):
            return in_pieces(self._seal, plaintext)
        return b""

    def pending(self) -> bytes:
        """The octets to send although the owner wrote nothing: a read that wants to write (49).

        These are the handshake, and the plaintext that waited for its end; an alert; and answers to
        the peer's requests, which may be many (53).
        """
        octets = self._outgoing.read()
        if self.waiting and self.state in (OPEN, THEY_ENDED):
            waiting, self.waiting = self.waiting, b""
            octets += self.write(waiting)
        return octets

    def close_notify(self) -> bytes:
        """The octets that end our side, once. During the handshake there are none."""
        if self.state not in (OPEN, THEY_ENDED):
            return b""
        # `unwrap` sends close_notify and then wants to read the peer's. It would throw away octets
        # that wait to be read, but `received` has left none. After half a message of the peer's it
        # refuses: then the peer has to take our FIN for a loss.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._enter(Event.WE_END)
        return self._outgoing.read()

    def _seal(self, piece: bytes) -> bytes:
        try:
            self._tls.write(piece)
        except ssl.SSLWantReadError:
            self.waiting += piece
        return self._outgoing.read()

    # The one door for all transitions

    def _enter(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    def _fail(self, message: str) -> None:
        self.error = TlsError(message)
        self._records = None
        self._enter(Event.FAILED)


def in_pieces(act: Callable[[bytes], bytes], octets: bytes) -> bytes:
    """What `act` makes of the octets. It gets as many at a time as OpenSSL is to have."""
    if len(octets) <= PIECE:
        return act(octets)
    starts = range(0, len(octets), PIECE)
    return b"".join([act(octets[start : start + PIECE]) for start in starts])


def said(error: ssl.SSLError) -> str:
    """The error, as a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is not accepted: {error.verify_message.rstrip('.')}"
    reason = error.reason or "unknown error"
    _, alert, word = reason.partition("_ALERT_")
    words = (word or reason).replace("_", " ").lower()
    return REASONS.get(reason) or (f"the peer says: {words}" if alert else f"TLS failed: {words}")
