"""The network, and the far end of a connection.

Data and FIN arrive in order, in pieces and at times of the network's choice. A peer that vanishes
sends nothing: only keepalive, if the server asked for it, finds out. What a peer does is up to a
script (`clients.py`); how it gets here is up to this file.
"""

from .kernel import Kernel
from .sockets import Socket


class Peer:
    """The far end of one connection, and the network in between."""

    def __init__(self, kernel: Kernel, number: int) -> None:
        self.kernel = kernel
        self.number = number
        self.name = f"client {number}"
        rng = kernel.rng
        self.latency = rng.choice((0.0, 0.001, 0.05))  # seconds, the longest for one piece
        self.piece = rng.choice((50, 600, 4096) if self.latency > 0.01 else (30, 100, 600, 4096))
        self.window = rng.choice((100, 2000))  # octets that arrive though nobody reads
        self.reading = True
        self.inbox = bytearray()  # arrived, not read
        self.outbox = bytearray()  # written, not arrived
        self.ended = False  # the server's FIN was read
        self.was_reset = False  # by the server
        self.gone = False  # does nothing any more: closed, reset, or vanished
        self.disturbed = ""  # why it need not get all its replies
        self.socket = Socket(kernel, self)
        self._fin = False
        self._vanished = False
        self._pushing = False
        self._pulling = False

    # What a script calls

    def write(self, octets: bytes) -> None:
        if not (self._fin or self.gone or self.was_reset):
            self.outbox += octets
            self.push()

    def read_on(self) -> None:
        """Reads again whatever comes."""
        self.reading = True
        data, self.inbox = bytes(self.inbox), bytearray()
        if data:
            self.heard(data)
        self._end()
        self.pull()

    def half_close(self) -> None:
        self._fin = True
        self.push()

    def close(self) -> None:
        """Leaves, with RST if there is something unread: whoever leaves too soon loses it."""
        if self.inbox:
            self.reset()
        elif not self.gone:
            self.gone = self._fin = True
            self.disturbed = self.disturbed or ("" if self.ended else "it left early")
            self.push()

    def reset(self) -> None:
        """Leaves with RST."""
        if not self.gone:
            self.kernel.say(self.name, "resets the connection")
            self.gone = True
            self.disturbed = self.disturbed or "it reset the connection"
            self.outbox.clear()
            delay = self.kernel.rng.random() * self.latency
            self.kernel.at(delay, lambda: self.socket.hit("ECONNRESET"))

    def vanish(self) -> None:
        """Is gone without a packet. Two minutes later the kernel knows, if it was asked to."""
        if not self.gone:
            self.kernel.say(self.name, "vanishes")
            self.gone = self._vanished = True
            self.disturbed = self.disturbed or "it vanished"
            self.kernel.at(105, self._missed)

    def heard(self, data: bytes) -> None:
        """Octets have been read."""

    def changed(self) -> None:
        """Something happened that a script may wait for."""

    @property
    def settled(self) -> bool:
        """Whether both ends are rid of each other, and know it."""
        return self.socket.at_an_end and (self.ended or self.was_reset or self.gone)

    # What the network does

    def push(self) -> None:
        """Carries a piece to the server, unless one is on its way."""
        if not self._pushing and (self.outbox or self._fin) and not self.socket.fin:
            if len(self.socket.unread) < self.socket.receive_size or self.socket.closed:
                self._pushing = True
                self.kernel.at(self.kernel.rng.random() * self.latency, self._push)

    def _push(self) -> None:
        self._pushing = False
        sock = self.socket
        if sock.dead or self._vanished or self.was_reset:
            return
        if sock.closed:
            if self.outbox:  # data for a socket that is gone
                self.reset_arrives()
            return
        if self.outbox:
            count = min(self.piece, len(self.outbox), sock.receive_size - len(sock.unread))
            if count > 1:
                count = self.kernel.rng.randint(1 + count // 2, count)
            sock.unread += self.outbox[:count]
            del self.outbox[:count]
            self.push()
        elif self._fin:
            self.kernel.say(str(sock), "FIN arrives")
            sock.fin = True

    def pull(self) -> None:
        """Carries a piece to the client, unless one is on its way."""
        sock = self.socket
        if not self._pulling and (sock.undelivered or (sock.shut and not sock.fin_delivered)):
            self._pulling = True
            self.kernel.at(self.kernel.rng.random() * self.latency, self._pull)

    def _pull(self) -> None:
        self._pulling = False
        sock = self.socket
        if sock.dead or self._vanished or self.was_reset:
            return
        if sock.undelivered:
            if self.gone:  # data for a client that is gone
                sock.hit("ECONNRESET")
                return
            room = len(sock.undelivered) if self.reading else self.window - len(self.inbox)
            count = min(self.piece, len(sock.undelivered), room)
            if count <= 0:
                return  # until read_on
            data = bytes(sock.undelivered[:count])
            del sock.undelivered[:count]
            sock.acknowledge(count)
            if self.reading:
                self.heard(data)
            else:
                self.inbox += data
            self.pull()
        elif sock.shut:
            sock.acknowledge(0)
            self._end()

    def _end(self) -> None:
        """The script has read up to the server's FIN."""
        if self.socket.fin_delivered and not self.inbox and not self.ended:
            self.ended = True
            self.changed()

    def reset_arrives(self, why: str = "") -> None:
        """The server's kernel sends RST: what is under way is lost, in both directions.

        `why` is given when that is not the server's doing.
        """
        self.disturbed = self.disturbed or why
        self.socket.dead = True
        self.socket.undelivered.clear()
        self.outbox.clear()
        self.inbox.clear()
        if not self.was_reset:
            self.was_reset = True
            self.kernel.at(self.kernel.rng.random() * self.latency, self.changed)

    def _missed(self) -> None:
        if self.socket.keepalive:
            self.socket.hit("ETIMEDOUT")
        elif self.socket.fd < 0 and not self.socket.at_an_end:  # still in the listener's queue
            self.kernel.at(105, self._missed)
