"""The same server on `kv.net`, which has all that the eight steps have learned.
The program only says how a line is answered, and for how long a client may say nothing."""

import itertools
import signal
import sys

from kv.net.listener import listen
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.serving import LineServer, Peer

PATIENCE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0

numbers = itertools.count(1)
reactor = Reactor()


class Client(Peer):
    def connected(self):
        self.deadline = reactor.call_later(PATIENCE, self.stream.close)

    def line_received(self, line):
        self.stream.write(b"%d %s\n" % (next(numbers), line.upper()))
        self.deadline.postpone(PATIENCE)

    def left(self, error):
        self.deadline.cancel()


server = LineServer(reactor, listen("127.0.0.1", int(sys.argv[1])), Client, Limits(line_size=1024))
print("listening on port", server.port, flush=True)
reactor.on_signal(signal.SIGTERM, lambda: server.finish(reactor.stop))
reactor.run()
