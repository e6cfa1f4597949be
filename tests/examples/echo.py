"""An echo server on `kv.net`: every line comes back. `python -m tests.examples.echo 4243`."""

import itertools
import signal
import sys

from kv.net.listener import Listener, listen
from kv.net.owner import Limits, Owner
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.turns import Turns


class Echo(Owner):  # which does nothing about what is not said here
    def __init__(self, sock, _address):
        self.stream = Stream(reactor, sock, self, Limits(line_size=4096), turns)

    def lines_received(self, lines, budget):
        some = list(itertools.islice(lines, budget))
        self.stream.write(b"\n".join([*some, b""]))
        return len(some)

    def line_too_long(self):
        self.stream.close()

    def end_received(self):
        self.stream.close()


reactor = Reactor()
turns = Turns(reactor)
(listening,) = listen("127.0.0.1", int(sys.argv[1]))
listener = Listener(reactor, listening, Echo)
reactor.on_signal(signal.SIGTERM, reactor.stop)
print("listening on port", listener.address[1], flush=True)
reactor.run()
