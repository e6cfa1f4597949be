"""The peers that try each step. Each is a function: it says what happened if the step survives it,
and raises `Red` if not. Its docstring says what it does and what it is due.

None of them measures time. They stop the server, send, and let it go on, or wait until it sleeps:
then it has done all that it is going to do. Only the silent one waits for a deadline.
"""

import contextlib
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from patience import patience

from .server import HERE, Client, Red, Server

PITFALLS = HERE.parent / "pitfalls"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: `close` sends RST
LINE = b"a line of a hundred octets".ljust(99, b".") + b"\n"


@dataclass
class Peer:
    """One of the troupe."""

    name: str
    act: Callable[[Server], str]
    pitfalls: tuple[int, ...]  # their numbers in the gallery
    descriptors: int | None  # how many the server may have
    arguments: tuple[object, ...]  # that the server gets after its port

    @property
    def does(self) -> str:
        """What it does, in a few sentences."""
        return " ".join((self.act.__doc__ or "").split())

    @property
    def titles(self) -> list[tuple[int, str]]:
        """The titles of the pitfalls, each the first line of its file."""
        return [
            (number, path.read_text().splitlines()[0].strip('"'))
            for number in self.pitfalls
            for path in PITFALLS.glob(f"test_{number:02}_*.py")
        ]


TROUPE: list[Peer] = []


def peer(
    name: str, *pitfalls: int, descriptors: int | None = None, arguments: tuple[object, ...] = ()
) -> Callable[[Callable[[Server], str]], Callable[[Server], str]]:
    """Adds a function to the troupe."""

    def join(act: Callable[[Server], str]) -> Callable[[Server], str]:
        TROUPE.append(Peer(name, act, pitfalls, descriptors, arguments))
        return act

    return join


def asked(client: Client, line: bytes, other: str = "") -> bytes:
    """The reply to a line, without its number."""
    client.received.clear()
    client.send(line + b"\n")
    replies = client.lines(1)
    if not replies:
        raise Red("waits", f"{other or 'its line'} is not answered")
    number, _, text = replies[0].partition(b" ")
    if not number.isdigit() or text != line.upper():
        raise Red("mixed", f"{line!r} is answered with {replies[0]!r}")
    return number


def beside(server: Server) -> None:
    """Another client, which must not notice anything."""
    with server.client() as other:
        asked(other, b"and me?", "the other client's line")


def expect(replies: list[bytes], lines: list[bytes], word: str = "lost") -> str:
    """Each line has its reply, in order."""
    texts = [reply.partition(b" ")[2] for reply in replies]
    due = [line.upper() for line in lines]
    if texts != due[: len(texts)]:
        wrong = next(i for i, text in enumerate(texts) if i >= len(due) or text != due[i])
        raise Red("mixed", f"reply {wrong + 1} is {replies[wrong][:40]!r}")
    if len(replies) < len(lines):
        raise Red(word, f"{len(replies)} of {len(lines)} replies arrive")
    return f"{len(replies)} of {len(lines)} replies arrive"


@peer("in pieces", 1)
def in_pieces(server: Server) -> str:
    """The client sends one line in three pieces. The server reads each before the next comes."""
    with server.client() as client:
        for piece in (b"one l", b"ine in pie", b"ces\n"):
            client.send(piece)
            client.settle()
        return expect(client.lines(1), [b"one line in pieces"])


@peer("several at once", 1)
def several(server: Server) -> str:
    """The client sends three lines with one `send`."""
    with server.client() as client:
        client.send(b"one\ntwo\nthree\n")
        return expect(client.lines(3), [b"one", b"two", b"three"])


@peer("one beside")
def one_beside(server: Server) -> str:
    """The client connects, and gets its first reply. Then another client asks."""
    with server.client() as client:
        asked(client, b"first")
        beside(server)
        return "both are answered"


@peer("half-closer", 3)
def half_closer(server: Server) -> str:
    """The client sends 14,000 short lines, ends its side, and only then reads. It should get all
    replies. The kernel holds about half of them."""
    with server.client(small=True) as client:
        client.send(b"a\n" * 14_000)
        client.sock.shutdown(socket.SHUT_WR)
        client.settle()
        return expect(client.rest(), [b"a"] * 14_000)


@peer("slow reader", 5, 6, 16)
def slow_reader(server: Server) -> str:
    """The client sends 9,500 short lines and does not read. Another client asks. Then the first
    reads."""
    with server.client(small=True) as client:
        client.send(b"a\n" * 9_500)
        client.settle()
        beside(server)
        return expect(client.lines(9_500), [b"a"] * 9_500)


