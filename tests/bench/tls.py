"""The same inside TLS 1.3: handshakes, hot lines, and what an idle session keeps.

What is compared is what a loop adds to OpenSSL, so all servers have the same certificate and the
same settings of TLS. The competitors are the forty-line ones: whoever writes TLS by hand has no
more than that around it.
"""

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from .load import PATIENCE, READ_SIZE, Connection, Figures, connect, live
from .rows import PIPELINED, Prepared, Result, Row, Side, hot, measure
from .servers import FORTY, HOST, OURS, Process, names


def context() -> ssl.SSLContext:
    """A client's, that believes everybody: chains are the client's work, and not measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


CONTEXT = context()


class TlsConnection(Connection):
    """A connection with TLS in it."""

    __slots__ = ("tls",)

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.sock.settimeout(PATIENCE)
        self.sock = self.tls = CONTEXT.wrap_socket(self.sock)
        self.sock.setblocking(False)

    def write(self, octets: bytes) -> int:
        """As `os.write`."""
        return self.tls.send(octets)

    def read(self) -> bytes:
        """What has arrived; perhaps nothing."""
        try:
            return self.tls.recv(READ_SIZE) or self.ended()
        except ssl.SSLWantReadError:  # a record is not complete
            return b""


class Handshake:
    """A life from connect to the end, with nothing between the handshake and the farewell."""

    __slots__ = ("shaken", "sock", "started")

    def __init__(self, port: int) -> None:
        self.started = time.perf_counter()
        sock = socket.create_connection((HOST, port), PATIENCE)
        sock.setblocking(False)
        self.sock = CONTEXT.wrap_socket(sock, do_handshake_on_connect=False)
        self.shaken = False
        self.go_on()

    def go_on(self) -> bool:
        """The next that can be done; whether the other side has ended, too."""
        if self.shaken:
            return not socket.socket.recv(self.sock, READ_SIZE)
        try:
            self.sock.do_handshake()
            self.shaken = True
            self.sock.unwrap()
        except ssl.SSLWantReadError:
            if self.shaken:
                socket.socket.shutdown(self.sock, socket.SHUT_WR)
        return False


def shake(port: int, at_a_time: int, seconds: float) -> Figures:
    """Has handshakes, so many at a time, so long."""
    return live(lambda: Handshake(port), at_a_time, seconds)[0]


@dataclass
class Inside:
    """What was found."""

    sessions: int
    memory: float  # octets of resident memory for each session, while all are idle
    results: list[Result]


def look_inside(
    prepared: Prepared,
    begin: Callable[[str], None],
    step: Callable[[], None],
    end: Callable[[], None],
) -> Inside:
    """Measures all that."""
    scale = prepared.scale
    rows = [
        Row(
            "TLS: handshakes",
            lambda side, _: shake(side.server.port, scale.connections, scale.seconds),
            opens=0,
            unit="handshakes",
        ),
        hot(prepared, 1, "TLS: "),
        hot(prepared, PIPELINED, "TLS: "),
    ]
    with ExitStack() as stack:
        sides = {}
        for name in names(FORTY):
            server = stack.enter_context(Process(name, tls=True))
            side = sides[name] = Side.of(server, prepared, TlsConnection)
            stack.callback(side.close)
        results = []
        for row in rows:
            begin(row.title)
            results.append(measure(row, sides, scale, step))
            end()
    begin(f"{scale.tls_sessions:,} idle sessions with TLS")
    memory = idle(prepared)
    end()
    return Inside(scale.tls_sessions, memory, results)


def idle(prepared: Prepared) -> float:
    """Octets of resident memory for each session. The first ones fill what is there once."""
    scale = prepared.scale
    first, others = prepared.connects[: scale.connections], prepared.connects[scale.connections :]
    with ExitStack() as stack:
        server = stack.enter_context(Process(OURS, tls=True))
        warm = Side(server, connect(server.port, prepared.sealer, first, TlsConnection))
        stack.callback(warm.close)
        before = server.resident()
        ids = others[: scale.tls_sessions]
        still = Side(server, connect(server.port, prepared.sealer, ids, TlsConnection))
        stack.callback(still.close)
        return (server.resident() - before) / len(ids)


def report(inside: Inside) -> str:
    """As text, what is not in the rows."""
    memory = inside.memory / 1024
    return f"{inside.sessions:,} TLS sessions: {memory:.1f} KiB of resident memory each"
