"""Standard output: a reader that pauses, a reader that leaves

A client's standard output is often a pipe (`| less`, `| head`). A pipe that its reader does not
empty is full after 64 KiB. Then `print` waits, and nobody looks at the socket: the server may have
gone for hours.

A reader that has had enough leaves, and the next write fails with EPIPE. That is how a pipeline
ends, and no error. The usual program ends with a traceback. If it writes while it reads from the
server, as here, it takes the EPIPE for a broken connection.

What you see: `BrokenPipeError` after `| head`, or a client that does not notice that its server is
gone. What a bystander sees: nothing; the server waits with what it has for that client only.
"""

import os
import select

from kv.net.stdio import Output
from kv.shell import Shell

from .in_process import Pipe, asked, client, turn
from .pitfall import Failure, Pitfall


def write(self: Output, data: bytes) -> None:
    """What is usually written, and what `print` does."""
    os.write(self._descriptor, data)


class TestFull(Pitfall):
    """A reply comes while the output is a full pipe, and then the server goes away."""

    usually = "a client whose output is not read does not notice the server going away"
    wrong = "^stdout write hangs"
    handled = Output._flush
    naive = {"kv.net.stdio.Output.write": write}
    patience = 0.3

    def scenario(self) -> str:
        with Pipe() as keys, Pipe() as replies, Pipe() as notices:
            while replies.write(b"." * 4096):
                pass
            keys.write(b"GET colour\n")
            with client(keys.source, replies.sink, notices.sink) as (shell, server):
                assert asked(shell, server) == "GET colour"
                server.reply("blue")
                server.close()
                turn(shell, lambda: select.select([notices.source], [], [], 0)[0])
                return f"it says: {os.read(notices.source, 1000).decode().strip()}"


class TestClosed(Pitfall):
    """A reply comes when nobody reads the output any more."""

    usually = "`| head` looks like a lost connection"
    wrong = r"^#1 gone with an error: \[Errno"
    handled = Shell.ended
    naive = {"kv.net.stdio.Output.write": write}

    def scenario(self) -> str:
        with Pipe() as keys, Pipe() as replies, Pipe() as notices:
            os.dup2(keys.source, replies.source)  # which closes what it was
            keys.write(b"GET colour\n")
            with client(keys.source, replies.sink, notices.sink) as (shell, server):
                assert asked(shell, server) == "GET colour"
                server.reply("blue")
                turn(shell, lambda: shell._reactor._stopped)
            os.write(notices.sink, b"\n")
            said = os.read(notices.source, 1000).decode().strip()
            if shell._status or said:
                raise Failure(f"exit status {shell._status}, and it says: {said}")
            return f"exit status {shell._status}, and it says nothing"
