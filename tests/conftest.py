"""Fixtures: servers in processes of their own, and peers that speak to them.

    server          a running server that all tests share: default settings, free port
    start_server    start_server("--log-level", "debug") -> a server of the test's own
    run_kv          run_kv("server", "--port", "x") -> a `python -m kv` that ended by itself
    connect         connect() -> a `wire.Peer`: TCP only, nothing sent
    peer            peer() or peer("alice") -> a `wire.Peer` with a session of its own
    fake            a `fake.FakeServer`, which does as the test says
    deaf            an address that refuses
    barrier         barrier() returns when the shared server has read all that was sent to it;
                    barrier(n) when it has taken n turns of its loop since then

A server whose log contains a traceback fails the test that made it write one. Peers are closed
and processes ended, each by its own id, when the test is over.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import starts
from fake import FakeServer
from patience import lose_patience, patience
from starts import ROOT  # noqa: F401 (tests take it from here)
from wire import Barrier, Peer, new_id
from workers import (  # noqa: F401 (pytest finds them here)
    pytest_addoption,
    pytest_runtest_call,
    pytest_runtest_setup,
    pytest_runtestloop,
)

# A shell has what it starts in the background ignore SIGINT, and `nohup` does so with SIGHUP. The
# servers of the tests would inherit that, and rightly keep it.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Returns the first true value of `condition()`; fails the test when patience is at its end."""
    bound = patience()
    deadline = time.monotonic() + bound
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {bound} s in vain for {what}")
        time.sleep(0.002)
    return value


class Server:
    """`python -m kv server` in a process of its own, its standard error in a file."""

    def __init__(self, directory: Path, *args: str, afresh: bool = False, **popen: Any) -> None:
        number = len(list(directory.glob("server-*.log")))
        self._path = directory / f"server-{number}.log"
        self._start = 0  # where the running test's part of the log begins
        if "--port" not in args:
            args = ("--port", "0", *args)
        with self._path.open("wb") as log:
            popen = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **popen}
            self.process = starts.start("-m", "kv", "server", *args, afresh=afresh, **popen)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ports(self) -> list[int]:
        """The port in each `listening on HOST:PORT` line of the whole log."""
        text = self._path.read_text(errors="replace")
        return [int(port) for port in re.findall(r"listening on \S+:(\d+)$", text, re.M)]

    @property
    def port(self) -> int:
        return self.ports[0]

    def log(self) -> str:
        """What the server has logged since this test began."""
        return self._path.read_bytes()[self._start :].decode(errors="backslashreplace")

    def log_lines(self, text: str) -> list[str]:
        """The lines of `log()` that contain `text`."""
        return [line for line in self.log().splitlines() if text in line]

    def wait_for_log(self, text: str) -> str:
        """Waits until `text` is in the log; the log."""

        def found() -> bool:
            if text in self.log():
                return True
            if self.process.poll() is not None and text not in self.log():
                pytest.fail(f"the server ended without logging {text!r}:\n{self.log()}")
            return False

        wait_until(found, f"{text!r} in the server's log, which is:\n{self.log()}")
        return self.log()

    def wait_until_listening(self) -> "Server":
        """Waits for the first `listening on` line: it comes when connections are accepted."""

        def ready() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the server ended before it listened:\n{self.log()}")
            return bool(self.ports)

        wait_until(ready, "the server to listen")
        return self

    def forget_log(self) -> None:
        """`log()` begins here from now on."""
        self._start = self._path.stat().st_size

    def signal(self, number: int) -> None:
        """Sends a signal to the server's process."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Waits for the process to end by itself; its exit status."""
        try:
            return self.process.wait(patience())
        except subprocess.TimeoutExpired:
            pytest.fail(f"the server did not end; its log:\n{self.log()}")

    def stop(self) -> int:
        """Asks the process to end (SIGTERM) and waits for it; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.wait()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def check_log(self) -> None:
        """Fails if there is a traceback, or a complaint of the interpreter's, in the log."""
        log = self.log()
        assert "Traceback" not in log and "Exception ignored" not in log, log


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Once something has been waited for in vain, nothing is waited for so long."""
    in_vain = ("in vain", "timed out", "interrupted after", "did not end")
    if report.failed and report.duration > patience() / 2:
        if any(words in report.longreprtext for words in in_vain):
            lose_patience()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the whole run; tests ask for `server`."""
    server = Server(tmp_path_factory.mktemp("shared"))
    try:
        yield server.wait_until_listening()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_barrier(shared_server: Server) -> Iterator[Barrier]:
    """The client that tells when the shared server has seen all; tests ask for `barrier`."""
    with contextlib.closing(Barrier(shared_server.port)) as barrier:
        yield barrier


@pytest.fixture
def server(shared_server: Server, shared_barrier: Barrier) -> Iterator[Server]:
    """The shared server, its log cut to what happened since this test began."""
    assert shared_server.process.poll() is None, "an earlier test ended the shared server"
    shared_barrier.wait()  # until it has logged the end of the last test's peers
    shared_server.forget_log()
    yield shared_server
    shared_server.check_log()
    assert shared_server.process.poll() is None, "this test ended the shared server"


@pytest.fixture
def start_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """A factory of servers: `start_server(*options, listening=True, **arguments_of_Popen)`.

    `--port 0` unless the options say otherwise; returns once the server listens. `afresh=True` is
    for those who measure its memory, as the soak does: see `starts`.
    """
    servers: list[Server] = []
    soak = request.path.name.startswith("soak")

    def start(*args: str, listening: bool = True, **popen: Any) -> Server:
        server = Server(tmp_path, *args, **{"afresh": soak, **popen})
        servers.append(server)
        return server.wait_until_listening() if listening else server

    with contextlib.ExitStack() as stack:
        try:
            yield start
        finally:
            for server in servers:
                stack.callback(server.check_log)
                stack.callback(server.stop)


@pytest.fixture
def run_kv() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m kv ...` to its end; what it printed and its exit status."""

    def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return starts.run("-m", "kv", *args, **options)

    return run


# `connect` asks for `start_server` so that peers are closed before their servers are stopped.
@pytest.fixture
def connect(server: Server, start_server: Any) -> Iterator[Callable[..., Peer]]:
    """A factory of peers that have sent nothing; to the shared server unless told a port."""
    with contextlib.ExitStack() as stack:

        def make(port: int | None = None, **options: Any) -> Peer:
            return stack.enter_context(Peer(server.port if port is None else port, **options))

        yield make


@pytest.fixture
def peer(connect: Callable[..., Peer]) -> Callable[..., Peer]:
    """A factory of peers with a session: `peer()`, `peer("alice")`, `peer(port=...)`."""

    def make(client_id: str | None = None, port: int | None = None, **options: Any) -> Peer:
        return connect(port, **options).handshake().connect(client_id or new_id())

    return make


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A server that does as the test says."""
    with FakeServer() as server:
        yield server


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """An address that refuses: the port is taken, and nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.fixture
def barrier(server: Server, shared_barrier: Barrier) -> Callable[..., None]:
    """`barrier()` returns when the shared server has read all that was sent to it before."""
    return shared_barrier.wait
