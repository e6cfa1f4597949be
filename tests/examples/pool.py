"""Slow work in a pool of threads: `python -m tests.examples.pool 4244`.

A line is a number, and its reply takes that many rounds of arithmetic. The loop goes on meanwhile:
other clients are served, and this one's next line waits, so that its replies stay in order.
"""

import hashlib
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from kv.net.listener import Listener, listen
from kv.net.owner import Limits, Owner
from kv.net.reactor import Reactor
from kv.net.stream import Stream
from kv.net.turns import Turns


def slow(line):
    """Runs in a thread of the pool. It must touch nothing that belongs to the loop."""
    rounds = max(1, int(line)) if line.isdigit() else 1
    return hashlib.pbkdf2_hmac("sha256", b"kv", b"salt", rounds).hex().encode()


class Client(Owner):
    def __init__(self, sock, _address):
        self.stream = Stream(reactor, sock, self, Limits(line_size=20), turns)
        self.gone = False

    def lines_received(self, lines, budget):
        pool.submit(slow, next(lines)).add_done_callback(self.computed)
        self.stream.wait()  # the next line is handed over when this one has its reply
        return 1

    def computed(self, future):
        """Still in that thread: `write` here would be a race, and `call_soon` wakes nobody."""
        reactor.call_soon_threadsafe(lambda: self.answer(future.result()))

    def answer(self, reply):
        """In the loop again. The client may have left in the meantime."""
        if not self.gone:
            self.stream.write(reply + b"\n")
            self.stream.go_on()

    def line_too_long(self):
        self.stream.close()

    def end_received(self):
        self.stream.close()

    def closed(self, error, ours):
        self.gone = True


reactor = Reactor()
reactor.wakeable()  # or nothing can wake it from another thread
turns = Turns(reactor)
(listening,) = listen("127.0.0.1", int(sys.argv[1]))
listener = Listener(reactor, listening, Client)
reactor.on_signal(signal.SIGTERM, reactor.stop)
print("listening on port", listener.address[1], flush=True)
with ThreadPoolExecutor(4) as pool:
    reactor.run()
