"""A signal comes while the loop sleeps, while replies are owed, or twice

A signal handler runs between any two instructions, so the usual one only sets a flag for the loop to
find. Once it has returned, Python puts an interrupted system call back to sleep (PEP 475), and nobody
looks at the flag before something else becomes ready: at once on a busy server, never on an idle one.
Whoever looks then ends the loop, and the process with it, although commands have arrived that are
not answered yet. And as one that does not end has to be ended somehow, the second signal ends it
the hard way. But `kill` of a whole process group, or a service manager, reaches the server and the
`make` that started it, and `make` passes its SIGTERM on: the second one comes within a millisecond.
"""

import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from unittest import mock

from house import SERVER_KEY, Selector, house
from wire import KEY

from kv.process import serve
from kv.protocol import Wire
from kv.reactor import Reactor
from kv.server import Server, Settings

from .pitfall import Failure, Pitfall


def on_signal(self: Reactor, number: int, callback: Callable[[], object]) -> None:
    """What is usually written."""
    before = signal.signal(number, lambda *_: self.call_soon(callback))  # a note for the loop
    self._restore.append(lambda: signal.signal(number, before))


class TestWakeUp(Pitfall):
    """SIGUSR1 comes while the loop sleeps, with nothing else to wake it."""

    usually = "an idle server does not notice a signal before something else happens"
    handled = Reactor.on_signal
    naive = {"kv.reactor.Reactor.on_signal": on_signal}
    patience = 0.3

    def scenario(self) -> str:
        with closing(Reactor()) as reactor:
            reactor.on_signal(signal.SIGUSR1, reactor.stop)
            main = threading.get_ident()
            # The thread gets its turn when this one sleeps; any sooner, and the pitfall is the same.
            thread = threading.Thread(target=lambda: signal.pthread_kill(main, signal.SIGUSR1))
            thread.start()
            try:
                reactor.run()
            finally:
                thread.join()
            return f"the signal ends the sleep: noticed in turn {reactor.turns}"


def stop(self: Server, timeout: float) -> None:
    """What is usually written."""
    for listener in self._listeners:
        listener.close()
    for connection in list(self.connections):
        connection.stream.close()
    self.reactor.stop()
