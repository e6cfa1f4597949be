"""The options of a TCP socket, and what the kernel can tell about its connection.

Some facts about TCP sockets. The kernel has a buffer for each direction. `recv` takes what has
arrived out of one. `send` puts octets into the other, as many as there is room for. TCP moves them
to the peer's kernel when that has room, which is when the peer reads. The octets of one `send` may
come out of several `recv`s, or together with others. Each side ends its own direction, by
`shutdown` or `close`. The other side sees FIN, as the end of what it can read. RST ends both
directions at once, and octets on their way are lost.

So `send` says what the kernel has accepted, not what was delivered (37). Our kernel keeps the
octets until the peer's kernel acknowledges them.
"""

import array
import fcntl
import os
import platform
import select
import socket
import struct
import termios
from contextlib import suppress

#: SO_SNDBUF and SO_RCVBUF, in octets (Linux doubles them for its own bookkeeping). By default, the
#: kernel may keep megabytes for each peer that does not read.
KERNEL_BUFFER = 64 * 1024

#: Seconds. Keepalive: after 45 s of silence, four probes 15 s apart. So a peer that vanished
#: without a packet is gone after 105 s. By default, the first probe comes after two hours (15).
#: macOS has another name for the first option.
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

#: For `send`: when the peer is gone, `send` fails with EPIPE, and there is no SIGPIPE. Python
#: ignores SIGPIPE, but a host program may have reset it, and then it ends the process. macOS has a
#: socket option for this, which Python does not name.
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
SO_NOSIGPIPE = 0x1022

#: struct linger {on, 0 seconds}: `close` then sends RST and drops what the kernel still holds.
NO_LINGER = struct.pack("ii", 1, 0)


def prepare(sock: socket.socket, stall_timeout: float) -> None:
    """Sets every option that a connection needs. `stall_timeout`: seconds. Raises `OSError`."""
    sock.setblocking(False)  # on Linux, the listener's setting is not inherited (16)
    # Nagle's algorithm holds a small reply back until the last one is acknowledged. The peer's
    # kernel delays that acknowledgement, to send it together with data: 40 ms each (10).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer may mark one octet as urgent. The kernel takes that octet out of the stream, and a line
    # lacks a character, or its end. This option leaves the octet where it was sent (39).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if MACOS:
        sock.setsockopt(socket.SOL_SOCKET, SO_NOSIGPIPE, 1)
    for option, value in KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # The kernel sends probes only while nothing else is on its way. This bound, in ms, is for
        # octets that the peer does not acknowledge, and for a peer that reads nothing (RFC 5482).
        # It must be a little longer than `stall_timeout`, which gives the clearer reason.
        patience = max(VANISHED, stall_timeout + 15)
        milliseconds = int(min(patience * 1000, 2**31 - 1))  # infinity is a time-out, too
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def unacknowledged(sock: socket.socket) -> int | None:
    """The octets that our kernel holds because the peer's kernel has not acknowledged them.

    A FIN on its way counts as one. None if the kernel cannot tell.
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
    """The connection's error, if there is one that no call has reported yet."""
    with suppress(OSError):
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return OSError(number, os.strerror(number))
    return None


def readable(sock: socket.socket) -> bool:
    """Whether something waits to be read or accepted. To ask takes no descriptor."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def reset_on_close(sock: socket.socket) -> None:
    """Makes `close` send RST. The kernel then drops what it still holds for the peer."""
    with suppress(OSError):  # macOS refuses all options of a socket that was reset
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)


def read_all(sock: socket.socket, most: int) -> None:
    """Throws away up to `most` octets of what has arrived.

    Closing a socket that has unread input sends RST instead of FIN (12).
    """
    with suppress(OSError):
        while most > 0 and (data := sock.recv(min(most, 64 * 1024))):
            most -= len(data)
