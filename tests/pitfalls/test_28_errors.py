"""A mistake in the handling of one client ends the service of all

In a program with a thread for each client an exception that nobody expected ends that thread, and
the others never know. In a loop it goes up through the handler, the turn and the loop, and ends the
process with everybody in it. So there is one place, and only one, where every exception is caught:
around the handling of one connection. It is logged with its traceback, since it is a mistake in the
program, and that connection is dropped, since nobody knows what state it is in.
"""

from unittest import mock

from house import house

from kv.protocol import Message, Reply, ServerConversation
from kv.reactor import READ, WRITE
from kv.stream import Stream

from .pitfall import Failure, Pitfall

REAL_EXECUTE = ServerConversation._execute


def execute(self: ServerConversation, message: Message, argument: str) -> Reply:
    """The server's, with a mistake in it."""
    if argument == "unlucky":
        raise ZeroDivisionError("division by zero")
    return REAL_EXECUTE(self, message, argument)


def ready(self: Stream, events: int) -> None:
    if events & WRITE:
        self.flush()
    if events & READ:
        self._read()


class TestError(Pitfall):
    """A client asks for the one key for which there is a mistake in the server; another follows."""

    usually = "the server ends, with everybody in it"
    handled = Stream._ready
    naive = {"kv.stream.Stream._ready": ready}

    def scenario(self) -> str:
        with mock.patch("kv.protocol.ServerConversation._execute", execute), house() as h:
            unlucky, other = h.guest().connect("alice"), h.guest().connect("bob")
            try:
                unlucky.send("GET unlucky")
            except ZeroDivisionError as error:
                raise Failure(f"the loop ends with everybody in it: {error!r}") from error
            assert unlucky.ended and h.server.drops == {"error": 1}
            return f"one client is dropped, the other has its reply: {other.ask('GET k')[0]}"
