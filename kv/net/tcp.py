"""What is set on a TCP socket, and what can be asked of the kernel about it.

Some facts about TCP sockets. The kernel has a buffer for each direction. `recv` takes out of one
what has arrived; `send` puts into the other what there is room for, and TCP moves it over as the
peer's kernel makes room, which is when the peer reads. What one `send` put in may come out of
several `recv`s, or together with more. Each side ends its own direction, by `shutdown` or `close`:
the other sees FIN, as the end of what it can read. RST ends both at once, and what was on its way
is lost.

So `send` says what the kernel has accepted. What has been delivered is another matter (37): the
peer's kernel acknowledges it, and until then our kernel keeps it.
"""

import array
import fcntl
import os
import platform
import socket
import struct
import termios
from contextlib import suppress

#: SO_SNDBUF and SO_RCVBUF, in octets (Linux doubles them for its own bookkeeping). Left to itself
#: the kernel may keep megabytes for one connection, of peers that do not read.
KERNEL_BUFFER = 64 * 1024

#: Seconds. Keepalive: after 45 s of silence, four probes 15 s apart, so that a peer that vanished
#: without a packet is gone in 105 s; by default the first probe comes after two hours (15). macOS
#: has another name for the first.
VANISHED = 105.0
KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_KEEPIDLE", 45),
        ("TCP_KEEPALIVE", 45),
        ("TCP_KEEPINTVL", 15),
        ("TCP_KEEPCNT", 4),
    )
    if hasattr(socket, name)
}

LINUX, MACOS = platform.system() == "Linux", platform.system() == "Darwin"

#: struct linger {on, 0 seconds}: makes `close` send RST and drop what the kernel still holds.
NO_LINGER = struct.pack("ii", 1, 0)


def prepare(sock: socket.socket, stall_timeout: float) -> None:
    """Sets all that a connection needs; `stall_timeout` is in seconds. Raises `OSError`."""
    sock.setblocking(False)  # Linux does not pass this on from the listener (16)
    # Nagle's algorithm holds a small reply back until the last one is acknowledged, and the
    # peer delays that acknowledgement in the hope of a reply to put it on: 40 ms each (10).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # One octet of what a peer sends may be marked urgent. The kernel takes it out of the stream,
    # and a line lacks a character, or its end. This leaves the octet where it was sent (39).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Probes are only sent while nothing else is on its way. This is the same bound, in ms, for
        # what nobody acknowledges, and for a peer that reads nothing (RFC 5482). It must leave a
        # slow peer the time that `stall_timeout` leaves it, and a little, for that has the better
        # reason to give.
        patience = max(VANISHED, stall_timeout + 15)
        milliseconds = min(int(patience * 1000), 2**31 - 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def unacknowledged(sock: socket.socket) -> int | None:
    """The octets that our kernel holds because the peer's has not acknowledged them.

    A FIN that is on its way counts as one. None where the kernel does not tell.
    """
    with suppress(OSError):
        if LINUX:
            count = array.array("i", [0])
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)  # SIOCOUTQ has the same number
            return count[0]
        if MACOS:
            return sock.getsockopt(socket.SOL_SOCKET, 0x1024)  # SO_NWRITE, which Python lacks
    return None


def failure(sock: socket.socket) -> OSError | None:
    """What went wrong with the connection, if anything did, and nobody was told yet."""
    with suppress(OSError):
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return OSError(number, os.strerror(number))
    return None


def reset_on_close(sock: socket.socket) -> None:
    """Makes `close` send RST: whatever the kernel still holds for the peer is dropped."""
    with suppress(OSError):  # macOS refuses every option of a socket that was reset
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)


def read_all(sock: socket.socket, most: int) -> None:
    """Throws away up to `most` octets of what has arrived.

    Closing a socket that has unread input sends RST instead of FIN (12).
    """
    with suppress(OSError):
        while most > 0 and (data := sock.recv(min(most, 64 * 1024))):
            most -= len(data)
