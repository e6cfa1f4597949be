"""A handshake in the accept loop

`context.wrap_socket(listener)` is the usual way to have a server with TLS. Its `accept` does the
whole handshake before it returns. So a client that connects and says nothing stops the server: no
other client is accepted or served. A handshake is several messages of a peer that may be
slow, so it belongs in the loop, like everything else that peers say. It costs about 30 times what a
command does, so it has to count as work (26, 38). And it has a deadline (24), because a handshake
that is half finished holds memory: OpenSSL sets aside what a peer says that it is going to send.

What you see: the server stands still, and goes on when one client leaves. Or it grows by 100 KiB
for each client that has said nine octets. What a bystander sees: no reply, for as long as another
client's handshake takes.
"""

import os
import socket
from pathlib import Path

from certificates import SERVER
from house import house

from kv.net.address import Address
from kv.net.credentials import server_context
from kv.net.records import ClearRecords
from kv.net.transport import Transport
from kv.server import Server

from .moments import never, without
from .pitfall import Failure, Pitfall


def accepted(self: Server, sock: socket.socket, address: Address) -> None:
    sock.setblocking(True)
    context = server_context(*SERVER)
    with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as wrapped:
        wrapped.do_handshake()


class TestInLine(Pitfall):
    """One client connects and says nothing; another one comes."""

    usually = "one silent client stops the whole server"
    wrong = never("^loop turn is over")
    handled = Transport._opened
    naive = {"kv.server.Server._accepted": accepted}
    patience = 1.0

    def scenario(self) -> str:
        with house(tls=True) as h:
            h.guest()
            h.guest().connect()
            h.wait(10)
            if h.server.drops["handshake"] != 1:
                raise Failure("the silent client is still there")
            return "the other one is served, and the silent one is gone after 10 s"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def look_at(self: ClearRecords, messages: bytes) -> None:
    pass  # OpenSSL will see


class TestAnnounced(Pitfall):
    """Clients announce a first message of 128 KiB, in nine octets, and say nothing more."""

    shown = "m"
    alone = True
    patience = 60.0  # it only measures
    usually = "each of them costs 100 KiB and more"
    wrong = without(" recv 9 of", " tls handshake -> over")
    handled = ClearRecords.cut
    naive = {"kv.net.records.ClearRecords._look_at": look_at}

    def scenario(self) -> str:
        if not Path("/proc/self/statm").exists():
            return "cannot be measured here"
        with house(tls=True) as h:
            for _ in range(50):  # the allocator has then what it needs
                h.guest()
            before = resident()
            for _ in range(100):
                guest = h.guest()
                guest.socket.tcp.send(b"\x16\x03\x01\x00\x04" + b"\x01\x01\xff\xff")  # type: ignore[attr-defined]
                h.settle()
            each = (resident() - before) // 100
        told = f"each costs {each // 1024} KiB"
        if each > 100 * 1024:  # both ends are in this process: 60 without, 180 with it
            raise Failure(told)
        return told
