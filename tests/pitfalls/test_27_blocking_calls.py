"""Calls that block and do not look like it

A name look-up may ask a server at the other end of the world. `getaddrinfo` returns when that has
answered, or after some five seconds a try if it does not. No selector can wait for it. The classic
is a log that wants the name of each client. The standard library's `BaseHTTPRequestHandler` looked
it up until Python 3.3. Making an RSA key is arithmetic, and takes 35 ms on average, longer with bad
luck. Neither looks like waiting, so both end up in the loop. Here they are done before the loop
runs, and a client's name is its address.

What you see: the whole server pauses for seconds when somebody connects. What a bystander sees: no
reply until the name server has answered.
"""

import contextlib
import socket
from typing import NoReturn
from unittest import mock

from house import house

from kv.net.address import Address
from kv.process import serve
from kv.server import Server

from .moments import slow
from .pitfall import Failure, Pitfall

REAL_ACCEPTED = Server._accepted

#: What a look-up of a name, in whichever direction, and the making of a key end up in.
SLOW = (
    "socket.getaddrinfo",
    "socket.getnameinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "rsa.newkeys",
)


def accepted(self: Server, sock: socket.socket, address: Address) -> None:
    name = socket.getfqdn(address[0])  # for the log
    REAL_ACCEPTED(self, sock, (name, address[1]))


class TestNames(Pitfall):
    """Ten clients come while the name server does not answer, which takes 5 s to notice."""

    usually = "everybody waits for a name server"
    wrong = slow(1)
    handled = serve
    naive = {"kv.server.Server._accepted": accepted}

    def scenario(self) -> str:
        with house() as h:

            def slow(*_: object, **__: object) -> NoReturn:
                h.clock.now += 5
                raise socket.gaierror(socket.EAI_AGAIN, "the name server does not answer")

            with contextlib.ExitStack() as stack:
                for call in SLOW:
                    stack.enter_context(mock.patch(call, slow))
                for number in range(10):
                    h.guest().connect(f"client {number}")
            told = f"ten clients have a session after {h.clock.now:g} s"
            if h.clock.now:
                raise Failure(told)
            return told
