"""All that a stranger decides needs a limit: lines, replies that wait, work in a turn, clients.
Within these limits, no client harms another."""

import itertools
import resource
import selectors
import socket
import sys
from selectors import EVENT_READ as READ
from selectors import EVENT_WRITE as WRITE

LINE = 1024  # octets of the longest line, LF included
UNSENT = 256 * 1024  # octets of replies; above this, a client is not served
QUANTUM = 64  # lines of one client in a turn
#: Clients at a time. Eight descriptors are for the rest of the program.
CLIENTS = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 8, 10_000)

numbers = itertools.count(1)
selector = selectors.DefaultSelector()
clients = set()
waiting = set()  # clients with lines in their buffer: no selector reports these


class Client:
    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.incoming = b""
        self.outgoing = bytearray()
        self.interest = 0
        clients.add(self)
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
        if not data:
            self.close()
            return
        self.incoming += data
        self.serve()

    def serve(self):
        *lines, self.incoming = self.incoming.split(b"\n", QUANTUM)
        for line in lines:
            if len(line) >= LINE:
                self.close()
                return
            self.outgoing += b"%d %s\n" % (next(numbers), line.upper())
        if b"\n" not in self.incoming and len(self.incoming) >= LINE:
            self.close()
            return
        self.flush()

    def flush(self):
        try:
            sent = self.sock.send(self.outgoing)
        except BlockingIOError:
            sent = 0
        del self.outgoing[:sent]  # the rest waits for room
        held_up = len(self.outgoing) > UNSENT
        more = b"\n" in self.incoming
        if more and not held_up:
            waiting.add(self)
        self.want((0 if more or held_up else READ) | (WRITE if self.outgoing else 0))

    def want(self, interest):
        if interest != self.interest:
            if self.interest:
                selector.unregister(self.sock)
            if interest:  # no selector takes an empty interest
                selector.register(self.sock, interest, self.ready)
            self.interest = interest

    def close(self):
        self.want(0)
        self.sock.close()
        waiting.discard(self)
        clients.discard(self)
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


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
print("listening on port", listener.getsockname()[1], flush=True)
selector.register(listener, READ, accept)
while True:
    for key, events in selector.select(0 if waiting else None):
        key.data(events)
    for client in list(waiting):
        waiting.discard(client)
        client.ready(0)
