"""Slow work in a pool of threads: `python -m tests.examples.pool 4244`.

A line is a number, and its reply takes that many rounds of arithmetic. The loop goes on meanwhile:
other clients are served, and this one's next line waits, so that its replies stay in order.
"""

import hashlib
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from kv.net.listener import listen
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.serving import LineServer, Peer

MOST = 10_000_000  # rounds; more would keep a thread of the pool for too long


def slow(line):
    """Runs in a thread of the pool. It must touch nothing that belongs to the loop."""
    return hashlib.pbkdf2_hmac("sha256", b"kv", b"salt", min(int(line), MOST)).hex().encode()


class Client(Peer):
    gone = False

    def line_received(self, line):
        pool.submit(slow, line).add_done_callback(self.computed)
        self.stream.wait()  # the next line is handed over when this one has its reply

    def computed(self, future):
        """Still in that thread: `write` here would be a race, and `call_soon` wakes nobody."""
        reactor.call_soon_threadsafe(lambda: self.answer(future))

    def answer(self, future):
        """In the loop again. The client may have left in the meantime."""
        if self.gone:
            return
        if error := future.exception():  # `result` would raise it, and it would end the loop
            self.stream.abort(error)
        else:
            self.stream.write(future.result() + b"\n")
            self.stream.go_on()

    def left(self, error):
        self.gone = True


reactor = Reactor()
reactor.wakeable()  # or nothing can wake it from another thread
server = LineServer(reactor, listen("127.0.0.1", int(sys.argv[1])), Client, Limits(line_size=20))
reactor.on_signal(signal.SIGTERM, lambda: server.finish(reactor.stop))
print("listening on port", server.port, flush=True)
with ThreadPoolExecutor(4) as pool:
    reactor.run()
