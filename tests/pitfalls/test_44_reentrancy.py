"""Re-entrancy: a second caller in the middle of a call

A call of a blocking client sends a command and waits for the reply. While it waits, other code
runs: a second thread, a signal handler, a finaliser that the garbage collector calls. If that code
uses the same client, it takes the first reply that comes, and that belongs to the first caller.
Nothing fails. Each gets the value of the other's key.

A flag that is tested and then set does not help: there is a gap between the two, and the signal
comes there.

What you see: wrong values, now and then, in a program with threads or signal handlers. What a
bystander sees: nothing; the server has answered every command rightly.
"""

import signal
from contextlib import ExitStack, closing

from fake import Conversation, FakeServer

from kv import Client, PrivateKey
from kv.caller import Caller

from .pitfall import Failure, Pitfall

KEY = PrivateKey.generate()


def execute(self: Caller, commands: object) -> list[str]:
    """What is usually written: nobody else is expected."""
    return self._execute(commands)


class TestSignalHandler(Pitfall):
    """A signal handler asks for `two` while the call that asks for `one` awaits its reply."""

    usually = "a caller gets the value of another's key, or waits for ever"
    wrong = "^#1 command 'GET two'"
    handled = Caller.execute
    naive = {"kv.caller.Caller.execute": execute}

    patience = 0.3

    def scenario(self) -> str:
        said: list[object] = []

        def serve(conversation: Conversation) -> None:
            conversation.connect().read_text()
            signal.raise_signal(signal.SIGUSR1)  # from another thread: the main one handles it
            conversation.reply("one")
            conversation.serve()

        def handler(*_: object) -> None:
            try:
                said.append(client.get("two"))
            except RuntimeError:
                said.append("a RuntimeError")

        with ExitStack() as stack:
            fake = stack.enter_context(FakeServer())
            fake.behave(serve)
            before = signal.signal(signal.SIGUSR1, handler)
            stack.callback(signal.signal, signal.SIGUSR1, before)
            client = Client("127.0.0.1", fake.port, client_id="alice", key=KEY, timeout=1)
            stack.enter_context(closing(client))
            try:
                got = client.get("one")
            except Exception as error:
                raise Failure(f"the call that runs raises {error!r}") from error
            if got != "one" or said != ["a RuntimeError"]:
                raise Failure(f"who asked for 'one' gets {got!r}, the handler gets {said}")
        return "the handler gets a RuntimeError, and the call that runs its value"
