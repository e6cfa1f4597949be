"""One address after the other: the black hole in front takes all the time

A name has several addresses, and the way to the first may swallow every packet: an IPv6 route that
leads nowhere, a machine that is off. Nothing comes back from there, not even a refusal.

The usual loop over the addresses waits for each until it is decided. Even with a fair share of the
time for each, half of it is over before the second address is tried, which would have answered at
once. RFC 8305 has a better plan. The next attempt begins a quarter of a second after the last one,
or at once when one fails, and all go on until one of them connects.

What you see: connecting takes many seconds by name, and no time by address. What a bystander sees:
nothing, as long as its own way to the first address works.
"""

import socket
from contextlib import closing

from kv.net.connector import Connector

from .pitfall import Failure, Pitfall
from .test_33_connecting import Connecting, listening, silent


def try_next(self: Connector) -> None:
    """What is usually written: each address has its share of the time, one after the other."""
    while self._attempts:
        self._attempts.pop().close()
    if self._addresses:
        share = 10 / (1 + len(self._addresses))
        self._begin(*self._addresses.popleft())
        self._next = self._reactor.call_later(share, self._try_next)


class TestBlackHole(Pitfall):
    """The first of two addresses swallows every packet; ten seconds are allowed in all."""

    usually = "the address that would answer waits for the one that never does"
    wrong = "timer try next in [1-9]"
    handled = Connector._try_next
    naive = {"kv.net.connector.Connector._try_next": try_next}

    def scenario(self) -> str:
        with (
            silent() as first,
            listening() as second,
            closing(Connecting(first, second)) as attempt,
        ):
            while not attempt.said:
                attempt.reactor.turn()
                attempt.clock.now += 0.01 if not attempt.reactor._deferred else 0
            (sock,) = attempt.said
            assert isinstance(sock, socket.socket) and sock.getpeername() == second.getsockname()
            if attempt.clock.now > 1:
                raise Failure(f"connected after {attempt.clock.now:.1f} of 10 s")
            return "connected before a second was over"
