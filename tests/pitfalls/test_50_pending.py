"""Plaintext that waits inside the TLS object

A record has up to 16 KiB of text, and can be opened only when all of it is there. So TLS takes more
out of the kernel's buffer than a `recv(4096)` asks for, and keeps the rest. The socket is then no
longer readable: no selector tells of what waits in the TLS object (`SSLSocket.pending()` does, if
it is asked). It is the trap of every buffer (23), here in OpenSSL's. The way out: take
everything out of the TLS object at once, and let it wait in your own buffer, where fairness and
back-pressure are.

What you see: a peer that sends much at once gets a part of its replies, and the others later, when
it sends something more. What a bystander sees: nothing; only the one whose text waits is affected.
"""

import ssl

from house import house

from kv.net.tls import Event, State, Tls

from .moments import never
from .pitfall import Failure, Pitfall


def take(self: Tls, octets: bytes) -> bytes:
    self._incoming.write(octets)
    try:
        if self.state is State.HANDSHAKE:
            self._tls.do_handshake()
            self._enter(Event.AGREED)
        return self._tls.read(4096)
    except ssl.SSLWantReadError:
        return b""


class TestPending(Pitfall):
    """A client sends 150 commands in one record, and waits."""

    usually = "a part of the replies never comes, and there is no error"
    wrong = never("^#1 message GET", times=150)
    handled = Tls.received
    naive = {"kv.net.tls.Tls._take": take}

    def scenario(self) -> str:
        with house(tls=True) as h:
            guest = h.guest().connect()
            replies = guest.ask(*["GET k"] * 150)
            told = f"{len(replies)} of 150 replies come"
            if len(replies) < 150:
                raise Failure(told)
            return told
