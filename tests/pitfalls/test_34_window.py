"""A script larger than memory

A client is many times as fast if it sends command after command without waiting for each reply. So
it reads a script line by line and sends every line. It has to remember what the server has not
answered yet, to know which reply belongs to which command. It also has to keep what the kernel does
not take. With the hundred lines of a test that is nothing. With some gigabytes, the client reads
the whole script as fast as it can.

What you see: the kernel kills the client for want of memory, while the server is still at the
beginning. What a bystander sees: slower replies, while the server works on what one client sends.
"""

from kv.link import Link
from kv.net.reactor import READ
from kv.net.stdio import Input

from .in_process import Pipe, client
from .moments import seen, spins
from .pitfall import Failure, Pitfall


class TestWindow(Pitfall):
    """A script of 400 commands, and a server that answers none of them."""

    usually = "every command that can be read is sealed, sent and remembered"
    wrong = seen("^#1 command", times=66)
    handled = Link.room
    naive = {"kv.link.WINDOW": 1_000_000_000, "kv.link.UNSENT": 1_000_000_000}

    def scenario(self) -> str:
        with Pipe() as script, Pipe() as output:
            script.write(b"GET k\n" * 400)
            with client(script.source, output.sink, output.sink) as (shell, _server):
                for _ in range(50):
                    shell._reactor.turn()
                held = len(shell._link._conversation.awaiting)
            if held > 64:
                raise Failure(f"{held} of 400 commands await their replies")
            return f"{held} of 400 commands await their replies, the others their turn"


def read_on(self: Input, wanted: bool) -> None:
    """What is usually written: reads whatever is there, to have it when it is wanted."""
    self._registration.set(0 if self.ended else READ)


class TestReadOn(Pitfall):
    """A program writes 1000 KiB of commands into a pipe; the server answers none of them."""

    usually = "commands that may not be sent yet are read all the same"
    wrong = spins
    handled = Input.read_on
    naive = {"kv.net.stdio.Input.read_on": read_on}

    def scenario(self) -> str:
        written = 0
        with Pipe() as script, Pipe() as output:
            with client(script.source, output.sink, output.sink) as (shell, _server):
                for _ in range(250):
                    written += script.write(b"GET k\n\n\n" * 512)
                    shell._reactor.turn()
                held = len(shell._input._buffer)
            if held > 1 << 16:
                raise Failure(f"{held} octets of commands are in memory")
            return f"{held} octets of commands are in memory; after {written} the writer waits"
