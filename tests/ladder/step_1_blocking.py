"""A program that waits for a line, answers it and waits for the next is short, and it is right.
But it waits for one client at a time, and all others wait until that client has left."""

import itertools
import socket
import sys

numbers = itertools.count(1)

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening on port", listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    with client, client.makefile("rb") as lines:
        for line in lines:
            client.sendall(b"%d %s" % (next(numbers), line.upper()))
