"""Standard input and output without blocking.

Generic: knows octets and lines, not what they mean.

Some facts about inherited descriptors. O_NONBLOCK belongs to the open file, not to the descriptor.
A program that sets it on its standard input also changes the terminal or pipe for its parent shell,
and for every other process that shares it (31). So these descriptors stay blocking, and the program
asks before each call whether the call would block. Readable means that at least one octet is there,
or the end, and `read` takes what there is. When `poll` says that a pipe is writable, PIPE_BUF
octets can be written without blocking, and no more (the documentation of `select.PIPE_BUF`). A
terminal keeps neither promise. But the program can open the terminal again by its name, and that
open file is its own. (If another process reads the same input or writes to the same output just
before, the call can still block. Only the flag would prevent that, and it would change theirs.)
"""

import errno
import os
import re
import select
import stat
import termios
from collections.abc import Callable
from contextlib import suppress

from kv.net.reactor import READ, WRITE, Reactor

#: Octets that an Output keeps before its user should pause.
HIGH_WATER = 64 * 1024
READ_SIZE = 16 * 1024
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""`text`, safe for a terminal or a log line: control characters become \xNN or the like.

    Peers choose their texts. An ESC in a text can change the terminal's title, colours and
    contents. A carriage return can overwrite the line (35).
    """
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def open_missing() -> None:
    """Opens /dev/null for those of descriptors 0 to 2 that are closed. Call this first.

    A new descriptor gets the lowest free number. If standard error is closed, the next one that a
    server opens is number 2. If that is a connection, the log goes to a peer (30).
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def writable(descriptor: int) -> bool:
    """Whether a write of PIPE_BUF octets would return at once, with success or an error."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def opened_anew(descriptor: int, access: int) -> int:
    """A new, non-blocking descriptor for the terminal that `descriptor` stands for.

    After Ctrl-S, a terminal keeps a writer waiting until a person types Ctrl-Q. And Ctrl-C throws
    away what was typed, perhaps between readiness and the read. If `descriptor` is not a terminal,
    or cannot be opened, it is returned as it is. `access` is O_RDONLY or O_WRONLY.
    """
    try:
        return os.open(os.ttyname(descriptor), access | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return descriptor


def in_background(terminal: int) -> bool:
    """Whether a shell has put this process in the background of its terminal."""
    with suppress(OSError):  # it is another session's terminal
        return os.tcgetpgrp(terminal) != os.getpgrp()
    return False


class Output:
    """A descriptor to write to. What the descriptor cannot take yet is kept, and written later.

    `changed` is called when kept octets were written, and when `error` is set: nobody reads the
    other end any more (EPIPE), or the disk is full. Later writes are then dropped.
    """

    def __init__(self, reactor: Reactor, descriptor: int, changed: Callable[[], object]) -> None:
        self._reactor = reactor
        self._descriptor = opened_anew(descriptor, os.O_WRONLY)
        self._changed = changed
        self._pending = bytearray()
        self._registration = reactor.register(self._descriptor, lambda _: self._ready())
        self.error: OSError | None = None

    @property
    def pending(self) -> int:
        """Octets not written yet."""
        return len(self._pending)

    def write(self, data: bytes) -> None:
        """Writes `data`, now or later."""
        if self.error is None:
            kept = bool(self._pending)
            self._pending += data
            self._flush()
            if kept and not self._pending and self.error is None:  # no readiness will tell of it
                self._reactor.call_soon(self._changed)

    def _ready(self) -> None:
        self._flush()
        self._changed()

    def _flush(self) -> None:
        try:
            while self._pending and writable(self._descriptor):
                count = os.write(self._descriptor, self._pending[: select.PIPE_BUF])
                del self._pending[:count]
        except (BlockingIOError, InterruptedError):
            pass  # a full terminal, or a pipe that another process made non-blocking
        except OSError as error:
            self.error = error
            self._pending.clear()
            self._reactor.call_soon(self._changed)
        self._registration.set(WRITE if self._pending else 0)


class Input:
    """A descriptor to read lines from.

    `received` is called when there may be a new line to `take`. At the end, `ended` is true. Of a
    line with more than `longest` octets, the first `longest` are kept, and at most one read more.
    """

    def __init__(
        self, reactor: Reactor, descriptor: int, longest: int, received: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._descriptor = opened_anew(descriptor, os.O_RDONLY)
        self._longest = longest
        self._received = received
        self._cutting = False  # the rest of a line that is too long is thrown away
        self._buffer = bytearray()
        self._scanned = 0
        self._reading = False
        self._watchable = True
        self._terminal = os.isatty(descriptor)
        self._scheduled = False  # a call of _read_file is deferred
        self._registration = reactor.register(self._descriptor, lambda _: self._read())
        self.taken = 0  # octets of the lines that were taken
        self.ended = False
        self.error: OSError | None = None  # why it ended early, if it did

    def take(self) -> bytes | None:
        """The next line, without LF, or None if there is no complete line.

        When the input has ended, the octets after the last LF are a line, too.
        """
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._buffer)
            if not self.ended or not self._buffer:
                return None
            end = len(self._buffer)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self.taken += end + 1
        self._scanned = 0
        return line

    @property
    def share(self) -> float:
        """Which part of a regular file has been taken. 0 for a pipe or a terminal."""
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return 0
        return min(1, self.taken / status.st_size)

    def drop(self) -> None:
        """Drops what was read and not taken."""
        self._buffer.clear()
        self._scanned = 0

    def drop_typed(self) -> None:
        """Drops what the terminal has: half a line must not become the shell's next command.

        In the background (Ctrl-Z and `bg`), what is typed is for the shell. A program that flushes
        it there is stopped (SIGTTOU).
        """
        with suppress(termios.error):  # the terminal may be gone
            if not in_background(self._descriptor):
                termios.tcflush(self._descriptor, termios.TCIFLUSH)

    def read_on(self, wanted: bool) -> None:
        """Starts or stops reading: a script larger than memory must be able to wait (34)."""
        wanted = wanted and not self.ended
        if wanted == self._reading:
            return
        self._reading = wanted
        if self._watchable:
            try:
                self._registration.set(READ if wanted else 0)
            except PermissionError:  # epoll refuses regular files: they are always ready (31)
                self._watchable = False
        if wanted and not self._watchable and not self._scheduled:
            self._scheduled = True
            self._reactor.call_soon(self._read_file)

    def more_is_there(self) -> bool:
        """Whether there is more than blank lines, in what a few reads find now."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        for _ in range(16):
            if self.ended or self._buffer.strip() or not poll.poll(0):
                break
            self._fill()
        return bool(self._buffer.strip())

    def _read_file(self) -> None:
        self._scheduled = False
        if self._reading:
            self._scheduled = True  # before `_read`: its callback may call `read_on` again
            self._reactor.call_soon(self._read_file)
            self._read()

    def _read(self) -> None:
        self._fill()
        self._received()

    def _fill(self) -> None:
        try:
            # Not sys.stdin: a buffered reader takes everything and gives one line. The selector
            # knows nothing of the rest (31).
            data = os.read(self._descriptor, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if not (self._terminal and error.errno == errno.EIO):  # EIO: the terminal has gone
                self.error = error
            data = b""
        if not data:
            self.read_on(False)
            self.ended = True
        if self._cutting:
            end = data.find(b"\n")
            data = data[end:] if end >= 0 else b""
            self._cutting = end < 0
        self._buffer += data
        if len(self._buffer) > self._longest and b"\n" not in self._buffer:
            del self._buffer[self._longest :]
            self._cutting = True
