"""An echo server on `kv.net`: every line comes back. `python -m tests.examples.echo 4243`."""

import signal
import sys

from kv.net.listener import listen
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.serving import LineServer, Peer


class Echo(Peer):  # which closes politely when its peer does, or sends a line that is too long
    def line_received(self, line):
        self.stream.write(line + b"\n")


reactor = Reactor()
server = LineServer(reactor, listen("127.0.0.1", int(sys.argv[1])), Echo, Limits(line_size=4096))
reactor.on_signal(signal.SIGTERM, lambda: server.finish(reactor.stop))
print("listening on port", server.port, flush=True)
reactor.run()
