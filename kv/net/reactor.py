"""The loop: readiness, timers, deferred calls, and what comes from outside: signals, threads.

Generic: knows nothing of streams, lines or keys. Its selector and its clock are handed in, so a
simulation can supply both. One turn of the loop is:

1. sleep until a descriptor is ready, the next timer is due, or not at all if calls are deferred;
2. call back whoever is ready;
3. run the timers that are due;
4. run the calls that were deferred before this turn. What this turn defers runs in the next one,
   after the descriptors have been looked at again: deferred work cannot keep the loop from them,
   and whoever is ready meanwhile comes first.

Callbacks must not block, and whatever they raise ends the loop: a callback that serves one peer
among many catches its own (see `Stream`).

Some facts about waiting. A system call on a descriptor (the small number that stands for an open
socket, pipe or file) waits until it can be done: `recv` for octets, `send` for room, `accept` for
somebody to come. A thread that waits for one peer serves no other. With O_NONBLOCK set such a call
does what can be done now, or fails with EAGAIN, which Python raises as `BlockingIOError`. What is
left to wait for is readiness, and a selector (`epoll`, `kqueue`, `poll`) waits for that of many
descriptors in one call.

Some facts about selectors. They are level-triggered: a descriptor is reported again on every turn
for as long as it is ready. So nobody has to read until "would block" before sleeping; but whoever
leaves an interest on without acting on it makes the loop spin. An interest that has nothing to do
is therefore switched off at once. That means unregistering: no selector registers an empty
interest; `poll` and `epoll` let one be modified to it, and still report a peer that hangs up.
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

#: Seconds. A sleep that ends so much later than it should means that the process was stopped.
OVERSLEPT = 0.25


class HasFileno(Protocol):
    """Anything with a file descriptor."""

    def fileno(self) -> int:
        """The descriptor's number."""


class Registration:
    """One descriptor's place in the loop: which readiness is wanted, and whom to tell."""

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

        Raises `PermissionError` for a regular file on Linux: epoll does not watch those.
        """
        if interest == self.interest:
            return
        before, self.interest = (
            self.interest,
            0,
        )  # also if the selector fails: it then has forgotten
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
        self._elsewhere: deque[Callback] = deque()  # calls that other threads have asked for
        self._bell: socket.socket | None = None  # an octet written to it ends the sleep
        self._flags: set[int] = set()  # signals that have come
        self._signals: dict[int, Callback] = {}
        self._restore: list[Callback] = []
        self._each_turn: list[Callback] = []
        self._stopped = False
        self.woken = clock()  # when this turn began
        self.turns = 0
        self.longest_turn = 0.0  # seconds, the sleep not counted

    def register(self, fileobj: int | HasFileno, callback: Callable[[int], object]) -> Registration:
        """A registration, with no interest yet; `callback` gets the readiness that was seen."""
        return Registration(self._selector, fileobj, callback)

    def call_soon(self, callback: Callback) -> None:
        """Defers a call to the end of the next turn, which does not sleep."""
        self._deferred.append(callback)

    def each_turn(self, callback: Callback) -> None:
        """Makes a call whenever the loop has woken, before anybody else is called."""
        self._each_turn.append(callback)

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Makes a call `delay` seconds from now, or as soon after as the loop gets to it."""
        return self.timers.later(delay, callback)

    def run(self) -> None:
        """Turns until `stop` is called; if it has been called already, not at all."""
        while not self._stopped:
            self.turn()
        self._stopped = False

    def stop(self) -> None:
        """Ends `run` after this turn."""
        self._stopped = True

    def turn(self) -> None:
        """One turn of the loop, as the docstring of this module describes it."""
        deferred = len(self._deferred)
        timeout = self._sleep()
        ready = self._selector.select(timeout)
        self.woken = self.time()
        for begin in self._each_turn:
            begin()
        for key, events in ready:
            registration: Registration = key.data
            # An earlier callback of this batch may have closed this descriptor, and may even have
            # opened another one under the same number. The registration knows: its interest is
            # what it wants now, not what the kernel saw (14).
            wanted = events & registration.interest
            if wanted:
                registration.callback(wanted)
        due = self.timers.next()
        if due is not None and due <= self.woken:
            # A process that was stopped (Ctrl-Z) comes out of `select` late and empty-handed, when
            # much may have arrived. That counts first: so there is another look, in the next turn.
            late = self.woken - due > OVERSLEPT
            if ready or timeout == 0 or not late:
                self.timers.run(self.woken)  # not later: what has arrived since counts first
        for _ in range(deferred):
            self._deferred.popleft()()
        self.turns += 1
        self.longest_turn = max(self.longest_turn, self.time() - self.woken)

    def _sleep(self) -> float | None:
        """How long the selector may sleep, in seconds; None is for ever.

        A selector that rounded this down to milliseconds would wake before the timer is due, find
        nothing to do and spin; `selectors` rounds up (25).
        """
        if self._deferred:
            return 0
        due = self.timers.next()
        return None if due is None else min(max(0, due - self.time()), LONGEST_SLEEP)

    # From outside: signal handlers, and other threads

    def wakeable(self) -> None:
        """Makes it possible to end the loop's sleep from outside. In the loop's thread only."""
        if self._bell is None:
            receiver, self._bell = socket.socketpair()
            receiver.setblocking(False)
            self._bell.setblocking(False)
            registration = self.register(receiver, lambda _: self._rung(receiver))
            registration.set(READ)
            self._restore += [lambda: registration.set(0), receiver.close, self._bell.close]

    def call_soon_threadsafe(self, callback: Callback) -> None:
        """As `call_soon`, from any thread. Raises `RuntimeError` if the loop is not `wakeable`.

        The queue of deferred calls is looked at before the loop sleeps, so a call that another
        thread puts there during the sleep waits for something else to end it; and a thread that
        appends while the loop counts is a race (42). So such calls have a queue of their own, and
        whoever appends to it rings.
        """
        if self._bell is None:
            raise RuntimeError("call wakeable() in the thread of the loop first")
        self._elsewhere.append(callback)
        with suppress(BlockingIOError):  # so many octets wait to be read that it will wake anyway
            self._bell.send(b"\0")

    def on_signal(self, number: int, callback: Callback) -> None:
        """Makes `callback` part of the loop when signal `number` comes. Main thread only.

        A signal handler in Python runs between any two instructions of whatever code is running,
        and one that comes just before `select` would not end its sleep (29). So the handler only
        sets a flag, and the interpreter writes an octet to a socket that the loop watches. The
        octet means nothing: when the socket is full it is lost, and the flag is not (41).
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
