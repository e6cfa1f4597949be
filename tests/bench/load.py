"""The load generator, as cheap per message as Python allows.

One thread, one epoll; `os.read` and `os.write` on bare descriptors. The generator sends lines that
were sealed beforehand, and counts the LFs in what comes back. After each measurement, it opens each
connection's last reply and compares the text. So it notices if a server skips or swaps a reply.

Each connection sends a batch, waits for all its replies, and sends the next. With fifty
connections the server always has messages. (Some clients send more after every reply. But then the
server's turns would be as small as the generator's.)
"""

import functools
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

from kv.protocol.cipher import PublicKey

from .lines import WIDTH, WIRE, Sealer, opened
from .servers import HOST

READ_SIZE = 65536
PATIENCE = 10.0  #: seconds until a server that says nothing is given up


class Wrong(Exception):
    """The server said something else than it should have, or nothing, or closed."""


@dataclass
class Figures:
    """What was seen of a measurement from this end."""

    count: int  # replies, or conversations
    seconds: float
    latencies: list[float]  # seconds, from the sending of a batch to the last of its replies


class Script:
    """What a connection says, over and over, and what it must hear.

    `lines` is a number of exchanges end to end, each of `size` octets and with one reply;
    exchange i is answered with `answers[i % len(answers)]`. A batch may run over the end, hence
    `octets`, which goes on with its beginning.
    """

    def __init__(
        self, lines: bytes, answers: Sequence[str], batch: int = 1, size: int = WIDTH
    ) -> None:
        self.answers = answers
        self.batch = batch
        self.size = size
        self.length = len(lines)
        self.step = batch * size
        self.octets = (lines * (2 + self.step // self.length))[: self.length + self.step]

    def last_answer(self, place: int) -> str:
        """The last reply of the batch before `place`."""
        exchange = (place - 1) % self.length // self.size
        return self.answers[exchange % len(self.answers)]


class Connection:
    """A TCP connection, and how far it is in its script."""

    __slots__ = ("fd", "left", "place", "received", "script", "server_key", "sock", "started")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection((HOST, port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.fd = self.sock.fileno()
        self.server_key: PublicKey | None = None
        self.received = b""
        self.left = -1  # batches; from below 0 it never gets to 0

    def begin(self, script: Script, place: int = 0) -> None:
        """Turns to another script, at the exchange that starts at octet `place`."""
        self.script = script
        self.place = place

    def send(self, now: float) -> None:
        """Sends the next batch."""
        script, place = self.script, self.place
        self.place = (place + script.step) % script.length
        self.received = b""
        self.started = now
        if self.write(script.octets[place : place + script.step]) != script.step:
            raise Wrong("the kernel did not take a whole batch")

    def write(self, octets: bytes) -> int:
        """As `os.write`."""
        return os.write(self.fd, octets)

    def read(self) -> bytes:
        """What has arrived."""
        return os.read(self.fd, READ_SIZE) or self.ended()

    def ended(self) -> NoReturn:
        """Nothing more can arrive."""
        raise Wrong("the server closed the connection")

    def check(self) -> None:
        """Opens the last reply; the first of all is the server's key."""
        *before, line = self.received.splitlines(keepends=True)
        if self.server_key is None:
            self.server_key = server_key(line)
            return
        text = opened(self.server_key, line)
        expected = self.script.last_answer(self.place)
        if text != expected or len(before) != self.script.batch - 1:
            raise Wrong(f"{len(before) + 1} replies, the last {text!r}, not {expected!r}")


@functools.lru_cache
def server_key(line: bytes) -> PublicKey:
    """The key in a server's key line."""
    return PublicKey.from_line(line[:-1], WIRE.key_bits)


def drive(
    connections: Sequence[Connection], seconds: float = float("inf"), batches: int = -1
) -> Figures:
    """Lets every connection play its script for so long, or for so many batches.

    The scripts must agree in the size of a batch.
    """
    clock, pending = time.perf_counter, len(connections)
    batch = connections[0].script.batch
    by_fd = {connection.fd: connection for connection in connections}
    latencies: list[float] = []
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        start = now = clock()
        deadline = start + seconds
        for connection in connections:
            connection.left = batches
            connection.send(clock())
        while pending:
            ready = epoll.poll(PATIENCE)
            if not ready:
                raise Wrong(f"{pending} connections got no reply within {PATIENCE:g} s")
            for fd, _ in ready:
                connection = by_fd[fd]
                # Adding to nothing copies nothing, and mostly the replies come in one piece.
                connection.received += connection.read()
                if connection.received.count(b"\n") < batch:
                    continue
                now = clock()
                latencies.append(now - connection.started)
                connection.left -= 1
                if connection.left and now < deadline:
                    connection.send(now)
                else:
                    pending -= 1
    for connection in connections:
        connection.check()
    return Figures(len(latencies) * batch, now - start, latencies)


def connect(
    port: int,
    sealer: Sealer,
    connects: Sequence[bytes],
    kind: Callable[[int], Connection] = Connection,
) -> list[Connection]:
    """Connections with a session each; `connects` are their CONNECT lines.

    A hundred at a time: the kernel queues only so many that the server has not accepted yet.
    """
    connections: list[Connection] = []
    for first in range(0, len(connects), 100):
        group = connects[first : first + 100]
        new = [kind(port) for _ in group]
        connections += new
        key = Script(sealer.key_line, [], size=len(sealer.key_line))
        for connection in new:
            connection.begin(key)
        drive(new, batches=1)
        for connection, line in zip(new, group, strict=True):
            connection.begin(Script(line, ["CONNECT: OK"]))
        drive(new, batches=1)
    return connections


class Life(Protocol):
    """What a client does from connect to the end."""

    sock: socket.socket
    started: float  # on the clock of `time.perf_counter`

    def go_on(self) -> bool:
        """Does what can be done next. Whether that was the last."""


class Conversation:
    """One life from connect to the end of the stream, a reply awaited after each message."""

    __slots__ = ("count", "lines", "received", "sock", "started")

    def __init__(self, port: int, lines: Sequence[bytes]) -> None:
        self.started = time.perf_counter()
        # Over the loopback this does not wait: the kernel answers for the listener.
        self.sock = socket.create_connection((HOST, port), PATIENCE)
        self.lines = iter(lines)
        self.received = b""
        self.sock.send(next(self.lines))

    def go_on(self) -> bool:
        """Sends the next message once the last one is answered."""
        data = self.sock.recv(READ_SIZE)
        self.received += data
        if data.endswith(b"\n") and (line := next(self.lines, b"")):
            self.sock.send(line)
        if not data and self.received.count(b"\n") != 3:
            raise Wrong("the server closed the connection before the end")
        return not data


AnyLife = TypeVar("AnyLife", bound=Life)


def live(begin: Callable[[], AnyLife], at_a_time: int, seconds: float) -> tuple[Figures, AnyLife]:
    """Has lives, so many at a time, so long. Returns the one that ended last, too."""
    clock = time.perf_counter
    latencies: list[float] = []
    lives: dict[int, AnyLife] = {}
    with select.epoll() as epoll:

        def begin_one() -> None:
            new = begin()
            lives[new.sock.fileno()] = new
            epoll.register(new.sock, select.EPOLLIN)

        start = now = clock()
        for _ in range(at_a_time):
            begin_one()
        while lives:
            ready = epoll.poll(PATIENCE)
            if not ready:
                raise Wrong(f"{len(lives)} got no answer within {PATIENCE:g} s")
            for fd, _ in ready:
                one = lives[fd]
                if not one.go_on():
                    continue
                one.sock.close()  # which takes it out of the epoll, too
                del lives[fd]
                now = clock()
                latencies.append(now - one.started)
                if now < start + seconds:
                    begin_one()
    return Figures(len(latencies), now - start, latencies), one


def converse(
    port: int,
    key_line: bytes,
    connects: Iterator[bytes],
    disconnect: bytes,
    at_a_time: int,
    seconds: float,
) -> Figures:
    """Has conversations (key, CONNECT, DISCONNECT, end of stream), so many at a time, so long."""
    figures, last = live(
        lambda: Conversation(port, (key_line, next(connects), disconnect)), at_a_time, seconds
    )
    key, *replies = last.received.splitlines(keepends=True)
    texts = [opened(server_key(key), line) for line in replies]
    if texts != ["CONNECT: OK", "DISCONNECT: OK"]:
        raise Wrong(f"a conversation heard {texts}")
    return figures
