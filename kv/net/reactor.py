"""The loop: readiness, timers, deferred calls, and what comes from outside: signals, threads.

Generic: the reactor knows nothing of streams, lines or keys. It gets its selector and its clock as
arguments, so a simulation can supply both. One turn of the loop is:

1. sleep until a descriptor is ready or the next timer is due; do not sleep if calls are deferred;
2. call the callback of each ready descriptor;
3. run the timers that are due;
4. run the calls that were deferred before this turn. What this turn defers runs in the next one,
   after another look at the descriptors. So deferred work cannot keep the loop from them, and a
   descriptor that has become ready comes first.

A callback must not block. An exception in a callback ends the loop. So a callback that serves one
peer among many catches its own exceptions (see `Stream`).

Some facts about waiting. A descriptor is the small number that stands for an open socket, pipe or
file. A system call on it waits until it can be done: `recv` for octets, `send` for room, `accept`
for a connection. A thread that waits for one peer serves no other. With O_NONBLOCK, the call does
what it can do now, or fails with EAGAIN, which Python raises as `BlockingIOError`. Then the program
has to wait for readiness. A selector (`epoll`, `kqueue`, `poll`) waits for the readiness of many
descriptors in one call.

Some facts about selectors. They are level-triggered: a selector reports a descriptor on every turn
for as long as it is ready. So a program need not read until "would block" before it sleeps. But an
interest that is on and not acted on makes the loop spin. So an interest with nothing to do is
switched off at once, by unregistering. No selector registers an empty interest. `poll` and `epoll`
can modify one to be empty, but then still report a peer that hangs up.
"""

import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from kv.net.timers import Callback, Timer, Timers

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

#: Seconds. Selectors refuse a timeout that does not fit in 31 bits of milliseconds.
LONGEST_SLEEP = 3600.0

#: Seconds. If a sleep ends later than planned by more than this, the process was stopped.
OVERSLEPT = 0.25


class HasFileno(Protocol):
    """An object with a file descriptor."""

    def fileno(self) -> int:
        """The descriptor's number."""


class Registration:
    """One descriptor in the loop: the readiness to wait for, and the callback for it."""

    __slots__ = ("_fileobj", "_selector", "callback", "interest")

    def __init__(
        self,
        selector: selectors.BaseSelector,
        fileobj: int | HasFileno,
        callback: Callable[[int], object],
    ) -> None:
        self._selector = selector
        self._fileobj = fileobj
        self.callback = callback
        self.interest = 0

    def set(self, interest: int) -> None:
        """Asks for `interest`: READ, WRITE, both or 0. Call with 0 before closing the descriptor.

        Raises `PermissionError` for a regular file on Linux: epoll does not watch files.
        """
        if interest == self.interest:
            return
        # If the selector fails, it has forgotten the descriptor: then the interest is 0, too.
        before, self.interest = self.interest, 0
        if not interest:  # register(fd, 0) is an error: no interest means not registered (7)
            self._selector.unregister(self._fileobj)
        elif not before:
            self._selector.register(self._fileobj, interest, self)
        else:
            self._selector.modify(self._fileobj, interest, self)
        self.interest = interest


