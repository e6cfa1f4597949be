"""One thread asks the kernel which clients have sent something: most tutorials end with this.
But what `recv` returns is not a line, and `sendall` can no longer wait."""

import itertools
import select
import socket
import sys

numbers = itertools.count(1)

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening on port", listener.getsockname()[1], flush=True)
clients = []
while True:
    readable, _, _ = select.select([listener, *clients], [], [])
    for sock in readable:
        if sock is listener:
            client, _ = listener.accept()
            client.setblocking(False)
            clients.append(client)
        elif data := sock.recv(65536):
            sock.sendall(b"%d %s\n" % (next(numbers), data.strip().upper()))
        else:
            clients.remove(sock)
            sock.close()
