"""The ladder's last server with coroutines: `python -m tests.examples.awaiting 4242`.

With a third argument, `trace`, it shows what the loop does, and what a coroutine stands on.
"""

import contextlib
import itertools
import signal
import sys
import traceback

from kv.net.listener import listen
from kv.net.owner import Limits
from kv.net.reactor import Reactor
from kv.net.serving import LineServer
from kv.watch.trace import Trace
from tests.examples.coroutines import Lines

PATIENCE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
TRACE = sys.argv[3:] == ["trace"]


class Client(Lines):
    async def serve(self):
        deadline = reactor.call_later(PATIENCE, self.stream.close)
        while (line := await self.line()) is not None:
            if TRACE:
                show_stack()
            self.stream.write(b"%d %s\n" % (next(numbers), line.upper()))
            deadline.postpone(PATIENCE)
        deadline.cancel()
        self.stream.close()


def show_stack():
    """Who has called whom, the loop first."""
    frames = traceback.extract_stack()[:-1]
    names = [frame.name for frame in frames if "kv/watch" not in frame.filename]
    print(*names[names.index("turn") :], sep=" > ", file=sys.stderr, flush=True)


numbers = itertools.count(1)
reactor = Reactor()
server = LineServer(reactor, listen("127.0.0.1", int(sys.argv[1])), Client, Limits(line_size=1024))
print("listening on port", server.port, flush=True)
reactor.on_signal(signal.SIGTERM, lambda: server.finish(reactor.stop))
with Trace(lines=True, file=None) if TRACE else contextlib.nullcontext():
    reactor.run()
