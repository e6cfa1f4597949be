"""A chat on `kv.net`: the first line is a name, every other goes to all who are there."""

import sys

from kv.net.listener import listen
from kv.net.reactor import Reactor
from kv.net.serving import LineServer, Peer


class Guest(Peer):
    def line_received(self, line):
        if self in names:
            tell(b"%s: %s\n" % (names[self], line))
        else:
            names[self] = line
            tell(b"* %s is here\n" % line)
        return len(names)  # the work is to write it to each

    def end_received(self):
        self.left(None)
        self.stream.close()

    line_too_long = end_received

    def left(self, error):
        if self in names:
            tell(b"* %s has left\n" % names.pop(self))


def tell(line):
    for guest in list(names):
        guest.stream.write(line)
        if guest.stream.unsent > 65536:  # nobody waits for one who does not read
            guest.stream.abort(None)


names = {}
reactor = Reactor()
server = LineServer(reactor, listen("127.0.0.1", int(sys.argv[1])), Guest)
print("listening on port", server.port, flush=True)
reactor.run()
