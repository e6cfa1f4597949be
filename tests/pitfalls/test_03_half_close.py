"""The end of their sending is not the end of ours

When `recv` returns b"", the peer has said with a FIN that it will send no more; the other direction
is as open as before. Most peers send FIN by closing the whole socket, so "b'' means gone" looks
true, and most code closes at once. But a script that pipes its questions into `nc -N` ends its
side right behind the last of them and then reads. Whatever it has not been sent yet by that time,
because it reads slowly or because its questions are many, it never gets.
"""

from socket import SHUT_WR

from house import house

from kv.net.stream import Stream

from .pitfall import Failure, Pitfall


def read(self: Stream) -> None:
    data = self._sock.recv(self._limits.read_size)
    if not data:
        self._close_socket(None)  # in the belief that nobody is there any more
        return
    self._waiting = bytes(self._incoming + data)
    self._incoming.clear()
    self._hand_over()


class TestHalfClose(Pitfall):
    """A client asks 300 times for a value of 265 characters, ends its side, and only then reads."""

    usually = "a peer that has said all it had to say loses the replies still owed to it"
    handled = Stream._read
    naive = {"kv.net.stream.Stream._read": read}

    def scenario(self) -> str:
        with house() as h:
            guest = h.owed(300)
            guest.socket.shutdown(SHUT_WR)
            h.settle()
            guest.read_on(303)
            arrived = guest.values
            if arrived < 300:
                raise Failure(f"{arrived} of 300 replies arrive")
            return "all 300 replies arrive"
