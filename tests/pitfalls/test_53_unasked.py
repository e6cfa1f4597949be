"""Records that nobody asked for

TLS 1.3 sends records of its own at any time. An OpenSSL server sends two session tickets after the
handshake. A client that only sends, and closes without ever reading, has them unread in its kernel.
So its `close` resets the connection (12), and what it sent last is lost. Without TLS such a client
has nothing to read, and it never happens. And either side may ask the other for new keys. Each
such request has an answer, which has to be sent. If the peer asks and does not read, the answers
wait in our memory, unless they count like all that is unsent (8), and nothing more is read.

What you see: the last messages of clients that leave in haste are missing. Or memory grows with a
peer that has sent no message. What a bystander sees: nothing, until the memory is used up.
"""

import contextlib
import socket

from house import house

from kv.net.tls import Tls
from kv.net.transport import Transport

from .moments import above
from .pitfall import Failure, Pitfall


class TestTickets(Pitfall):
    """A client has shaken hands, sends what it has to say, and closes. It has not read anything."""

    usually = "a client resets its own connection, and what it sent last is lost"
    wrong = r"^#1 recv \[Errno"
    handled = "kv.net.credentials.TICKETS"
    naive = {"kv.net.credentials.TICKETS": 2}

    def scenario(self) -> str:
        with house(tls=True) as h:
            guest = h.guest(reads=False)
            for _ in range(3):
                with contextlib.suppress(BlockingIOError):
                    guest.socket.shake()  # type: ignore[attr-defined]
                h.settle()
            unread = b""
            with contextlib.suppress(BlockingIOError):
                unread = guest.socket.tcp.recv(4096, socket.MSG_PEEK)  # type: ignore[attr-defined]
            guest.socket.tcp.close()  # type: ignore[attr-defined]
            h.settle()
            told = f"{len(unread)} octets were unread"
            if not h.server.drops["tls"]:
                raise Failure(f"{told}: the server sees a reset")
            return f"{told}: the server sees all that was sent, and then FIN"


class Asking:
    """Stands for TLS with a peer that asks for new keys with every octet, and says nothing."""

    error, they_ended, shaking, peer, waiting = None, False, False, "", b""

    def __init__(self) -> None:
        self._asked = 0

    def received(self, octets: bytes) -> bytes:
        self._asked += len(octets)
        return b""

    def pending(self) -> bytes:
        asked, self._asked = self._asked, 0
        return bytes(asked)

    def ended(self) -> bool:
        return True

    def close_notify(self) -> bytes:
        return b""


def opened(self: Transport, octets: bytes, tls: Tls) -> bytes:
    plaintext = tls.received(octets)
    tls.waiting += tls.pending()  # it goes with the next reply
    return plaintext


class TestAnswers(Pitfall):
    """A peer asks for new keys a million times, and does not read the answers."""

    shown = "m"
    usually = "as much as the peer asks for is kept for it in memory"
    wrong = above("unsent", 65_536)
    handled = Transport._opened
    naive = {"kv.net.transport.Transport._opened": opened}

    def scenario(self) -> str:
        with house(stream={"high_water": 4000, "low_water": 1000}) as h:
            h.server.tls = Asking  # type: ignore[assignment]
            h.guest(reads=False).send_raw(bytes(1_000_000))
            (connection,) = h.server.connections
            told = f"{connection.stream.unsent} octets of answers are kept"
            if connection.stream.unsent > 20_000:
                raise Failure(told)
            return told
