"""Coroutines on `kv.net`'s reactor: what stands behind `await`.

`Future` and `Task` are all that `await` needs, and know nothing of sockets. `Lines` is one use.
"""

from kv.net.directions import Hold
from kv.net.owner import Limits, Owner
from kv.net.stream import Stream


class Future:
    """A result that is not there yet, and the callback of whoever waits for it."""

    done, result, callback = False, None, None

    def set(self, result):
        self.done, self.result = True, result
        if self.callback:
            self.callback()

    def __await__(self):
        if not self.done:
            yield self  # to the task: out of this coroutine, and of all that await it
        return self.result


class Task:
    """Runs a coroutine, each time as far as its next `await` of something that is not there."""

    def __init__(self, coroutine):
        self._coroutine = coroutine
        self.step()

    def step(self):
        try:
            future = self._coroutine.send(None)
        except StopIteration:
            return
        future.callback = self.step  # the rest of the coroutine, kept for later


class Lines(Owner):
    """A connection whose lines can be awaited. `serve` is the coroutine function that does."""

    def __init__(self, reactor, sock, turns, serve):
        self.stream = Stream(reactor, sock, self, Limits(line_size=1024), turns)
        self._ended, self._awaited = False, None
        Task(serve(self))
        self._hold()

    async def line(self):
        """The next line; None when no more will come."""
        if self._ended:
            return None
        self._awaited = Future()
        if Hold.OWNER in self.stream.holds:
            self.stream.go_on()
        return await self._awaited

    def lines_received(self, lines, budget):
        taken = 0
        while taken < budget and self._awaited and (line := next(lines, None)) is not None:
            taken += 1
            self._answer(line)
        self._hold()
        return taken

    def end_received(self):
        self._ended = True
        if self._awaited:
            self._answer(None)

    def line_too_long(self):
        self.stream.close()
        self.end_received()

    def closed(self, error, ours):
        self.end_received()

    def _answer(self, line):
        awaited, self._awaited = self._awaited, None
        awaited.set(line)  # the coroutine goes on inside this call, as far as its next `await`

    def _hold(self):
        if not self._awaited and not self._ended:  # it awaits something else
            self.stream.wait()
