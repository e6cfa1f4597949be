"""Urgent data: one octet beside the stream

TCP lets a sender mark an octet as urgent (`MSG_OOB`), once meant for Ctrl-C in a remote terminal.
The usual kernel takes that octet out of the stream and keeps it apart. `recv` returns what was sent
before and after it, and nothing says that an octet is missing. A second urgent octet overwrites the
first. No honest client sends urgent data to a line protocol. But anybody can, by mistake or on
purpose, and then the LF of a line may be the octet that is gone. With SO_OOBINLINE the octet stays
where it was sent, and the mark means nothing (RFC 6093, section 4).

What you see: a message lacks a character, or is never answered. What a bystander sees: nothing.
The other connections are served as before.
"""

import socket

from house import house

from kv.net import tcp

from .moments import never
from .pitfall import Failure, Pitfall

REAL_PREPARE = tcp.prepare


def prepare(sock: socket.socket, stall_timeout: float) -> None:
    REAL_PREPARE(sock, stall_timeout)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)  # which is the default


class TestUrgent(Pitfall):
    """A client sends a line and marks its last octet, the LF, as urgent. A bystander asks, too."""

    usually = "the octet is missing, and so is the reply"
    wrong = never("^#1 message GET")
    handled = tcp.prepare
    naive = {"kv.net.tcp.prepare": prepare}

    def scenario(self) -> str:
        with house() as h:
            guest, bystander = h.guest().connect("alice"), h.guest().connect("bob")
            guest.socket.send(guest.key.seal(b"GET k"), socket.MSG_OOB)
            h.settle()
            replies = len(guest.texts()) - 1
            assert bystander.ask("GET k") == ["GET: ERROR"]
            told = f"{replies} of 1 replies; the bystander has its own"
            if not replies:
                raise Failure(told)
            return told
