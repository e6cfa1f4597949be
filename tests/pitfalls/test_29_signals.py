"""A signal comes while the loop sleeps, while replies are owed, or twice

A signal handler runs between any two instructions. So the usual one only makes a note for the loop
to find. When it returns, Python puts the interrupted system call back to sleep (PEP 475). The note
is found when something else is ready: at once on a busy server, never on an idle one. Then the
usual code closes everything and ends the process, although commands have arrived that have no
answer yet.

A server that finishes politely takes its time, and a second signal should end it at once. But a
tool that stops a whole process group sends SIGTERM both to the server and to the `make` that
started it. `make` passes its own on, so the second comes within a millisecond of the first.

What you see: Ctrl-C seems to do nothing, or the last replies are lost at a restart. What a
bystander sees: a connection that is reset when the server is restarted.
"""

import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from unittest import mock

from house import SERVER_KEY, house
from wire import KEY

from kv.net.reactor import Reactor
from kv.process import serve
from kv.protocol.messages import Wire
from kv.protocol.store import Store
from kv.server import Server, Settings

from .moments import seen
from .pitfall import Failure, Pitfall


class Interrupted(selectors.DefaultSelector):
    """SIGUSR1 comes when it goes to sleep."""

    def select(self, timeout: float | None = None) -> list[Any]:
        main = threading.get_ident()
        threading.Thread(target=signal.pthread_kill, args=(main, signal.SIGUSR1)).start()
        return super().select(timeout)


def on_signal(self: Reactor, number: int, callback: Callable[[], object]) -> None:
    """What is usually written."""
    before = signal.signal(number, lambda *_: self.call_soon(callback))
    self._restore.append(lambda: signal.signal(number, before))


class TestWakeUp(Pitfall):
    """SIGUSR1 comes when an idle loop sleeps."""

    usually = "a signal is not noticed before something else wakes the loop"
    wrong = "^loop sleep .*; ready: nobody"
    handled = Reactor.on_signal
    naive = {"kv.net.reactor.Reactor.on_signal": on_signal}
    patience = 0.3

    def scenario(self) -> str:
        with closing(Reactor(Interrupted())) as reactor:
            reactor.on_signal(signal.SIGUSR1, reactor.stop)
            reactor.run()
            return f"the signal ends the sleep, and is dealt with after {reactor.turns} turn"


def stop(self: Server, timeout: float) -> None:
    """What is usually written."""
    for listener in self._listeners:
        listener.close()
    for connection in list(self.connections):
        connection.stream.close()
    self.reactor.stop()


class TestGracefulStop(Pitfall):
    """The server is told to stop when a client's 150 commands have just arrived."""

    usually = "commands that have arrived are not answered"
    wrong = "^#1 incoming OPEN -> DISCARDING"
    handled = Server.stop
    naive = {"kv.server.Server.stop": stop}

    def scenario(self) -> str:
        with house() as h:
            guest = h.guest().connect()
            (connection,) = h.server.connections
            before = connection.stream.lines
            guest.socket.send(KEY.seal(b"GET k") * 150)
            while connection.stream.lines == before:
                h.reactor.turn()
            h.server.stop(5)
            h.settle()
            answered = guest.texts().count("GET: ERROR")
            if answered < 150:
                raise Failure(f"{answered} of 150 commands that had arrived are answered")
            return "all 150 commands that had arrived are answered"


class Told(Server):
    """Is told to stop as soon as there is a connection, and again when it has begun to."""

    accepted: socket.socket

    def _accepted(self, sock: socket.socket, address: Any) -> None:
        Told.accepted = sock
        super()._accepted(sock, address)
        signal.raise_signal(signal.SIGTERM)

    def stop(self, timeout: float) -> None:
        super().stop(timeout)
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def as_they_were() -> Iterator[None]:
    """Puts back what `serve` leaves as it is, since a process mostly ends with it."""
    handler, blocked = (
        signal.getsignal(signal.SIGUSR1),
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGUSR1, handler)


class TestTwice(Pitfall):
    """SIGTERM comes twice in a row when a client's 200 commands have just arrived."""

    usually = "the second of two signals ends the process at once, and replies are lost"
    wrong = seen("^#1 close ", after="^signals asks for nothing")
    handled = serve
    naive = {"kv.process.SAME_REQUEST": 0.0}

    def scenario(self) -> str:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as client,
            mock.patch("kv.process.listen", lambda *_: [listener]),
            mock.patch("kv.process.PrivateKey.generate", lambda _: SERVER_KEY),
            mock.patch("kv.process.Server", Told),
            as_they_were(),
        ):
            listener.setblocking(False)
            client.sendall(KEY.line + KEY.seal(b"CONNECT alice") + KEY.seal(b"GET k") * 200)
            client.shutdown(socket.SHUT_WR)
            try:
                status = serve("", 0, Wire(), Settings(), Store(1 << 20), 5)
            except SystemExit as end:
                status = end.code
                Told.accepted.close()  # as the end of the process does
            received = b""
            with suppress(ConnectionResetError):
                received = client.recv(1 << 20, socket.MSG_WAITALL)
            replies = max(0, received.count(b"\n") - 2)
            if replies < 200:
                raise Failure(f"{replies} of 200 replies arrive, exit status {status}")
            return f"all 200 replies arrive, exit status {status}"
