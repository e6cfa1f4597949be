"""The wake-up pipe is full, and a signal is lost

A signal handler that writes an octet into a pipe wakes a loop that sleeps (29). The octet is often
the number of the signal, so that the loop reads which one came. But a pipe can be full. Nobody can
wait for room in a signal handler, so the octet is dropped, and with it the signal. On Linux a
socket pair holds 278 single octets. A turn that lasts long enough, and a tool that asks for
statistics often enough, and SIGTERM never comes.

So the octet means nothing but "wake up". What came is in a flag that the handler sets. A flag
cannot be full, and when the pipe is full the loop will wake anyway.

What you see: a server that ignores SIGTERM once, on a busy day. What a bystander sees: nothing,
and that is the fault: its connection should have been finished.
"""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial

from kv.net.reactor import Reactor

from .pitfall import Failure, Pitfall


def on_signal(self: Reactor, number: int, callback: Callable[[], object]) -> None:
    self.wakeable()
    before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
    handler = signal.signal(number, lambda *_: None)
    self._signals[number] = callback
    self._restore.insert(0, lambda: signal.signal(number, handler))
    self._restore.insert(0, lambda: signal.set_wakeup_fd(before))


def rung(self: Reactor, receiver: object) -> None:
    for number in receiver.recv(65536):
        self._signals[number]()


class TestSignalLost(Pitfall):
    """In one turn SIGUSR1 comes a thousand times, then SIGTERM."""

    usually = "SIGTERM is lost"
    unseen = "what a signal's handler does is no step of the loop"
    handled = Reactor.on_signal
    naive = {
        "kv.net.reactor.Reactor.on_signal": on_signal,
        "kv.net.reactor.Reactor._rung": rung,
    }

    def scenario(self) -> str:
        def busy() -> None:
            for _ in range(1000):
                os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
            stop_after(3)

        def stop_after(turns: int) -> None:
            reactor.call_soon(partial(stop_after, turns - 1) if turns else reactor.stop)

        came: list[int] = []
        with closing(Reactor()) as reactor:
            for number in (signal.SIGUSR1, signal.SIGTERM):
                reactor.on_signal(number, lambda number=number: came.append(number))
            reactor.call_soon(busy)
            reactor.run()
        asked = came.count(signal.SIGUSR1)
        if signal.SIGTERM not in came:
            raise Failure(f"SIGUSR1 is heard {asked} times, SIGTERM never")
        return f"SIGUSR1 is heard {asked} time, and so is SIGTERM"
