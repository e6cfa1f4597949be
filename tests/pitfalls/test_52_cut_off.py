"""The end without close_notify is not the end

FIN says "that was all", and anybody on the way can forge one. TLS therefore has a record of its own
that says so: `close_notify`. If FIN comes without it, the connection was cut off, and what came
last may not be all. `SSLSocket.recv` hides that by default (`suppress_ragged_eofs=True`): it
returns `b""`, as after a proper end. The other half: send your own close_notify before your FIN,
which `SSLSocket.close` does not do. In TLS 1.3 it ends one direction only, like FIN, so half-close
(3) works as it does without TLS. `unwrap` cannot do that, as it waits for the other side's.

What you see: a file, or a script's output, that is shorter than it was, and no error. Or peers
that complain: "unexpected EOF while reading". What a bystander sees: nothing. Only one connection
is affected.
"""

import socket

from house import house

from kv.net.tls import Tls
from kv.net.transport import Transport

from .moments import seen
from .pitfall import Failure, Pitfall


def ended(self: Tls) -> bool:
    return True


class TestCutOff(Pitfall):
    """Somebody on the way ends a client's connection, in the middle of its session."""

    usually = "a connection that was cut off is taken for a finished one"
    wrong = "^#1 end"
    handled = Tls.ended
    naive = {"kv.net.tls.Tls.ended": ended}

    def scenario(self) -> str:
        with house(tls=True) as h:
            guest = h.guest().connect()
            guest.socket.tcp.shutdown(socket.SHUT_WR)  # type: ignore[attr-defined]
            h.settle()
            if not h.server.drops:
                raise Failure("the server takes it for the client's end, and is content")
            return "the server counts it as lost"


def close_notify(self: Tls) -> bytes:
    return b""  # `close` will do


class TestGoodbye(Pitfall):
    """A client disconnects."""

    usually = "the client cannot know whether that was all"
    wrong = seen("^#1 shutdown", unless="-> we ended")
    handled = Transport.shut_down
    naive = {"kv.net.tls.Tls.close_notify": close_notify}

    def scenario(self) -> str:
        with house(tls=True) as h:
            guest = h.guest().connect()
            guest.send("DISCONNECT")
            if not guest.socket.their_end:  # type: ignore[attr-defined]
                raise Failure("FIN comes, and nothing before it that says so")
            return "close_notify comes, and then FIN"


REAL_OPENED = Transport._opened


def opened(self: Transport, octets: bytes, tls: Tls) -> bytes:
    plaintext = REAL_OPENED(self, octets, tls)
    if tls.they_ended:
        self.unsent += tls.close_notify()  # as asyncio does
    return plaintext


class TestHalfClose(Pitfall):
    """A client ends its side with its last command, and reads on."""

    usually = "its replies are lost"
    wrong = "they wait$"
    handled = Transport._opened
    naive = {"kv.net.transport.Transport._opened": opened}

    def scenario(self) -> str:
        with house(tls=True) as h:
            guest = h.guest().connect()
            guest.socket.sendall(guest.key.seal(b"GET k") * 3)
            guest.socket.shutdown(socket.SHUT_WR)
            h.settle()
            told = f"{len(guest.texts()) - 1} of 3 replies come"
            if len(guest.texts()) < 4:
                raise Failure(told)
            return told
