"""Several servers behind a balancer, with one registry: what they bring, what a claim costs.

Client, servers, balancer and registry share this machine's cores. So the rates by the clock stop
growing when those are busy. The processor time of each part goes on telling: how many servers, and
how much of a balancer and of a registry, a service of any size needs.
"""

import ctypes
import itertools
import os
import socket
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from kv.registry.claims import BATCH
from kv.registry.resp import Act, request
from tests.service import parts

from .load import Script, connect, converse, drive
from .rows import PIPELINED, Prepared

PARTS = ("servers", "balancer", "registry")
#: Client ids whose memory is measured.
ID = "client-{:09}"


@dataclass
class Several:
    """So many servers; rates a second by the clock, costs in seconds of processor time."""

    servers: int
    conversations: float
    commands: float
    conversation_costs: dict[str, float]  # of one conversation, by part


@dataclass
class Found:
    """All that was found."""

    cores: int
    rows: list[Several]
    alone: float  # what a conversation costs a server without registry and balancer, as above
    memory: float  # octets in the registry for one id
    claim: float  # seconds of the registry's processor time for one id, 64 to a request
    renewal: float  # the same


def cpu_clock(process: parts.Process) -> int:
    """The clock of a process's processor time."""
    clock = ctypes.c_int()
    if error := ctypes.CDLL(None).clock_getcpuclockid(process.process.pid, ctypes.byref(clock)):
        raise OSError(error, os.strerror(error))
    return clock.value


def used(clocks: list[int]) -> float:
    """Seconds of processor time."""
    return sum(map(time.clock_gettime, clocks))


def measure(prepared: Prepared, progress: Callable[[], None]) -> Found | None:
    """Measures; None where the programs are missing."""
    if parts.missing():
        return None
    scale = prepared.scale
    rows = []
    for number in scale.services:
        with service(number) as running:
            rows.append(several(prepared, running))
        progress()
    with service(1) as running, ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = parts.Plain(directory / "plain.log")
        stack.callback(plain.stop)
        port = parts.wait_for(plain.port, "a server")
        alone = conversations(prepared, port, {"server": [cpu_clock(plain)]})[1]["server"]
        kept = remember(running.registry, scale.ids)
        progress()
    return Found(parts.cores(), rows, alone, *kept)


@contextmanager
def service(number: int) -> Iterator[parts.Service]:
    """One with so many servers."""
    with (
        tempfile.TemporaryDirectory() as directory,
        parts.service(Path(directory), number) as running,
    ):
        yield running


def several(prepared: Prepared, running: parts.Service) -> Several:
    """One row."""
    scale = prepared.scale
    clocks = {
        "servers": [cpu_clock(server) for server in running.servers],
        "balancer": [cpu_clock(running.balancer)],
        "registry": [cpu_clock(running.registry)],
    }
    rate, costs = conversations(prepared, running.balancer.port, clocks)
    connects = prepared.connects[: scale.connections]
    connections = connect(running.balancer.port, prepared.sealer, connects)
    script = Script(prepared.cold, ["GET: ERROR"], PIPELINED)
    apart = scale.cold // scale.connections
    for i, connection in enumerate(connections):
        connection.begin(script, i * apart * script.size % script.length)
    rounds = [drive(connections, scale.seconds) for _ in range(scale.rounds)]
    for connection in connections:
        connection.sock.close()
    commands = median(figures.count / figures.seconds for figures in rounds)
    return Several(len(running.servers), rate, commands, costs)


def conversations(
    prepared: Prepared, port: int, clocks: dict[str, list[int]]
) -> tuple[float, dict[str, float]]:
    """From connect to disconnect: how many a second, and what one costs each part."""
    scale = prepared.scale
    ids = itertools.cycle(prepared.connects)
    before = {part: used(each) for part, each in clocks.items()}
    lines = prepared.sealer.key_line, ids, prepared.disconnect
    figures = converse(port, *lines, scale.connections, 3 * scale.seconds)
    costs = {part: (used(each) - before[part]) / figures.count for part, each in clocks.items()}
    return figures.count / figures.seconds, costs


def remember(registry: parts.Registry, ids: int) -> tuple[float, float, float]:
    """Octets that one of so many ids takes in the registry, and what to claim and renew it costs.

    The costs are in seconds of its processor time.
    """
    before, clock = memory_of(registry), cpu_clock(registry)
    costs = []
    with socket.create_connection((parts.LOOPBACK, registry.port)) as sock:
        replies = sock.makefile("rb")
        for act in (Act.CLAIM, Act.RENEW):
            begun = time.clock_gettime(clock)
            for first in range(0, ids, BATCH):
                names = [ID.format(number) for number in range(first, min(first + BATCH, ids))]
                tokens = [f"0123456789abcdef:{number}" for number in range(len(names))]
                sock.sendall(request(act, names, tokens, 3600))
                assert replies.readline() == b"+%b\r\n" % (b"1" * len(names))
            costs.append((time.clock_gettime(clock) - begun) / ids)
    return (memory_of(registry) - before) / ids, costs[0], costs[1]


def memory_of(registry: parts.Registry) -> int:
    """Octets that its data take."""
    (line,) = (
        line for line in registry.ask("INFO", "memory").split() if line.startswith(b"used_memory:")
    )
    return int(line.partition(b":")[2])


def report(found: Found) -> str:
    """As text."""
    lines = [
        f"several servers behind haproxy with one registry, {found.cores} cores for all of it",
        f"{'CPU µs of a conversation':>68}",
        f"  {'':11}{'conversations/s':>17}{'commands/s':>12}"
        + "".join(f"{part:>10}" for part in PARTS),
    ]
    for row in found.rows:
        name = f"{row.servers} server{'s' if row.servers > 1 else ''}"
        costs = "".join(f"{row.conversation_costs[part] * 1e6:10.0f}" for part in PARTS)
        lines.append(f"  {name:11}{row.conversations:17,.0f}{row.commands:12,.0f}{costs}")
    text = (
        f"A conversation costs a server without registry and balancer {found.alone * 1e6:.0f} µs."
        f" An id takes {found.memory:.0f} octets in the registry. 64 to a request, a claim costs"
        f" the registry {found.claim * 1e6:.2f} µs and a renewal {found.renewal * 1e6:.2f} µs."
    )
    return "\n".join([*lines, "", *textwrap.wrap(text, 98)])
