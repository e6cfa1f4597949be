"""The ladder's last server with coroutines: `python -m tests.examples.awaiting 4242`.

With a third argument, `trace`, it shows what the loop does, and what a coroutine stands on.
"""

import contextlib
import itertools
import signal
import sys
import traceback

from kv.net.listener import Listener, listen
from kv.net.reactor import Reactor
from kv.net.turns import Turns
from kv.watch.trace import Trace
from tests.examples.coroutines import Lines

PATIENCE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
TRACE = sys.argv[3:] == ["trace"]


async def serve(client):
    clients.add(client)
    deadline = reactor.call_later(PATIENCE, client.stream.close)
    while (line := await client.line()) is not None:
        if TRACE:
            show_stack()
        client.stream.write(b"%d %s\n" % (next(numbers), line.upper()))
        deadline.postpone(PATIENCE)
    deadline.cancel()
    client.stream.close()
    clients.discard(client)


def show_stack():
    """Who has called whom, the loop first."""
    frames = traceback.extract_stack()[:-1]
    names = [frame.name for frame in frames if "kv/watch" not in frame.filename]
    print(*names[names.index("turn") :], sep=" > ", file=sys.stderr, flush=True)


def finish():
    for client in clients:
        client.stream.finish()


numbers = itertools.count(1)
reactor = Reactor()
turns = Turns(reactor)
clients = set()
(sock,) = listen("127.0.0.1", int(sys.argv[1]))
listener = Listener(reactor, sock, lambda sock, _: Lines(reactor, sock, turns, serve))
print("listening on port", listener.address[1], flush=True)
reactor.on_signal(signal.SIGTERM, lambda: listener.finish(finish))
with Trace(lines=True, file=None) if TRACE else contextlib.nullcontext():
    while clients or listener.listening:
        reactor.turn()
