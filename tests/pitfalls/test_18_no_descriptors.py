"""No descriptor is left to accept with

When a process has as many descriptors as it may, `accept` fails with EMFILE. ENFILE means the same
for the whole machine, and ENOBUFS and ENOMEM stand for other things that run out. The connection
stays in the queue, so the listener stays readable. A level-triggered loop comes back at once, to
the same error. Ending the server would be worse: it throws out those who had got in. What works is
to leave the listener alone for a moment, and then to try again.

What you see: `Too many open files` fills the log, at 100 % CPU, just when the server has the most
to do. What a bystander sees: that connecting works and nothing follows, and that replies come late.
"""

import os
import resource
import socket

from house import house

from kv.net.listener import RETRY, Listener

from .moments import spins
from .pitfall import Failure, Pitfall

TURNS = 50


def back_off(self: Listener, error: OSError) -> None:
    pass  # the next one may work


class TestNoDescriptors(Pitfall):
    """A client wants to connect and there is no descriptor left; half a second later there is."""

    shown = "m"
    usually = "the loop spins until somebody leaves"
    wrong = spins
    handled = Listener._back_off
    naive = {"kv.net.listener.Listener._back_off": back_off}

    def scenario(self) -> str:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with house() as h, socket.socket() as client:
            client.connect(("127.0.0.1", h.port))
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), limits[1]))
            try:
                woken = 0
                for _ in range(TURNS):
                    h.reactor.turn()
                    woken += h.selector.idle == 0
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            told = f"{woken} of {TURNS} turns find the listener ready, and can do nothing"
            if woken > 1:
                raise Failure(told)
            h.wait(RETRY)
            return f"{told}; {len(h.server.connections)} connection {RETRY} s later"


def lowest_free() -> int:
    """The number that the next descriptor would have."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor
