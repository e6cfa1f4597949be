"""An accepted socket blocks until told otherwise

On Linux, a socket from `accept` does not inherit O_NONBLOCK from its listener (accept(2), "NOTES").
On macOS and the BSDs it does. So a program can be right there and wrong here. Nobody notices while
`recv` comes after readiness and replies are small. Then one client does not read. `send` waits for
room in its buffer, as a blocking socket should. The one thread that serves everybody waits with it.

What you see: the whole server stands still until one client reads or leaves. What a bystander
sees: no reply at all, however small the question.
"""

import socket

from house import house

from kv.net import tcp

from .pitfall import Pitfall

REAL_PREPARE = tcp.prepare


def prepare(sock: socket.socket, stall_timeout: float) -> None:
    REAL_PREPARE(sock, stall_timeout)
    sock.setblocking(True)  # as it was when it came from accept


class TestBlocking(Pitfall):
    """One client asks for more than the buffers hold and reads nothing; another asks for a key."""

    usually = "one client that does not read stops the server for everybody"
    wrong = "^#2 send hangs"
    handled = tcp.prepare
    naive = {"kv.net.tcp.prepare": prepare}
    patience = 0.3

    def scenario(self) -> str:
        with house() as h:
            other = h.guest().connect("bob").send("PUT k", "blue")
            h.owed(1000)
            return f"the other one gets its reply: {other.ask('GET k')[0]}"
