"""A connection ends in steps, each with a name: send what is owed, send FIN, read until their FIN.
And every wait for a client has a deadline, because nothing else removes a silent one."""

import enum
import itertools
import resource
import selectors
import socket
import sys
import time
from selectors import EVENT_READ as READ
from selectors import EVENT_WRITE as WRITE

LINE = 1024  # octets of the longest line, LF included
UNSENT = 256 * 1024  # octets of replies; above this, a client is not served
QUANTUM = 64  # lines of one client in a turn
#: Clients at a time. Eight descriptors are for the rest of the program.
CLIENTS = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 8, 10_000)
#: Seconds for a client to say a line, to take some of its replies, or to end its side.
PATIENCE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0

numbers = itertools.count(1)
selector = selectors.DefaultSelector()
clients = {}  # client -> deadline, in the order of the deadlines
waiting = set()  # clients with lines in their buffer: no selector reports these


class State(enum.Enum):
    OPEN = "lines are answered"
    CLOSING = "what is owed is sent, what comes is thrown away"
    LINGERING = "FIN is sent, what comes is thrown away until theirs"
    CLOSED = "the socket is closed"


class Client:
    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.state = State.OPEN
        self.ended = False  # the client has sent FIN, and may still read
        self.incoming = b""
        self.outgoing = bytearray()
        self.interest = 0
        self.postpone()
        self.want(READ)

    def ready(self, events):
        try:
            if events & READ:
                self.read()
            elif events & WRITE:
                self.flush()
            else:  # its next turn
                self.serve()
        except BlockingIOError:  # ready is a hint, not a promise
            pass
        except OSError:  # a reset, or the client is gone
            self.close()

    def read(self):
        data = self.sock.recv(65536)
        self.ended = not data
        if self.state is State.OPEN:
            self.incoming += data
            self.serve()
        else:
            self.flush()

    def serve(self):
        *lines, self.incoming = self.incoming.split(b"\n", QUANTUM)
        for line in lines:
            if len(line) >= LINE:
                self.end()
                return
            self.outgoing += b"%d %s\n" % (next(numbers), line.upper())
            self.postpone()
        if b"\n" not in self.incoming and (self.ended or len(self.incoming) >= LINE):
            self.end()
            return
        self.flush()

    def end(self):
        self.state = State.CLOSING
        self.incoming = b""
        self.flush()

    def flush(self):
        try:
            sent = self.sock.send(self.outgoing) if self.outgoing else 0  # EPIPE after FIN
        except BlockingIOError:
            sent = 0
        if sent:
            self.postpone()
        del self.outgoing[:sent]  # the rest waits for room
        if self.state is State.CLOSING and not self.outgoing:
            self.sock.shutdown(socket.SHUT_WR)
            self.state = State.LINGERING
        if self.state is State.LINGERING and self.ended:
            self.close()
            return
        held_up = len(self.outgoing) > UNSENT and self.state is State.OPEN
        more = b"\n" in self.incoming
        if more and not held_up:
            waiting.add(self)
        read = 0 if more or held_up or self.ended else READ
        self.want(read | (WRITE if self.outgoing else 0))

    def postpone(self):
        clients.pop(self, None)
        clients[self] = time.monotonic() + PATIENCE

    def want(self, interest):
        if interest != self.interest:
            if self.interest:
                selector.unregister(self.sock)
            if interest:  # no selector takes an empty interest
                selector.register(self.sock, interest, self.ready)
            self.interest = interest

    def close(self):
        self.state = State.CLOSED
        self.want(0)
        self.sock.close()
        waiting.discard(self)
        del clients[self]
        if len(clients) == CLIENTS - 1:
            selector.register(listener, READ, accept)


def accept(events):
    try:
        sock, _ = listener.accept()
    except OSError:  # the client is gone again
        return
    Client(sock)
    if len(clients) == CLIENTS:
        selector.unregister(listener)  # the others wait in the kernel's queue


def sleep():
    if waiting:
        return 0
    first = next(iter(clients.values()), None)
    return None if first is None else max(0, first - time.monotonic())


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
print("listening on port", listener.getsockname()[1], flush=True)
selector.register(listener, READ, accept)
while True:
    for key, events in selector.select(sleep()):
        key.data(events)
    for client in list(waiting):
        waiting.discard(client)
        client.ready(0)
    for client, deadline in list(clients.items()):
        if deadline > time.monotonic():
            break
        client.close()
