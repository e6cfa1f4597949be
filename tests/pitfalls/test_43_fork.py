"""fork: parent and child share the connection and the selector

A program that holds a connection forks: a web server starts its workers, or `multiprocessing` does.
The child has a copy of every descriptor, and both copies stand for one thing. Two processes now
take octets out of one stream, and each gets some of the other's replies.

What the child does politely is done to the parent. When it closes its copy of a client, that
disconnects the parent's session. The selector is shared, too: what the child unregisters is not
watched for the parent any more.

What you see: a session that ends by itself, values of the wrong keys, or a parent that waits for
ever. All of that happens only after a fork. What a bystander sees: nothing. Other clients have
connections of their own.
"""

import os
from contextlib import suppress

from fake import Conversation, FakeServer

from kv import Client, PrivateKey
from kv.caller import Caller
from kv.link import Link

from .pitfall import Failure, Pitfall

KEY = PrivateKey.generate()


def in_child(call: object) -> None:
    """Calls it in a child of this process, and waits for that to end."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            call()
        os._exit(0)
    os.waitpid(child, 0)


class SameProcess:
    """What is usually not asked: who this is."""

    getpid = staticmethod(lambda: 1)

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)


class TestClose(Pitfall):
    """A child that got a client by `fork` closes it; then the parent asks for a value."""

    usually = "the child disconnects the parent's session"
    wrong = "^#1 gone with an error"
    handled = Caller.drop
    naive = {"kv.caller.os": SameProcess()}

    def scenario(self) -> str:
        texts: list[str] = []

        def serve(conversation: Conversation) -> None:
            texts.extend(conversation.connect().serve())

        with FakeServer() as fake:
            fake.behave(serve)
            client = Client("127.0.0.1", fake.port, client_id="alice", key=KEY)
            in_child(client.close)
            try:
                got = client.get("colour")
            except OSError as error:
                raise Failure(f"the parent's session is over: {error}") from error
            finally:
                client.close()
            fake.join()
        return f"the parent gets its value, {got!r}, and DISCONNECT comes from it alone"


def unregister(self: Caller, reason: str) -> None:
    """What is usually written: what was registered is unregistered, and closed."""
    self._link._stream._registration.set(0)
    self._link._stream.transport.sock.close()


class TestSelector(Pitfall):
    """A child ends its copy of the connection; then the parent asks for a value."""

    usually = "what the child unregisters is not watched for the parent any more"
    wrong = "^#1 gone with an error"
    handled = Link.forget
    naive = {"kv.caller.Caller.drop": unregister}

    def scenario(self) -> str:
        with FakeServer() as fake:
            fake.behave(lambda conversation: conversation.connect().serve())
            client = Client("127.0.0.1", fake.port, client_id="alice", key=KEY, timeout=1)
            in_child(lambda: client._caller.drop("thrown away"))
            try:
                got = client.get("colour")
            except TimeoutError as error:
                raise Failure("the parent's loop does not notice the reply any more") from error
            finally:
                client.close()
        return f"the parent gets its value, {got!r}"
