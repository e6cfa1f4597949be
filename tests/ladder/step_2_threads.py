"""Each client gets a thread of its own, and each thread may wait for its client.
This is the simplest program that works, but each client costs a thread, and nothing has a limit."""

import itertools
import socket
import sys
import threading

numbers = itertools.count(1)


def serve(client):
    with client, client.makefile("rb") as lines:
        for line in lines:
            client.sendall(b"%d %s" % (next(numbers), line.upper()))


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening on port", listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=[client]).start()
