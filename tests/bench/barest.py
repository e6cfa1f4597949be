"""The barest loop: no server in Python, for the same replies, can do much less for each batch.

One `epoll`, and for each batch one `recv`, one look-up for each line, and one `send` that hopes. It
has no interest to change, no limit, no deadline and nobody to be fair to. So the rows of hot GETs
say how much of what is possible at all the real server reaches, and how much is the kernel's.
"""

import select
import socket

from .forty import Forty


class Barest(Forty):
    """The forty lines, and a reply that is ready for each GET since the last PUT."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: dict[bytes, bytes] = {}

    def receive(self, data: bytes) -> bytes:
        lines = data.split(b"\n")
        try:
            if not self.rest and not lines.pop():
                return b"\n".join([*map(self.ready.__getitem__, lines), b""])
        except KeyError:
            pass
        return super().receive(data)

    def answer(self, line: bytes) -> bytes:
        reply = super().answer(line)
        if self.opened.get(line, b"").startswith(b"GET "):
            self.ready[line] = reply[:-1]
        else:
            self.ready.clear()
        return reply


def serve(host: str, backlog: int) -> None:
    """Serves on a free port, which it prints."""
    listener = socket.create_server((host, 0), backlog=backlog)
    print(listener.getsockname()[1], flush=True)
    peers: dict[int, tuple[socket.socket, Barest]] = {}
    with select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN)
        while True:
            for fd, _ in epoll.poll():
                if fd not in peers:
                    sock, _ = listener.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    peers[sock.fileno()] = sock, Barest()
                    epoll.register(sock, select.EPOLLIN)
                    continue
                sock, peer = peers[fd]
                data = sock.recv(65536)
                if data:
                    sock.send(peer.receive(data))  # hope it won't block
                if not data or peer.closed:
                    del peers[fd]
                    sock.close()
