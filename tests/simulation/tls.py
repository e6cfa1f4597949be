"""TLS between a client and the server, in some of the worlds: both ends are OpenSSL's.

The server has its real `Tls`, with books kept beside it; a client seals with an `ssl.SSLObject`.
So what a world checks without TLS, it checks with TLS, and besides: that no text stays behind in
the TLS object, that close_notify comes before FIN, that FIN alone is a loss, and that handshakes
count as work.

OpenSSL takes its random numbers from elsewhere, and one seed is one history all the same. What is
random are octets, and nothing here depends on those, only on how many there are. That is always
the same: each kind of record has one size, if the certificate's signatures have one. Those of
Ed25519 do (those of ECDSA have 70 to 72 octets). Another version of OpenSSL may send a ClientHello
of another size; then the same seed is another history.
"""

import ssl
from bisect import bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING

from kv.net.credentials import server_context
from kv.net.directions import Outgoing
from kv.net.tls import State, Tls
from tests.certificates import FIXED

from .kernel import Failure

if TYPE_CHECKING:
    from .watched import WatchedConnection

#: Octets that TLS adds to what waits to be sent: the handshake, or a few records' seals.
EXTRA = 1200
#: Octets beside the text that are a unit of work.
OCTETS_A_UNIT = 2

SERVER_CONTEXT = server_context(*FIXED)
CLIENT_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CLIENT_CONTEXT.check_hostname = False
CLIENT_CONTEXT.verify_mode = ssl.CERT_NONE  # who is who is no matter of the loop's


class ClientTls:
    """The client's end, and the books: which octet on the network completes which of the text."""

    def __init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = CLIENT_CONTEXT.wrap_bio(self._incoming, self._outgoing)
        self._waiting = b""  # text that was written in the handshake
        self._sent = 0  # octets, on the network
        self._ends = [0]  # of records, on the network,
        self._texts = [0]  # and how much text there was up to there
        self.shaken = False
        self.notified_at = float("inf")  # how much was sent with our close_notify
        self.their_end = False  # their close_notify has come

    def text_in(self, octets: int) -> int:
        """How many octets of text are complete in so many from the network."""
        return self._texts[bisect_right(self._ends, octets) - 1]

    def hello(self) -> bytes:
        """What a client says first."""
        return self._shake()

    def seal(self, text: bytes) -> bytes:
        """The octets to be sent for a text: none in the handshake, when it waits."""
        if not self.shaken:
            self._waiting += text
            return b""
        octets = b""
        for start in range(0, len(text), 16384):
            piece = text[start : start + 16384]
            self._tls.write(piece)
            octets += self._taken()
            self._ends.append(self._sent)
            self._texts.append(self._texts[-1] + len(piece))
        return octets

    def close_notify(self) -> bytes:
        """The octets that end our side, once."""
        if not self.shaken or self.notified_at < float("inf"):
            return b""
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        octets = self._taken()
        self.notified_at = self._sent
        return octets

    def hear(self, octets: bytes) -> tuple[bytes, bytes]:
        """The text in what came, and what is to be sent for it."""
        self._incoming.write(octets)
        answer = b"" if self.shaken else self._shake()
        text = b""
        try:
            while self.shaken and (piece := self._tls.read(16384)):
                text += piece
            self.their_end = self.shaken
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # so it is called when our end came first
            self.their_end = True
        return text, answer

    def _shake(self) -> bytes:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._taken()
        self.shaken = True
        octets = self._taken()
        waiting, self._waiting = self._waiting, b""
        return octets + self.seal(waiting)

    def _taken(self) -> bytes:
        octets = self._outgoing.read()
        self._sent += len(octets)
        return octets


class ServerTls(Tls):
    """The server's end, and what it has made."""

    def __init__(self) -> None:
        super().__init__(SERVER_CONTEXT)
        self.owner: WatchedConnection | None = None
        self.made = 0  # octets for the network,
        self.farewell = 0  # and how many of them were close_notify
        self.agreed = False
        self._beside = 0  # octets read that were no text

    def received(self, octets: bytes) -> bytes:
        """Counts what was no text."""
        assert self.owner is not None
        self.owner.watch.begins_opening()
        text = super().received(octets)
        self._beside = len(octets) - len(text)
        self.agreed = self.agreed or (self.state is not State.HANDSHAKE and self.error is None)
        return text

    def pending(self) -> bytes:
        """Counts it as work, with what was read for it."""
        octets = super().pending()
        if self.owner is None:
            return octets
        self.owner.watch.opened(max(0, self._beside + len(octets)) // OCTETS_A_UNIT)
        self._beside = 0
        if self.owner.stream.transport.outgoing in (Outgoing.OPEN, Outgoing.FINISHING):
            self.made += len(octets)
        return octets

    def write(self, plaintext: bytes) -> bytes:
        octets = super().write(plaintext)
        self.made += len(octets)
        return octets

    def close_notify(self) -> bytes:
        octets = super().close_notify()
        self.made += len(octets)
        self.farewell += len(octets)
        return octets

    def may_have_failed(self) -> bool:
        """Whether its client has given it a reason."""
        assert self.owner is not None
        client, sim = self.owner.client, self.owner.sim
        if client.tls is None:  # it has spoken plainly
            return True
        if not sim.end_seen or client.tls.notified_at <= sim.taken:
            raise Failure(f"{client.name}: TLS fails for no reason: {self.error}")
        return True
