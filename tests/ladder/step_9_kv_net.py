"""The same server on `kv.net`, which has all that the eight steps have learned.
The owner of a stream only says how a line is answered, and when the connection ends."""

import itertools
import signal
import sys

from kv.net.listener import Listener, listen
from kv.net.owner import Limits, Owner
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.turns import Turns

PATIENCE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0

numbers = itertools.count(1)
reactor = Reactor()
turns = Turns(reactor)
clients = set()


class Client(Owner):
    def __init__(self, sock, address):
        self.stream = Stream(reactor, sock, self, Limits(line_size=1024), turns)
        self.deadline = reactor.call_later(PATIENCE, self.stream.close)
        clients.add(self)

    def lines_received(self, lines, budget):
        some = [line.upper() for line in itertools.islice(lines, budget)]
        self.stream.write(b"".join(b"%d %s\n" % (next(numbers), line) for line in some))
        self.deadline.postpone(PATIENCE)
        return len(some)

    def end_received(self):
        self.stream.close()

    line_too_long = end_received

    def closed(self, error, ours):
        self.deadline.cancel()
        clients.discard(self)


def finish():
    for client in clients:
        client.stream.finish()


listener = Listener(reactor, *listen("127.0.0.1", int(sys.argv[1])), Client)
print("listening on port", listener.address[1], flush=True)
reactor.on_signal(signal.SIGTERM, lambda: listener.finish(finish))
while clients or listener.listening:
    reactor.turn()
