"""The parts of a service: a registry, servers, a balancer. Each is a process, on loopback alone."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"

#: What is needed besides Python, and under which names it may be there.
PROGRAMS = {
    "Redis or Valkey": ("redis-server", "valkey-server"),
    "HAProxy": ("haproxy", "/usr/sbin/haproxy"),
}

#: The balancer's configuration, as in the README.
HAPROXY = """\
global
    maxconn {connections}
    stats socket {socket}

defaults
    mode tcp
    timeout connect 5s
    timeout client 2h    # longer than --idle-timeout of the servers
    timeout server 2h
    option redispatch 1  # a server that refuses is not asked twice

listen kv
    bind {address}
    balance leastconn
    default-server check inter 1s fall 2 rise 1 send-proxy-v2
{servers}
"""


def program(what: str) -> str | None:
    """The path of a program, if it is there."""
    found = (shutil.which(name) for name in PROGRAMS[what])
    return next((path for path in found if path is not None), None)


def missing() -> list[str]:
    """What is not on this machine."""
    return [f"{what} ({PROGRAMS[what][0]})" for what in PROGRAMS if program(what) is None]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> Any:
    """The first true value of `condition()`. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.01)
    return value


class Process:
    """A program that runs until `stop`. Its output goes to a file; Ctrl-C does not reach it."""

    def __init__(self, log: Path, *command: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def listens(self, port: int) -> bool:
        """Whether somebody does; raises if this one has ended."""
        if not self.running:
            raise ChildProcessError(f"{self.log.stem} has ended: {self.said().strip()[-400:]}")
        with contextlib.suppress(OSError):
            socket.create_connection((LOOPBACK, port)).close()
            return True
        return False

    def stop(self, seconds: float = 10.0) -> None:
        """Ends it gracefully, or at least."""
        if self.running:
            self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Registry(Process):
    """A Redis or Valkey that keeps nothing on disk."""

    def __init__(self, directory: Path, port: int = 0, *options: str) -> None:
        self.directory, self.options = directory, options
        self.port = port or free_port()
        path = program("Redis or Valkey")
        assert path is not None
        command = [path, "--port", str(self.port), "--bind", LOOPBACK, "--save", ""]
        super().__init__(directory / "registry.log", *command, "--dir", str(directory), *options)
        wait_for(lambda: self.listens(self.port), "the registry")

    def again(self) -> "Registry":
        """Another run on the same port, without data."""
        return Registry(self.directory, self.port, *self.options)

    def ask(self, *words: str, database: int = 0) -> bytes:
        with socket.create_connection((LOOPBACK, self.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(f"SELECT {database}\r\n".encode())
            assert sock.recv(5) == b"+OK\r\n"
            sock.sendall(b"*%d\r\n" % len(words))
            for word in words:
                sock.sendall(b"$%d\r\n%b\r\n" % (len(word), word.encode()))
            sock.settimeout(5)
            return sock.recv(65536)


class Plain(Process):
    """A server of ours, by itself."""

    def __init__(self, log: Path, *options: str) -> None:
        super().__init__(log, sys.executable, "-m", "kv", "server", "--port", "0", *options)

    def port(self) -> int:
        """The port, once it listens."""
        if not self.running:
            raise ChildProcessError(f"{self.log.stem} has ended: {self.said().strip()[-400:]}")
        found = re.search(r"listening on \S+:(\d+)$", self.said(), re.M)
        return int(found[1]) if found else 0


class Server(Plain):
    """One of several, which takes connections from loopback with a PROXY header."""

    def __init__(self, log: Path, registry: Registry, *options: str) -> None:
        shared = ("--registry", f"redis://{LOOPBACK}:{registry.port}")
        super().__init__(log, *shared, "--proxy-protocol", LOOPBACK, *options)


class Balancer(Process):
    """A haproxy in front of servers."""

    def __init__(self, directory: Path, address: str, ports: list[int]) -> None:
        path = program("HAProxy")
        assert path is not None
        servers = [f"    server kv{number} {LOOPBACK}:{port}" for number, port in enumerate(ports)]
        self.control = directory / "haproxy.sock"
        text = HAPROXY.format(
            address=address, servers="\n".join(servers), connections=4000, socket=self.control
        )
        file = directory / "haproxy.cfg"
        file.write_text(text)
        super().__init__(directory / "haproxy.log", path, "-f", str(file))
        self.port = int(address.rpartition(":")[2])
        wait_for(lambda: self.listens(self.port), "the balancer")


class Service:
    """All of them, to be stopped as one."""

    def __init__(
        self, directory: Path, servers: int, *options: str, address: str = f"{LOOPBACK}:0"
    ) -> None:
        """`options` are the servers'. Raises what `Process` raises if something does not start."""
        self.servers: list[Server] = []
        self._others: list[Process] = []
        try:
            self.registry = Registry(directory)
            self._others.append(self.registry)
            for number in range(servers):
                log = directory / f"server-{number}.log"
                self.servers.append(Server(log, self.registry, *options))
            self.ports = [wait_for(server.port, "a server") for server in self.servers]
            if address.endswith(":0"):
                address = f"{LOOPBACK}:{free_port()}"
            # The registry is young to the servers, but nobody else can have had ids in it.
            wait_for(lambda: self.registry.ask("EXISTS", "kv:run") == b":1\r\n", "a server")
            self.registry.ask("DEL", "kv:young")
            self.balancer = Balancer(directory, address, self.ports)
            self._others.append(self.balancer)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """The servers first: what they still have to say goes through the balancer."""
        for server in self.servers:
            if server.running:
                server.process.terminate()
        for part in [*self.servers, *reversed(self._others)]:
            part.stop()

    def restart_registry(self) -> None:
        """Another run of it, without its data."""
        self._others.remove(self.registry)
        self.registry.stop()
        self.registry = self.registry.again()
        self._others.insert(0, self.registry)

    def ended(self) -> Process | None:
        """A part that has ended by itself."""
        parts = [*self.servers, *self._others]
        return next((part for part in parts if not part.running), None)


@contextlib.contextmanager
def service(directory: Path, servers: int, *options: str) -> Iterator[Service]:
    """A service, which ends with this."""
    running = Service(directory, servers, *options)
    try:
        yield running
    finally:
        running.stop()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
