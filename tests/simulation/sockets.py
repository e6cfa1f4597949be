"""The simulated kernel's TCP: the server's sockets, connected and listening.

What is modelled, because servers have been wrong about it:

- buffers are bounded, and a full one stops the sender (flow control);
- a socket is blocking until told otherwise, and a blocking call would here sleep for ever;
- readiness is a hint, counts are short, `accept` fails in a dozen ways;
- closing with unread input, or data for a closed socket, makes the kernel send RST;
- a RST destroys what the receiver has not read, and what the sender's kernel has not delivered;
- SO_LINGER with 0 seconds turns `close` into RST;
- a connection can die while it waits to be accepted.
"""

import errno
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from .kernel import DEAD, READ, WRITE, Failure, Kernel, error

if TYPE_CHECKING:
    from .network import Peer

ADDRESS = ("192.0.2.1", 4242)  # RFC 5737: documentation


class Socket:
    """The server's end of one connection, with the methods of `socket.socket` that it uses."""

    def __init__(self, kernel: Kernel, peer: "Peer") -> None:
        self.kernel = kernel
        self.peer = peer
        self.fd = -1
        rng = kernel.rng
        self.receive_size = rng.choice((64, 600, 4096))
        self.send_size = rng.choice((64, 600, 4096))
        self.unread = bytearray()  # arrived, not given to recv
        self.undelivered = bytearray()  # taken by send, not with the peer
        self.fin = False  # the peer's FIN has arrived
        self.end_seen = False  # recv has returned b""
        self.shut = False  # our side is ended
        self.closed = False
        self.dead = False  # both directions are gone
        self.pending_error = ""  # what the next call will fail with
        self.told = False  # of that error
        self.taken = 0  # octets given to recv, in all
        self.calls = 0  # of recv
        self.given = 0  # octets taken by send, in all
        self.delivered = 0  # octets that the peer's kernel has acknowledged, in all
        self.fin_delivered = False
        self.acknowledged_at = 0.0  # when it last acknowledged something
        self.given_at = 0.0  # when send last took an octet
        self.error_told: OSError | None = None
        self.closed_at = 0.0
        self.was_alive = False  # when the server closed it, or the listener it waited for
        self.connected = False  # the server has set a connection up
        self.reset_sent = False  # by `close`
        self._blocking = True
        self.keepalive = False  # whether the kernel was asked to find out that a peer is gone
        self.reset_on_close = False
        self.halves = False  # send takes no more than half of what it is given

    def __str__(self) -> str:
        return f"{self.peer.name}/fd {self.fd}" if self.fd >= 0 else self.peer.name

    # What the server calls

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self.fd

    def setblocking(self, flag: bool) -> None:
        self._check("setblocking", any_mode=True)
        self._blocking = flag

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Keepalive and SO_LINGER count. BSD refuses every option of a socket that was reset."""
        self._check("setsockopt", any_mode=True)
        if self.dead and self.kernel.dice.bsd:
            self.told = True
            raise error("EINVAL")
        if level == socket.SOL_SOCKET and option == socket.SO_KEEPALIVE:
            self.keepalive = bool(value)
        if level == socket.SOL_SOCKET and option == socket.SO_LINGER:
            self.reset_on_close = value == struct.pack("ii", 1, 0)

    def recv(self, size: int) -> bytes:
        """Up to `size` octets; fewer if the dice say so."""
        kernel = self.kernel
        self._check("recv")
        self.calls += 1
        if self.unread:
            if not kernel.bound_to_finish and kernel.chance(kernel.dice.blocked):
                self._would_block("recv")
            count = min(size, len(self.unread))
            if kernel.chance(kernel.dice.short):
                count = kernel.rng.randint(1, count)
            data = bytes(self.unread[:count])
            del self.unread[:count]
            self.taken += count
            kernel.activity += 1
            if kernel.trace is not None:
                kernel.say(str(self), f"recv takes {count} octets, {len(self.unread)} stay")
            self.peer.push()
            return data
        self._raise_pending()
        if self.fin or self.dead:
            kernel.activity += not self.end_seen  # whoever reads it again and again spins
            self.end_seen = True
            kernel.say(str(self), "recv finds the end")
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing has arrived")

    def send(self, data: bytes | bytearray, _flags: int = 0) -> int:
        """How many octets of `data` fit; fewer if the dice say so."""
        kernel = self.kernel
        self._check("send")
        if not data:
            raise Failure(f"{self}: nothing is given to send")
        if self.shut:
            raise Failure(f"{self}: send after the sending side was shut down")
        self._raise_pending()
        if self.dead:
            self._fail("EPIPE")
        room = self.send_size - len(self.undelivered)
        if room <= 0 or kernel.chance(kernel.dice.blocked):
            self._would_block("send")
        count = min(room, len(data))
        if kernel.chance(kernel.dice.short):
            count = kernel.rng.randint(1, count)
        if self.halves:
            count = (count + 1) // 2
        self.undelivered += data[:count]
        self.given += count
        self.given_at = kernel.now
        kernel.activity += 1
        if kernel.trace is not None:
            kernel.say(str(self), f"send takes {count} octets of {len(data)}")
        self.peer.pull()
        return count

    def shutdown(self, how: int) -> None:
        """Ends our side once all is delivered."""
        self._check("shutdown")
        if how != socket.SHUT_WR or self.shut:
            raise Failure(f"{self}: a second shutdown, or of the wrong side")
        if self.dead:
            self._fail("ENOTCONN")
        self.kernel.activity += 1
        self.kernel.say(str(self), "shutdown: FIN follows")
        self.shut = True
        self.peer.pull()

    def close(self) -> None:
        """Gives the descriptor back. The kernel goes on delivering, unless a RST is due."""
        if self.closed:
            raise Failure(f"{self}: closed twice")
        self.kernel.close(self.fd)
        reset = self.reset_on_close or bool(self.unread)
        self.kernel.say(str(self), f"close{': RST follows' if reset and not self.dead else ''}")
        self.closed, self.fd, self.closed_at = True, -1, self.kernel.now
        self.was_alive = not self.dead
        if self.dead:
            return
        self.shut = True
        if reset:
            self.reset_sent = True
            self.peer.reset_arrives()
        else:
            self.peer.pull()

    # What the kernel and the network do

    def ready(self) -> int:
        """As epoll: an error is readiness for everything."""
        if self.dead:
            return READ | WRITE
        read = READ if self.unread or self.fin else 0
        # Linux reports room when a third of the buffer is free.
        room = 3 * (self.send_size - len(self.undelivered)) >= self.send_size
        return read | (WRITE if room else 0)

    def acknowledge(self, octets: int) -> None:
        """The peer's kernel has so many more; 0 is the FIN."""
        self.delivered += octets
        self.fin_delivered = self.fin_delivered or not octets
        self.acknowledged_at = self.kernel.now

    @property
    def at_an_end(self) -> bool:
        """Whether the server is rid of it: closed, or dead before it was accepted."""
        return self.closed or (self.dead and self.fd < 0)

    def hit(self, name: str) -> None:
        """The connection is gone, and the next call fails with errno `name`."""
        if self.dead or self.closed:
            self.dead = True
            return
        self.kernel.say(str(self), f"the connection is lost: {name}")
        self.dead, self.pending_error = True, name
        self.undelivered.clear()
        if self.kernel.dice.bsd:
            self.unread.clear()

    def _check(self, call: str, any_mode: bool = False) -> None:
        if self.closed:
            raise Failure(f"{self.peer.name}: {call} of a closed socket (EBADF)")
        if self._blocking and not any_mode:
            raise Failure(f"{self}: {call} of a blocking socket may sleep for ever")
        self.kernel.system_call()

    def _would_block(self, call: str) -> None:
        self.kernel.activity += 1
        if self.kernel.trace is not None:
            self.kernel.say(str(self), f"{call} would block")
        raise BlockingIOError(errno.EAGAIN, "not now")

    def _raise_pending(self) -> None:
        if self.pending_error:
            name, self.pending_error = self.pending_error, ""
            self._fail(name)

    def _fail(self, name: str) -> NoReturn:
        self.told, self.error_told = True, error(name)
        raise self.error_told