class Reactor:
    """The loop. `run` it; `stop` it from a callback; `close` it once."""

    def __init__(
        self,
        selector: selectors.BaseSelector | None = None,
        clock: Callable[[], float] = time.monotonic,  # the wall clock can jump (25)
    ) -> None:
        self._selector = selector or selectors.DefaultSelector()
        self.time = clock
        self.timers = Timers(clock)
        self._deferred: deque[Callback] = deque()
        self._elsewhere: deque[Callback] = deque()  # calls from other threads
        self._bell: socket.socket | None = None  # an octet written to this ends the sleep
        self._flags: set[int] = set()  # signals that have come
        self._signals: dict[int, Callback] = {}
        self._restore: list[Callback] = []
        self._each_turn: list[Callback] = []
        self._stopped = False
        self.woken = clock()  # when this turn began
        self.turns = 0
        self.longest_turn = 0.0  # seconds, the sleep not counted

    def register(self, fileobj: int | HasFileno, callback: Callable[[int], object]) -> Registration:
        """A registration without interest yet. `callback` gets the readiness that was seen."""
        return Registration(self._selector, fileobj, callback)

    def call_soon(self, callback: Callback) -> None:
        """Defers a call to the end of the next turn, which does not sleep."""
        self._deferred.append(callback)

    def each_turn(self, callback: Callback) -> None:
        """Makes a call whenever the loop has woken, before all other callbacks."""
        self._each_turn.append(callback)

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Makes a call in `delay` seconds, or soon after if the loop is busy."""
        return self.timers.later(delay, callback)

    def run(self) -> None:
        """Turns until `stop` is called. After an earlier `stop`, it does not turn at all."""
        while not self._stopped:
            self.turn()
        self._stopped = False

    def stop(self) -> None:
        """Ends `run` after this turn."""
        self._stopped = True

    def turn(self) -> None:
        """One turn of the loop, as this module's docstring describes it."""
        deferred = len(self._deferred)
        timeout = self._sleep()
        ready = self._selector.select(timeout)
        self.woken = self.time()
        for begin in self._each_turn:
            begin()
        for key, events in ready:
            registration: Registration = key.data
            # An earlier callback of this batch may have closed this descriptor. It may even have
            # opened another one with the same number. The registration knows what is wanted now.
            # The event only says what the kernel saw (14).
            wanted = events & registration.interest
            if wanted:
                registration.callback(wanted)
        due = self.timers.next()
        if due is not None and due <= self.woken:
            # After a stop (Ctrl-Z), `select` returns late and with nothing, although much may have
            # arrived. What has arrived counts before deadlines. So the loop looks once more first.
            late = self.woken - due > OVERSLEPT
            if ready or timeout == 0 or not late:
                self.timers.run(self.woken)  # the time of the look, for the same reason
        for _ in range(deferred):
            self._deferred.popleft()()
        self.turns += 1
        self.longest_turn = max(self.longest_turn, self.time() - self.woken)

    def _sleep(self) -> float | None:
        """How long the selector may sleep, in seconds. None is for ever.

        A selector that rounds this down to milliseconds wakes before the timer is due, finds
        nothing to do, and spins. `selectors` rounds up (25).
        """
        if self._deferred:
            return 0
        due = self.timers.next()
        return None if due is None else min(max(0, due - self.time()), LONGEST_SLEEP)

    # From outside: signal handlers, and other threads

    def wakeable(self) -> None:
        """Allows other threads to end the loop's sleep. Call this in the loop's thread."""
        if self._bell is None:
            receiver, self._bell = socket.socketpair()
            receiver.setblocking(False)
            self._bell.setblocking(False)
            registration = self.register(receiver, lambda _: self._rung(receiver))
            registration.set(READ)
            self._restore += [lambda: registration.set(0), receiver.close, self._bell.close]

    def call_soon_threadsafe(self, callback: Callback) -> None:
        """As `call_soon`, from any thread. Raises `RuntimeError` if the loop is not `wakeable`.

        The loop looks at its deferred calls before it sleeps. A call that another thread adds
        during the sleep would wait until something else wakes the loop (42). And the thread might
        add it while the loop counts, which is a race. So such calls have a queue of their own, and
        the thread that adds one also rings the bell.
        """
        bell = self._bell
        if bell is None:
            raise RuntimeError("call wakeable() in the thread of the loop first")
        self._elsewhere.append(callback)
        try:
            bell.send(b"\0")
        except BlockingIOError:
            pass  # the socket is full of octets: the loop will wake anyway
        except OSError:  # the loop's thread is closing it just now
            raise RuntimeError("the loop is closed") from None

    def on_signal(self, number: int, callback: Callback) -> None:
        """Has the loop call `callback` when signal `number` comes. Main thread only.

        A signal handler in Python runs between any two instructions. A signal just before `select`
        would not end its sleep (29). So the handler only sets a flag, and the interpreter writes an
        octet to a socket that the loop watches. The octet means nothing more than "look at the
        flags". If the socket is full, the octet is lost, and the flag is not (41).
        """
        if not self._signals:
            self.wakeable()
            assert self._bell is not None
            before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
            self._restore.insert(0, lambda: signal.set_wakeup_fd(before))
        handler = signal.signal(number, lambda *_: self._flags.add(number))
        self._restore.insert(0, lambda: signal.signal(number, handler))
        self._signals[number] = callback

    def _rung(self, receiver: socket.socket) -> None:
        with suppress(BlockingIOError, InterruptedError):
            receiver.recv(64 * 1024)
        for number in [number for number in self._signals if number in self._flags]:
            self._flags.discard(number)
            self._signals[number]()
        for _ in range(len(self._elsewhere)):
            self._elsewhere.popleft()()

    def close(self) -> None:
        """Gives back the selector and the signals."""
        for undo in self._restore:
            undo()
        self._restore = []
        self._bell = None
        self._selector.close()
