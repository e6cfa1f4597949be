"""A chat on `kv.net`: the first line is a name, every other goes to all who are there."""

import sys

from kv.net.listener import Listener, listen
from kv.net.owner import Limits, Owner
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.turns import Turns


class Guest(Owner):
    def __init__(self, sock, _address):
        self.stream = Stream(reactor, sock, self, Limits(), turns)

    def lines_received(self, lines, _budget):
        if self in names:
            tell(b"%s: %s\n" % (names[self], next(lines)))
        else:
            names[self] = next(lines)
            tell(b"* %s is here\n" % names[self])
        return len(names)  # the work is to write it to each

    def end_received(self):
        self.closed(None, False)
        self.stream.close()

    line_too_long = end_received

    def closed(self, error, ours):
        if self in names:
            tell(b"* %s has left\n" % names.pop(self))


def tell(line):
    for guest in list(names):
        guest.stream.write(line)
        if guest.stream.unsent > 65536:  # nobody waits for one who does not read
            guest.stream.abort(None)


reactor = Reactor()
turns = Turns(reactor)
names = {}
(listening,) = listen("127.0.0.1", int(sys.argv[1]))
listener = Listener(reactor, listening, Guest)
print("listening on port", listener.address[1], flush=True)
reactor.run()