def unacknowledged(sock: Socket) -> int | None:
    """In place of `kv.net.tcp.unacknowledged`: what Linux says, also after a reset."""
    if sock.closed:
        raise Failure(f"{sock.peer.name}: the kernel is asked about a closed socket (EBADF)")
    if not sock.kernel.dice.tells:
        return None
    return sock.given - sock.delivered + (sock.shut and not sock.fin_delivered)


def failure(sock: Socket) -> OSError | None:
    """In place of `kv.net.tcp.failure`: what SO_ERROR says, once."""
    if not sock.dead or sock.told:
        return None
    name, sock.pending_error = sock.pending_error or "ECONNRESET", ""
    sock.told, sock.error_told = True, error(name)
    return sock.error_told


def readable(sock: "Listening") -> bool:
    """In place of `kv.net.tcp.readable`."""
    return bool(sock.queue)


class Listening:
    """A listening socket, its queue, and all that can go wrong in accept(2)."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.fd = kernel.open(self)
        self.queue: deque[Socket] = deque()
        self.refused_at = 0.0  # when accept last failed for want of a resource
        self._blocking = True
        self._closed = False

    def fileno(self) -> int:
        return self.fd

    def getsockname(self) -> tuple[str, int]:
        return ADDRESS

    def setblocking(self, flag: bool) -> None:
        self._blocking = flag

    @property
    def resting(self) -> bool:
        """Whether it is open, and nobody watches it."""
        return not self._closed and self.fd not in self.kernel.selector.registered

    def ready(self) -> int:
        """Readable while somebody waits."""
        return READ if self.queue else 0

    def accept(self) -> tuple[Socket, tuple[str, int]]:
        """The connection that has waited longest."""
        kernel = self.kernel
        if self._closed or self._blocking:
            raise Failure("accept of a closed or a blocking listener")
        kernel.system_call()
        out_of_numbers = len(kernel.files) >= kernel.descriptor_limit
        if not self.queue and not out_of_numbers:  # Linux looks for a free descriptor first
            raise BlockingIOError(errno.EAGAIN, "nobody waits")
        if not kernel.bound_to_finish and kernel.chance(kernel.dice.blocked):
            kernel.activity += 1
            raise BlockingIOError(errno.EAGAIN, "not now")
        if out_of_numbers or kernel.now < kernel.exhausted_until:
            self.refused_at = kernel.now
            name = "EMFILE" if out_of_numbers else kernel.exhausted_by
            kernel.say("listener", f"accept fails: {name}")
            raise error(name)
        sock = self.queue.popleft()
        kernel.activity += 1
        if kernel.chance(0.5 if sock.dead else kernel.dice.dead):
            name = kernel.rng.choice(DEAD)
            kernel.say("listener", f"accept fails: {name}, {sock.peer.name} is dead")
            sock.peer.reset_arrives("its connection died before it was accepted")
            raise error(name)
        sock.fd = kernel.open(sock)
        kernel.say(str(sock), "accepted")
        return sock, (f"client-{sock.peer.number}", 4242)

    def close(self) -> None:
        """Resets whoever still waits."""
        self.kernel.close(self.fd)
        self._closed, self.fd = True, -1
        unknown = self.refused_at == self.kernel.now  # `accept` could not count them: one, or more
        for number, sock in enumerate(self.queue):
            sock.was_alive = not sock.dead and not (unknown and number)
            sock.peer.reset_arrives("the server stopped before it accepted")
        self.queue.clear()