@peer("never reads", 8)
def never_reads(server: Server) -> str:
    """The client sends as many lines as the server takes, and reads nothing. Then another client
    asks."""
    most, taken, lines = 8 << 20, 0, LINE * 600
    with server.client(small=True) as client:
        client.sock.setblocking(False)
        while taken < most:
            try:
                taken += client.sock.send(lines[taken % len(LINE) :])
            except BlockingIOError:
                server.settle()
                if not client.writable(server.fear):
                    break
        if taken >= most:
            raise Red("grows", f"the server takes all {most >> 20} MiB, and keeps every reply")
        beside(server)
        return "the server takes no more from it, until it reads"


@peer("endless line", 2)
def endless_line(server: Server) -> str:
    """The client sends 1 MiB without an end of line. The longest line has 1,024 octets."""
    with server.client() as client:
        with contextlib.suppress(ConnectionError):
            for _ in range(16):
                client.send(bytes(1 << 16))
                client.settle()
        if client.ended:
            return "it is dropped"
        if client.readable() and client.read(100):
            raise Red("mixed", f"no line has ended, and a reply is {bytes(client.received)[:20]!r}")
        raise Red("grows", "the server takes all of it, and would take more")


@peer("greedy", 22, 23)
def greedy(server: Server) -> str:
    """20,000 short lines of one client wait when the server looks, and one line of another. The
    other should get its reply before half of the 20,000."""
    with server.client() as client, server.client() as other:
        asked(client, b"first")
        server.settle()
        with server.stopped():
            client.send(b"a\n" * 20_000)
            other.send(b"and me?\n")
        replies = other.lines(1)
        first = client.lines(3)[1:]
        if any(reply.partition(b" ")[2] != b"A" for reply in first):
            raise Red("mixed", f"the greedy one's second reply is {first[-1]!r}")
        if not replies:
            raise Red("waits", "the other is not answered")
        before = int(replies[0].split()[0]) - 2
        if before > 10_000:
            raise Red("unfair", f"{before:,} lines of the greedy client come first")
        return "the other has its reply in time"


@peer("a thousand idle", 21)
def a_thousand_idle(server: Server) -> str:
    """1,100 clients connect, and stay. The last of each hundred asks. Then another client asks."""
    with contextlib.ExitStack() as stack:
        for _ in range(11):
            for _ in range(100):
                client = stack.enter_context(server.client())
            asked(client, b"still there?", "one of them")
        beside(server)
        return "they and the other client get their replies"


@peer("resetter", 13)
def resetter(server: Server) -> str:
    """The client resets its connection in the middle of a line. Then another client asks."""
    with server.client() as client:
        asked(client, b"first")
        client.send(b"and the sec")
        client.settle()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    server.settle()
    beside(server)
    return "the other client gets its reply"


@peer("no descriptors", 18, 19, descriptors=20)
def no_descriptors(server: Server) -> str:
    """The server may have 20 descriptors, and 30 clients connect. When 29 have left, the last one
    asks."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(30)]
        if not server.settle(bound=0.2):
            raise Red("spins", "while they wait, the server uses a whole processor")
        asked(clients[0], b"first", "the first one's line")
        for client in clients[:-1]:
            client.close()
        asked(clients[-1], b"last", "the last one's line")
        return "the first gets its reply, and the last when the others have left"


@peer("goes on", 12)
def goes_on(server: Server) -> str:
    """The client sends 200 lines, one that is too long, and goes on sending. It should get 200
    replies."""
    with server.client(small=True) as client:
        client.send(LINE * 200 + b"x" * 2000 + b"\n")
        client.settle()
        with contextlib.suppress(ConnectionError):
            client.send(LINE * 200)
        client.settle()
        replies = client.rest()
        told = expect(replies[:200], [LINE[:-1]] * 200)
        if len(replies) > 200:
            raise Red("grows", "the server takes a line of 2,000 octets, where 1,024 is the most")
        return told


@peer("silent", 15, 24, arguments=(0.2,))
def silent(server: Server) -> str:
    """The client sends half a line, and no more. It has 0.2 seconds to send the other half."""
    with server.client() as client:
        client.send(b"half a l")
        client.settle()
        client.sock.settimeout(server.hope)
        with contextlib.suppress(TimeoutError):
            if not client.sock.recv(1):
                return "the server ends the connection"
        raise Red("stays", "the client keeps its place for ever")


@peer("SIGTERM", 29)
def terminated(server: Server) -> str:
    """1,000 lines of a client wait when the server gets SIGTERM. The client should get all
    replies."""
    with server.client() as client:
        asked(client, b"first")
        server.settle()
        client.received.clear()
        with server.stopped():
            client.send(b"and this\n" * 1000)
            server.signal(signal.SIGTERM)
        told = expect(client.rest(), [b"and this"] * 1000)
    status = server.status(patience(2))
    if status != 0:
        raise Red("lost", f"its exit status is {status}")
    return f"{told}, and its exit status is 0"
