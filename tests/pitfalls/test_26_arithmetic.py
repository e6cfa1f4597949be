"""Arithmetic in the loop

Nothing in an RSA operation waits, so non-blocking sockets do not help. A private-key operation
takes a fifth of a millisecond for one block. While it runs, nobody is served. Two things do help.
One is not to do it: one key gives one text one line, so a sealed line can be remembered. The other
is to count it. If a turn is bounded in messages, one client can have 64 sealings of five blocks
each before anybody else is looked at. That is 70 ms. So work is weighed by its cost.

What you see: everybody's latency jumps when one client asks for something new. What a bystander
sees: late replies, for as long as the arithmetic takes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from house import house
from wire import KEY

from kv.net.turns import QUANTUM
from kv.protocol.cipher import PrivateKey, work
from kv.protocol.conversation import ServerConversation

from .moments import in_a_turn, seen
from .pitfall import Failure, Pitfall


@contextmanager
def operations() -> Iterator[list[bytes]]:
    """Collects what the private-key operation is done on."""
    done: list[bytes] = []
    real = PrivateKey._seal_block

    def seal_block(self: PrivateKey, part: bytes) -> bytes:
        done.append(part)
        return real(self, part)

    with mock.patch.object(PrivateKey, "_seal_block", seal_block):
        yield done


def sealed_value(self: ServerConversation, key: str, line: bytes) -> bytes:
    return self._service.key.seal(self.session.values[key].encode("ascii"))


class TestRemembered(Pitfall):
    """A client asks for one value 100 times."""

    shown = "m"
    usually = "every reply costs a private-key operation"
    wrong = seen("^#1 seal", times=2)
    handled = ServerConversation._sealed_value
    naive = {"kv.protocol.conversation.ServerConversation._sealed_value": sealed_value}

    def scenario(self) -> str:
        with house() as h:
            guest = h.guest().connect()
            guest.send("PUT k", "v")
            with operations() as done:
                guest.ask(*["GET k"] * 100)
        told = f"{len(done)} private-key operations for 100 replies"
        if len(done) > 1:
            raise Failure(told)
        return told


class TestWeighed(Pitfall):
    """A client asks for 64 values of five blocks, none of which was asked for before."""

    shown = "m"
    usually = "a turn is bounded in messages, which may cost 20 or 1,200 µs each"
    wrong = in_a_turn(" seal ", 20)
    handled = work
    naive = {"kv.protocol.conversation.work": lambda _: (1, 0)}

    def scenario(self) -> str:
        texts = [f"{number:03}" for number in range(64)]
        with house() as h:
            guest = h.guest().connect()
            for text in texts:
                guest.send(f"PUT {text}", "v" * 265)
            guest.socket.send(b"".join(KEY.seal(f"GET {text}".encode()) for text in texts))
            with operations() as done:
                h.reactor.turn()
        told = f"{len(done)} private-key operations in one turn of the loop"
        if len(done) * work(512)[1] > 2 * QUANTUM:
            raise Failure(told)
        return told
