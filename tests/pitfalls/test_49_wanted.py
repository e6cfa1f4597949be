"""A read that wants to write, and a write that wants to read

On a plain socket a read waits for octets and a write waits for room. Under TLS both may need the
other. In the handshake each side has to send and to receive before any text can go either way. And
at any time later a peer may ask for new keys, and the answer has to be sent. An `SSLSocket` then
raises `SSLWantReadError` out of `send`, or `SSLWantWriteError` out of `recv`. Many programs take
both for "would block" and go on waiting for what they waited for anyway. A write that waits for
room, where there is room, spins. A read that never sends waits for a peer that waits for it. With
an `SSLObject` between two `MemoryBIO`s there is only one rule, for all cases: always read, and ask
to write exactly while there are octets to be sent.

What you see: one core at 100 % until the handshake is over, or a handshake that never ends. What a
bystander sees: slower replies while the loop spins.
"""

import socket

from certificates import CA
from house import Clock, Selector, house

from kv.net.credentials import client_tls
from kv.net.owner import Limits
from kv.net.reactor import READ, WRITE, Reactor
from kv.net.stream import Stream
from kv.net.tls import Tls
from kv.net.transport import Transport
from kv.net.turns import Turns

from .moments import never, spins
from .pitfall import Failure, Pitfall

REAL_LOOK_AHEAD = Stream._look_ahead
SOME = 1000


def look_ahead(self: Stream) -> None:
    REAL_LOOK_AHEAD(self)
    if self.unsent:
        self._registration.set(READ | WRITE)


class Nobody:
    """Owns a stream, and does not care."""

    def __getattr__(self, _: str) -> object:
        return lambda *_: None


class TestWriteWantsToRead(Pitfall):
    """A client has something to send, and the server takes its time to shake hands."""

    shown = "m"
    usually = "the loop waits for room that is there, and spins"
    wrong = spins
    handled = Tls.write
    naive = {"kv.net.lifecycle.Lifecycle._look_ahead": look_ahead}

    def scenario(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs = listener.accept()[0]
            selector = Selector()
            reactor = Reactor(selector, Clock())
            tls = client_tls(CA, "localhost")
            owner: object = Nobody()
            stream = Stream(reactor, ours, owner, Limits(), Turns(reactor), tls)  # type: ignore[arg-type]
            stream.write(b"a line\n")
            turns = 0
            while selector.idle < 3 and turns < SOME:
                reactor.turn()
                turns += 1
            stream.abort(None)
            theirs.close()
            reactor.close()
        if turns == SOME:
            raise Failure(f"the loop turns {SOME} times while nothing happens")
        return f"the loop turns {turns} times, and sleeps"


def pending(self: Tls) -> bytes:
    return b""  # whoever writes will send it


class TestReadWantsToWrite(Pitfall):
    """A client shakes hands. The server has only read so far, and has nothing to say."""

    usually = "the handshake never ends: each waits for the other"
    wrong = never("^#1 message key line")
    handled = Transport._opened
    naive = {"kv.net.tls.Tls.pending": pending}

    def scenario(self) -> str:
        with house(tls=True) as h:
            guest = h.guest().send_raw(b"")
            guest.send_raw(guest.key.line)
            if not guest.received:
                raise Failure("the client never hears of its ClientHello again")
            return "the handshake is over, and the server's key line has come"
