"""A mistake in the handling of one client ends the service of all

In a program with a thread for each client, an unexpected exception ends that thread, and the others
never know. In a loop it goes up through the handler and the turn, and ends the process with
everybody in it. So every exception is caught where the loop calls into the handling of one
connection, and nowhere else. There are three such places: when a socket is ready, when its turn
comes for what is left over (23), and when its deadline does. The exception is a mistake in the
program, so it is logged with its traceback. That connection is dropped, because nobody knows what
state it is in.

What you see: one strange client, one traceback, and everybody is disconnected. What a bystander
sees: the end of its own connection, for what another one sent.
"""

from typing import Any, ClassVar
from unittest import mock

from house import house

from kv.net.directions import TURN
from kv.net.reactor import READ, WRITE
from kv.net.stream import Stream
from kv.protocol.conversation import ServerConversation
from kv.protocol.messages import Message, Reply

from .moments import never
from .pitfall import Failure, Pitfall

REAL_EXECUTE = ServerConversation._execute


def execute(self: ServerConversation, message: Message, argument: str) -> Reply:
    """The server's, with a mistake in it."""
    if argument == "unlucky":
        raise ZeroDivisionError("division by zero")
    return REAL_EXECUTE(self, message, argument)


def ready(self: Stream, events: int) -> None:
    self._running = True
    if events & WRITE:
        self.transport.send()
    if events & READ:
        self._read()
    self._settle()
    self._running = False


def take_turn(self: Stream) -> None:
    self._running = True
    self.holds &= ~TURN
    if self._lines.waiting:
        self._hand_over(self._lines.next())
    self._settle()
    self._running = False


class TestError(Pitfall):
    """A client asks for the one key for which there is a mistake in the server; another follows."""

    usually = "the server ends, with everybody in it"
    wrong = never("^#2 send", after="division by zero")
    handled: ClassVar[Any] = Stream._ready
    naive = {"kv.net.stream.Stream._ready": ready}
    before = 0  # commands of the same client that are handled first

    def scenario(self) -> str:
        with (
            mock.patch("kv.protocol.conversation.ServerConversation._execute", execute),
            house() as h,
        ):
            unlucky, other = h.guest().connect("alice"), h.guest().connect("bob")
            try:
                unlucky.send(*["GET k"] * self.before, "GET unlucky")
            except ZeroDivisionError as error:
                raise Failure(f"the loop ends with everybody in it: {error!r}") from error
            assert unlucky.ended and h.server.drops == {"error": 1}
            return f"one client is dropped, the other has its reply: {other.ask('GET k')[0]}"


class TestLater(TestError):
    """The same after 100 other commands, so that it is reached in a call that was deferred."""

    usually = "it ends after all, when the mistake is met in what was left for another turn"
    wrong = never("^#2 send", after="division by zero")
    handled = Stream.take_turn
    naive = {"kv.net.stream.Stream.take_turn": take_turn}
    before = 100
