"""`python -m kv client` in this process, turned by hand, and the server's end of its connection."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from unittest import mock

from fake import Conversation, FakeServer
from house import Clock, Selector

from kv.net.address import Address
from kv.net.reactor import Reactor
from kv.owner import Target
from kv.protocol.cipher import PrivateKey
from kv.protocol.messages import Wire
from kv.shell import Shell

KEY = PrivateKey.generate()


@contextlib.contextmanager
def standard(*ours: int) -> Iterator[None]:
    """Descriptors 0 to 2 are `ours` meanwhile."""
    kept = [os.dup(number) for number in range(3)]
    try:
        for number, descriptor in enumerate(ours):
            os.dup2(descriptor, number)
        yield
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextlib.contextmanager
def client(
    stdin: int, stdout: int, stderr: int, quiet: bool = False, raw: bool = False
) -> Iterator[tuple[Shell, Conversation]]:
    """A client that is connected, with these descriptors, in a loop that never sleeps."""
    with (
        FakeServer() as fake,
        standard(stdin, stdout, stderr),
        mock.patch("kv.shell.Reactor", lambda: Reactor(Selector(), Clock())),
    ):
        addresses: list[tuple[int, Address]] = [(socket.AF_INET, ("127.0.0.1", fake.port))]
        shell = Shell(Target(addresses, Wire(), KEY, "alice", timeout=10), raw=raw, quiet=quiet)
        try:
            turn(shell, lambda: shell._link._stream is not None)
            server = fake.accept().handshake()
            turn(shell, lambda: not shell._link.idle)
            assert server.read_text() == "CONNECT alice"
            server.reply("CONNECT: OK")
            turn(shell, lambda: shell._connected)
            yield shell, server
        finally:
            shell._link.abort(None)
            shell._reactor.close()
            for used in {shell._input, shell._screen._output, shell._screen._notices}:
                if used._descriptor > 2:  # a terminal, opened anew
                    os.close(used._descriptor)


def turn(shell: Shell, until: Callable[[], object]) -> None:
    """Turns the client's loop until `until()`."""
    while not until():
        shell._reactor.turn()


def asked(shell: Shell, server: Conversation) -> str:
    """What the client asks the server next."""
    turn(shell, lambda: not shell._link.idle)
    return server.read_text()


class Pipe:
    """A pipe whose ends close with it."""

    def __init__(self) -> None:
        self.source, self.sink = os.pipe()

    def __enter__(self) -> "Pipe":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.source)
        os.close(self.sink)

    def write(self, data: bytes) -> int:
        """Writes as much of `data` as there is room for; how much."""
        os.set_blocking(self.sink, False)
        try:
            return os.write(self.sink, data)
        except BlockingIOError:
            return 0
        finally:
            os.set_blocking(self.sink, True)
