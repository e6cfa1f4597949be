"""A client's socket with TLS in it: OpenSSL behind two BIOs, and the calls that a socket has.

`ssl.SSLSocket` would do, but for what it cannot: end its sending and go on reading.
"""

import contextlib
import socket
import ssl
from typing import Any

from certificates import CA

PIECE = 16 * 1024


def trusting(ca: str = CA) -> ssl.SSLContext:
    """A client's context that believes one authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT, cafile=ca)
    context.load_verify_locations(ca)
    return context


class TlsSocket:
    """A connected socket, blocking or not. What is not here is the TCP socket's own.

    Whatever arrives is opened at once, so `select` tells the truth about it.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext | None = None, name: str = "localhost"
    ) -> None:
        self.tcp = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or trusting()).wrap_bio(
            self._incoming, self._outgoing, server_hostname=name
        )
        self._shaken = False
        self._unsent = b""
        self._plaintext = bytearray()
        self.their_end = False  # their close_notify has come

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tcp, name)

    def shake(self) -> None:
        """The handshake: to its end, or until it would block."""
        while not self._shaken:
            try:
                self.tls.do_handshake()
                self._shaken = True
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()
            except ssl.SSLError:
                self.flush()
                raise
            self.flush()

    def flush(self) -> None:
        """Sends what is sealed; on a blocking socket, all of it."""
        self._unsent += self._outgoing.read()
        while self._unsent:
            self._unsent = self._unsent[self.tcp.send(self._unsent) :]

    def send(self, plaintext: bytes) -> int:
        self.shake()
        self.flush()
        count = self.tls.write(plaintext[:PIECE])
        with contextlib.suppress(BlockingIOError):
            self.flush()
        return count

    def sendall(self, plaintext: bytes) -> None:
        for start in range(0, len(plaintext), PIECE):
            self.send(plaintext[start : start + PIECE])

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.shake()
        with contextlib.suppress(BlockingIOError):
            self.flush()
        while not self._plaintext and not self.their_end:
            self._fill()
        octets = bytes(self._plaintext[:size])
        if not flags & socket.MSG_PEEK:
            del self._plaintext[:size]
        return octets

    def shutdown(self, how: int) -> None:
        if how == socket.SHUT_WR:
            self.shake()
            self.close_notify()
        self.tcp.shutdown(how)

    def close_notify(self) -> None:
        """Says that nothing more will be sent."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.flush()

    def close(self) -> None:
        """Politely, if that goes without waiting."""
        if self.tcp.fileno() >= 0 and self._shaken:
            self.tcp.setblocking(False)
            with contextlib.suppress(OSError):
                self.close_notify()
        self.tcp.close()

    def _fill(self) -> None:
        octets = self.tcp.recv(65536)
        if not octets:
            raise ConnectionError("FIN came, and no close_notify before it")
        self._incoming.write(octets)
        if not self._shaken:
            return
        try:
            while piece := self.tls.read(PIECE):
                self._plaintext += piece
            self.their_end = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # so it is called when our end came first
            self.their_end = True
