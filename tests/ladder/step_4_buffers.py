"""TCP carries octets and knows no lines, so each client gets a buffer for its incomplete line.
And `selectors` replaces `select`, which refuses descriptors of 1024 and above."""

import itertools
import selectors
import socket
import sys
from selectors import EVENT_READ as READ

numbers = itertools.count(1)
selector = selectors.DefaultSelector()


class Client:
    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.incoming = b""
        selector.register(sock, READ, self.ready)

    def ready(self):
        data = self.sock.recv(65536)
        if not data:
            self.close()
            return
        *lines, self.incoming = (self.incoming + data).split(b"\n")
        for line in lines:
            self.sock.sendall(b"%d %s\n" % (next(numbers), line.upper()))

    def close(self):
        selector.unregister(self.sock)
        self.sock.close()


def accept():
    sock, _ = listener.accept()
    Client(sock)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening on port", listener.getsockname()[1], flush=True)
selector.register(listener, READ, accept)
while True:
    for key, _ in selector.select():
        key.data()
