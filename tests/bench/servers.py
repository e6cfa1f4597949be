"""The servers: the real one, and the same protocol core behind what people would pick instead.

    python -m tests.bench.servers NAME [--tls]      serves on a free port, which it prints

The competitors are as small as people write them. Their framing and their replies are right. They
leave out limits, deadlines, fairness and a polite close, which makes them faster. The table says
so.
"""

import asyncio
import ctypes
import importlib.util
import os
import re
import socketserver
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kv.errors import Violation
from kv.net.credentials import server_context
from kv.protocol.cipher import PrivateKey
from kv.protocol.conversation import ServerConversation, Service
from kv.protocol.messages import State, Wire
from kv.protocol.store import Store
from tests.certificates import SERVER

from .barest import serve as serve_barely
from .forty import Forty

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
BACKLOG = 1024  # as the real server's

OURS = "kv"
#: For the competitors only. asyncio asks for 256 KiB at each `recv`. glibc maps so large a block
#: and unmaps it again, page faults and all: 15 µs a message, more than all the rest, unless the
#: process happens to have freed a larger one before. That is worth knowing, but it would say
#: little about asyncio, so they are told to keep such blocks.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "4194304"}

UVLOOP = "uvloop"
FORTY = "40 lines, "
BAREST = "the barest loop"
#: The option for TLS, of competitors that are asyncio protocols.
TLS = "--tls"


def names(kind: str = "") -> list[str]:
    """The servers that can run here, the real one first; only competitors of that kind."""
    found = [OURS, *(name for name in COMPETITORS if name.startswith(kind))]
    return found if importlib.util.find_spec(UVLOOP) else [n for n in found if UVLOOP not in n]


# --- The core, as all competitors share it --------------------------------------------------


class Peer:
    """A conversation behind the shortest right framing: octets in, octets of replies out."""

    def __init__(self, service: Service) -> None:
        self.conversation = ServerConversation(service)
        self.rest = b""

    def receive(self, data: bytes) -> bytes:
        """The replies to all lines that `data` completes."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        replies = []
        for line in lines:
            try:
                reply = self.conversation.receive(line)
            except Violation:  # it is in CLOSED now
                break
            if reply:
                replies.append(reply + b"\n")
            if self.closed:
                break
        return b"".join(replies)

    def close(self) -> None:
        """The connection is gone."""
        self.conversation.close()

    @property
    def closed(self) -> bool:
        """After DISCONNECT or a violation."""
        return self.conversation.state is State.CLOSED


# --- asyncio, protocol and streams; uvloop --------------------------------------------------


class AsyncioProtocol(asyncio.Protocol):
    """What asyncio is fastest with: callbacks, no coroutine per connection."""

    def __init__(self, peer: "Peer | Forty") -> None:
        self.peer = peer

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.peer.receive(data))
        if self.peer.closed:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self.peer.close()


async def serve_protocol(peer: Callable[[], "Peer | Forty"]) -> None:
    loop = asyncio.get_running_loop()
    tls = server_context(*SERVER) if TLS in sys.argv else None
    server = await loop.create_server(
        lambda: AsyncioProtocol(peer()), HOST, 0, backlog=BACKLOG, ssl=tls
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def serve_streams(service: Service) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(service)
        try:
            while not peer.closed and (line := await reader.readline()):
                writer.write(peer.receive(line))
                await writer.drain()
        finally:
            peer.conversation.close()
            writer.close()

    server = await asyncio.start_server(talk, HOST, 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def run_protocol(service: Service) -> None:
    asyncio.run(serve_protocol(lambda: Peer(service)))


def run_forty(_: Service) -> None:
    asyncio.run(serve_protocol(Forty))


def run_streams(service: Service) -> None:
    asyncio.run(serve_streams(service))


def run_uvloop(service: Service) -> None:
    run_on_uvloop(lambda: Peer(service))


def run_forty_on_uvloop(_: Service) -> None:
    run_on_uvloop(Forty)


def run_on_uvloop(peer: Callable[[], "Peer | Forty"]) -> None:
    import uvloop  # noqa: PLC0415 (only these competitors need it)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_protocol(peer))


# --- A thread per connection ----------------------------------------------------------------


def run_threads(service: Service) -> None:
    """The store they share has no lock, which a right one would need and pay for."""

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            peer = Peer(service)
            try:
                for line in self.rfile:
                    self.wfile.write(peer.receive(line))
                    if peer.closed:
                        break
            finally:
                peer.conversation.close()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = BACKLOG

    with Server((HOST, 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


COMPETITORS = {
    "asyncio.Protocol": run_protocol,
    UVLOOP: run_uvloop,
    f"{FORTY}asyncio": run_forty,
    f"{FORTY}{UVLOOP}": run_forty_on_uvloop,
    "asyncio streams": run_streams,
    "threads": run_threads,
    BAREST: lambda _: serve_barely(HOST, BACKLOG),
}


# --- Seen from the benchmark ----------------------------------------------------------------


#: Runs a module as `python -m` does, in a process that finds no gmpy2.
PLAIN = (
    "import runpy, sys; sys.modules['gmpy2'] = None; sys.argv.pop(0);"
    " runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def plainly(arguments: list[str], plain: bool) -> list[str]:
    """What Python is told to run a module; if `plain`, without gmpy2."""
    return ["-c", PLAIN, *arguments] if plain else ["-m", *arguments]


class Process:
    """A server in a process of its own. Use as a context manager."""

    def __init__(self, name: str, plain: bool = False, tls: bool = False) -> None:
        self.name = name
        if name == OURS:  # default settings; its log says which port it was given
            arguments, extra = ["kv", "server", "--port", "0"], {}
            options = ["--tls-cert", SERVER[0], "--tls-key", SERVER[1]]
        else:
            arguments, extra, options = ["tests.bench.servers", name], MALLOC, [TLS]
        arguments += options if tls else []
        self._process = subprocess.Popen(
            [sys.executable, *plainly(arguments, plain)],
            cwd=ROOT,
            env=os.environ | extra,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().decode(errors="replace")
        found = re.search(r"(\d+)$", said)
        if not found:
            rest, _ = self._process.communicate()
            raise SystemExit(f"{name} did not start: {said}{rest.decode(errors='replace')}")
        self.port = int(found[1])
        clock = ctypes.c_int()
        error = ctypes.CDLL(None).clock_getcpuclockid(self._process.pid, ctypes.byref(clock))
        if error:
            raise OSError(error, os.strerror(error))
        self._clock = clock.value

    def cpu(self) -> float:
        """Seconds of processor time that it has used, user and system, in all its threads.

        By its CPU clock, which counts nanoseconds: /proc/PID/stat counts hundredths of a second.
        """
        return time.clock_gettime(self._clock)

    def resident(self) -> int:
        """Octets of memory that are resident."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._process.terminate()
        try:
            said = self._process.communicate(timeout=10)[0]
        except subprocess.TimeoutExpired:
            self._process.kill()
            said = self._process.communicate()[0]
        if error and issubclass(error, Exception) and said:
            print(f"\n{self.name} said:\n{said.decode(errors='replace')}", file=sys.stderr)


if __name__ == "__main__":
    wire = Wire()
    COMPETITORS[sys.argv[1]](Service(wire, PrivateKey.generate(wire.key_bits), Store()))
