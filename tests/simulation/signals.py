"""Signals and other threads: what comes to the loop from outside.

Both ring a bell, a pair of sockets in which there is little room: an octet more is lost, as in a
kernel. A signal comes while the loop sleeps or in the midst of a system call. Its handler runs at
once, and must do nothing but take notice; what follows belongs to the loop.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import kv.net.reactor

from .kernel import READ, Failure, Kernel


class End:
    """One end of a bell."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.fd = kernel.open(self)

    def fileno(self) -> int:
        return self.fd

    def setblocking(self, flag: bool) -> None:
        """Nothing blocks here."""

    def ready(self) -> int:
        return 0

    def close(self) -> None:
        self.kernel.close(self.fd)


class Receiver(End):
    """The end that the loop watches."""

    def __init__(self, kernel: Kernel, room: int) -> None:
        super().__init__(kernel)
        self.room = room
        self.octets = b""

    def ready(self) -> int:
        return READ if self.octets else 0

    def recv(self, size: int) -> bytes:
        """All that has come; a signal may come right before, or right after."""
        self.kernel.system_call()
        if not self.octets:
            raise BlockingIOError(errno.EAGAIN, "it has not rung")
        data, self.octets = self.octets[:size], self.octets[size:]
        self.kernel.activity += 1
        return data


class Sender(End):
    """The end that is rung."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(receiver.kernel)
        self.receiver = receiver

    def send(self, data: bytes) -> int:
        """Rings, if there is room for the octet."""
        if len(self.receiver.octets) >= self.receiver.room:
            raise BlockingIOError(errno.EAGAIN, "it is full")
        self.receiver.octets += data
        return len(data)


class Signals:
    """Stands for the module `signal`, as far as the reactor uses it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.room = kernel.rng.choice((1, 2, 300))
        self.bell: Sender | None = None
        self._handlers: dict[int, Callable[[int, Any], object]] = {}
        self._wakeup_fd = -1
        self._raised: dict[int, int] = {}  # number -> the turn in which it was
        self.waiting = False  # one comes in the midst of the next system call
        self.asked = 0  # calls that other threads have asked for
        self._asked_at = 0.0
        self._unheard = (0, 0)  # how many of them have waited, and since which turn

    def socketpair(self) -> tuple[Receiver, Sender]:
        receiver = Receiver(self.kernel, self.room)
        self.bell = Sender(receiver)
        return receiver, self.bell

    def signal(self, number: int, handler: Any) -> Any:
        before = self._handlers.get(number)
        self._handlers[number] = handler
        return before

    def set_wakeup_fd(self, fd: int, warn_on_full_buffer: bool = True) -> int:  # noqa: ARG002
        before, self._wakeup_fd = self._wakeup_fd, fd
        return before

    def come(self, number: int) -> None:
        """A signal comes: its octet is written, if there is room, and its handler called."""
        self.waiting = False
        if self.bell is None or self._wakeup_fd != self.bell.fd:
            raise Failure("a signal comes, and the interpreter was not told whom to wake")
        try:
            self.bell.send(bytes([number]))
        except BlockingIOError:
            self.kernel.say("kernel", "no room for a signal's octet")
        self._raised.setdefault(number, self.kernel.selector.turns)
        self._handlers[number](number, None)

    def heard(self, number: int) -> None:
        """The loop has heard of it."""
        if self._raised.pop(number, None) is None:
            raise Failure(f"the loop hears of signal {number}, which has not come")
        self.kernel.activity += 1

    def check(self) -> None:
        """Between two turns: what has come is heard in the next one."""
        for number, turn in self._raised.items():
            if self.kernel.selector.turns > turn + 2:
                raise Failure(f"signal {number} is lost")
        asked, since = self._unheard
        if not self.asked or self.asked < asked:
            self._unheard = self.asked, self.kernel.selector.turns
        elif self.kernel.selector.turns > since + 2:
            raise Failure(f"{self.asked} calls that another thread has asked for are not made")

    def ask(self) -> Callable[[], object]:
        """The call that another thread is about to ask for."""
        self.asked += 1
        self._asked_at = self.kernel.now
        return self.answered

    def answered(self) -> None:
        """The loop makes a call that another thread has asked for."""
        self.asked -= 1
        if self.kernel.now > self._asked_at + 1000 * self.kernel.dice.cost + 1e-6:
            raise Failure("the loop slept on when another thread had asked for a call")
        self.kernel.activity += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While this lasts, the reactor's signals are these, and so is its bell."""
        sockets = SimpleNamespace(socketpair=self.socketpair)
        with (
            mock.patch.object(kv.net.reactor, "signal", self),
            mock.patch.object(kv.net.reactor, "socket", sockets),
        ):
            yield
