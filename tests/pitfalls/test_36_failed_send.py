"""A failed `send` says nothing about what can still be read

A peer sends its last words and goes. It may have closed with unread input, so an RST follows (12).
Then our `send` fails with EPIPE or ECONNRESET. Most code takes that for the end of the connection,
and closes. But the peer's last words came before the RST, and they are in our own kernel. `recv`
still returns them. Often they are the reason why the peer went: an error message, a redirect, the
reply to the command before.

So a failed `send` ends one direction. What is unsent is void. Reading goes on until `recv` itself
says that there is no more, and then the error of the `send` is told.

What you see: `Broken pipe` in the log, where the peer had said what was wrong. What a bystander
sees: nothing; the error is told to the one whose connection it was.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

from house import Clock, Selector

from kv.net.directions import Event
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.tcp import reset_on_close
from kv.net.transport import Transport
from kv.net.turns import Turns

from .pitfall import Failure, Pitfall


class Heard:
    """An owner that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.error: Exception | None = None
        self.over = False

    def lines_received(self, lines: Iterator[bytes], _budget: int) -> int:
        """Takes all."""
        self.lines += lines
        return 1

    def line_too_long(self) -> None:
        """Does not happen."""

    held_up = drained = end_received = line_too_long

    def closed(self, error: Exception | None, ours: bool) -> None:
        """The end."""
        self.error, self.over = error, True
        assert not ours


def fail(self: Transport, _event: Event, error: Exception) -> None:
    self.error = error
    self.step(Event.ABORT)  # there is nobody any more


class TestFailedSend(Pitfall):
    """A peer sends its last words and resets the connection; we had something to say."""

    usually = "the peer's last words are thrown away unread"
    wrong = "^#1 incoming OPEN -> ENDED"
    handled = Transport.send
    naive = {"kv.net.transport.Transport.fail": fail}

    def scenario(self) -> str:
        with ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            peer = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
            reactor, heard = Reactor(Selector(), Clock()), Heard()
            stack.callback(reactor.close)
            stream = Stream(reactor, ours, heard, Limits(), Turns(reactor))
            peer.sendall(b"too many connections\n")
            reset_on_close(peer)
            peer.close()
            stream.write(b"hello\n")
            for _ in range(20):
                reactor.turn()
            assert heard.over
            told = f"{len(heard.lines)} of 1 line is heard; then {heard.error!r}"
            if not heard.lines:
                raise Failure(told)
            return told
