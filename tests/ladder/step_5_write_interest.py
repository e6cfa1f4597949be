"""What the kernel does not take now is kept and sent later, and only then write interest is on.
An error on one client's socket ends that client, and not the server."""

import itertools
import selectors
import socket
import sys
from selectors import EVENT_READ as READ
from selectors import EVENT_WRITE as WRITE

numbers = itertools.count(1)
selector = selectors.DefaultSelector()


class Client:
    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.incoming = b""
        self.outgoing = bytearray()
        selector.register(sock, READ, self.ready)

    def ready(self, events):
        try:
            if events & READ:
                self.read()
            elif events & WRITE:
                self.flush()
        except BlockingIOError:  # ready is a hint, not a promise
            pass
        except OSError:  # a reset, or the client is gone
            self.close()

    def read(self):
        data = self.sock.recv(65536)
        if not data:
            self.close()
            return
        *lines, self.incoming = (self.incoming + data).split(b"\n")
        for line in lines:
            self.outgoing += b"%d %s\n" % (next(numbers), line.upper())
        self.flush()

    def flush(self):
        try:
            sent = self.sock.send(self.outgoing)
        except BlockingIOError:
            sent = 0
        del self.outgoing[:sent]  # the rest waits for room
        selector.modify(self.sock, READ | WRITE if self.outgoing else READ, self.ready)

    def close(self):
        selector.unregister(self.sock)
        self.sock.close()


def accept(events):
    try:
        sock, _ = listener.accept()
    except OSError:  # the client is gone again
        return
    Client(sock)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
print("listening on port", listener.getsockname()[1], flush=True)
selector.register(listener, READ, accept)
while True:
    for key, events in selector.select():
        key.data(events)
