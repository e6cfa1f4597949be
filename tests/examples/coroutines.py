"""Coroutines on `kv.net`'s reactor: what stands behind `await`.

`Future` and `Task` are all that `await` needs. They know nothing of sockets. `Lines` uses them.
"""

from kv.net.serving import Peer


class Future:
    """A result that is not there yet, and the callback of the task that waits for it."""

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
    """Runs a coroutine up to its next `await` of a result that is not there yet."""

    def __init__(self, coroutine):
        self._coroutine = coroutine
        self.step()

    def step(self):
        try:
            future = self._coroutine.send(None)
        except StopIteration:
            return
        future.callback = self.step  # the rest of the coroutine, kept for later


class Lines(Peer):
    """A connection whose lines a coroutine awaits: `serve`, which a subclass has."""

    def connected(self):
        self._ended, self._next = False, Future()
        self.stream.wait()  # nothing is handed over until the coroutine awaits a line
        Task(self.serve())

    def line(self):
        """A future: the next line, or None when no more will come."""
        self._next = Future()
        if self._ended:
            self._next.set(None)
        else:
            self.stream.go_on()
        return self._next

    def line_received(self, line):
        self.stream.wait()
        self._next.set(line)  # the coroutine goes on, here, up to its next `await`

    def end_received(self, *_):
        self._ended = True
        if not self._next.done:
            self._next.set(None)

    left = end_received
