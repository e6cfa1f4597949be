"""A step of the ladder, running as a program of its own, and a client that speaks to it."""

import contextlib
import fcntl
import os
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patience import patience

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

#: Seconds after which what ought not to happen is taken not to, where it cannot be told otherwise.
DOUBT = 0.3


class Red(Exception):
    """A step does not survive a peer. `word` is for the grid, the text says what happened."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


class Server:
    """A step in a process of its own, on a free port."""

    def __init__(
        self,
        program: str,
        word: str | None = None,  # what is expected of it
        descriptors: int | None = None,  # how many it may have
        arguments: tuple[object, ...] = (),
    ) -> None:
        # What is expected has time to come, on a busy machine, too; what is not is given up soon.
        #: Seconds to wait for a reply when the server sleeps already.
        self.hope = patience(2) if word in {"ok", "dies"} else DOUBT
        #: Seconds to wait for what a server with limits does not do.
        self.fear = patience(2) if word == "grows" else DOUBT / 10
        command = [sys.executable, *shlex.split(program), "0", *map(str, arguments)]
        if descriptors:
            command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *command]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        try:
            if not ready(self._process.stdout, select.POLLIN, patience(2)):
                raise Red("waits", f"it says no port within {patience(2):g} s")
            said = self._process.stdout.readline().split()
            if not said:
                raise Red("dies", f"does not start: {self.last_words()}")
            if not said[-1].isdigit():
                raise Red("mixed", f"its first line does not end with a port: {said[-1]!r}")
        except BaseException:
            self.close()
            raise
        self.port = int(said[-1])

    def client(self, small: bool = False) -> "Client":
        """A client that is connected; `small`: it has room for little that it has not read."""
        return Client(self, small)

    def signal(self, number: int) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Holds the server: what is sent meanwhile arrives as if it came all at one moment."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
        yield
        self.signal(signal.SIGCONT)

    def settle(self, bound: float | None = None) -> bool:
        """Waits until the server sleeps: it has done what it can with what it has been sent.

        False if it does not within `bound` seconds of its own processor time.
        """
        bound = patience(2) if bound is None else bound
        if not Path("/proc/self/task").exists():  # not Linux
            time.sleep(DOUBT)
            return True
        asleep, start = 0, self._used()
        while asleep < 3 and self._process.poll() is None:
            asleep = asleep + 1 if self._sleeps() else 0
            if self._used() - start > bound:
                return False
            time.sleep(0.001)  # lets it run: it may need this processor
        return True

    def _sleeps(self) -> bool:
        """Whether all its threads do."""
        with contextlib.suppress(OSError):  # one has ended while it was looked at
            return all(
                task.read_text().rpartition(")")[2].split()[0] == "S"
                for task in Path(f"/proc/{self.pid}/task").glob("*/stat")
            )
        return False

    def _used(self) -> float:
        """Seconds of processor time that it has used."""
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def status(self, bound: float) -> int | None:
        """Its exit status, or None if it still runs after `bound` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(bound)
        return None

    def said(self) -> str:
        """What it has said on standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode()

    def last_words(self) -> str:
        """The last line of the traceback, and the line of code, if Python could still read it."""
        self._process.wait(patience(2))
        lines = self.said().strip().splitlines()
        code = [lines[i + 1] for i, line in enumerate(lines) if line.startswith("  File")]
        if not code:
            return lines[-1] if lines else "it says nothing"
        return f"{lines[-1]}, in {code[-1].strip()}" if code[-1] != lines[-1] else lines[-1]

    def close(self) -> None:
        """Ends it."""
        self._process.kill()  # has no effect once it has ended
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class Client:
    """A client. It never blocks for longer than the server does something."""

    def __init__(self, server: Server, small: bool) -> None:
        self.server = server
        self.received = bytearray()
        self.sock = socket.socket()
        if small:  # with small segments and a small window, the server soon cannot send
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(patience(2))
        try:
            self.sock.connect(("127.0.0.1", server.port))
        except OSError:
            self.sock.close()
            raise

    def send(self, octets: bytes) -> None:
        """Sends all of it; what the server does not take fits into the kernel's buffers."""
        self.sock.sendall(octets)

    def settle(self) -> None:
        """Waits until what was sent has arrived, and the server has done what it can with it."""
        deadline = time.monotonic() + patience(2)
        while unacknowledged(self.sock) and time.monotonic() < deadline:
            time.sleep(0.001)
        self.server.settle()

    def lines(self, count: int) -> list[bytes]:
        """The first `count` replies, or as many as come."""
        missing = count - self.received.count(b"\n")
        before = len(self.received)
        while missing > 0 and self.read():
            missing -= self.received.count(b"\n", before)
            before = len(self.received)
        return bytes(self.received).split(b"\n")[:-1][:count]

    def read(self, size: int = 65536) -> bool:
        """Reads some; False if the server has nothing to say any more, or is gone."""
        while not self.readable(0.1):  # it is not asked too often whether it sleeps
            if self.server.settle() and not self.readable(self.server.hope):
                return False
        try:
            data = self.sock.recv(size)
        except ConnectionError:
            data = b""
        self.received += data
        return bool(data)

    def rest(self) -> list[bytes]:
        """All replies that come."""
        while self.read():
            pass
        return bytes(self.received).split(b"\n")[:-1]

    @property
    def ended(self) -> bool:
        """Whether the server has closed."""
        if not self.readable():
            return False
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def readable(self, seconds: float = 0.0) -> bool:
        """Whether there is something to read within so many seconds."""
        return ready(self.sock, select.POLLIN, seconds)

    def writable(self, seconds: float = 0.0) -> bool:
        """Whether there is room for more within so many seconds."""
        return ready(self.sock, select.POLLOUT, seconds)

    def close(self) -> None:
        """Closes."""
        self.sock.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def unacknowledged(sock: socket.socket) -> int:
    """Octets, FIN included, of which the other kernel has not said yet that it has them."""
    if sys.platform != "linux" or ready(sock, 0, 0):  # it was reset, and they never will be
        return 0
    (octets,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(octets)


def ready(file: Any, events: int, seconds: float) -> bool:
    """Whether one of the events comes within so many seconds. `select` cannot tell (21)."""
    poll = select.poll()
    poll.register(file, events)
    return bool(poll.poll(1000 * seconds))
