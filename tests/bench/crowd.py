"""A few busy sessions among ten thousand: what the idle ones cost, and whom.

Of the real server only. Two of it run: one has the crowd, the other just the busy ones, and they
take turns. What is asked for is hot and one in flight: there is no arithmetic to hide behind, so
whatever the loop has to do per descriptor shows.
"""

import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from .load import connect, drive
from .rows import Prepared, Result, Row, Scale, Side, begin_hot, measure
from .servers import OURS, Process

#: Descriptors that this process needs besides those of the crowd.
RESERVED = 1_000

AMONG = f"{OURS}, among the idle"
ALONE = f"{OURS}, alone"


@dataclass
class Crowd:
    """What was found. Had one session been refused, there would be an exception instead."""

    sessions: int  # the busy ones among them
    wanted: int
    connecting: float  # seconds, for all
    memory: float  # octets of resident memory for each session, while all are idle
    idle_cpu: float  # seconds of processor time for each second of idleness
    result: Result


def affordable(sessions: int) -> int:
    """How many sessions this process can have descriptors for; raises its limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = sessions + RESERVED if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, sessions + RESERVED), hard))
    return min(sessions, limit - RESERVED)


def gather(prepared: Prepared, progress: Callable[[], None]) -> Crowd:
    """Fills a server with idle sessions, and measures."""
    scale: Scale = prepared.scale
    sessions = affordable(scale.sessions)
    with ExitStack() as stack:
        crowded = stack.enter_context(Process(OURS))
        alone = Side.of(stack.enter_context(Process(OURS)), prepared)
        stack.callback(alone.close)
        empty = crowded.resident()
        start = time.perf_counter()
        everybody = Side(
            crowded, connect(crowded.port, prepared.sealer, prepared.connects[:sessions])
        )
        stack.callback(everybody.close)
        connecting = time.perf_counter() - start
        memory = (crowded.resident() - empty) / sessions
        progress()
        cpu = crowded.cpu()
        time.sleep(scale.idle)
        idle_cpu = (crowded.cpu() - cpu) / scale.idle
        progress()
        among = Side(crowded, everybody.connections[-scale.connections :])
        row = Row(
            f"GET hot, 1 in flight, {scale.connections} busy among {sessions:,}",
            lambda side, _: drive(side.connections, scale.seconds),
            lambda sides: begin_hot(prepared, sides, 1),
        )
        result = measure(row, {AMONG: among, ALONE: alone}, scale, progress)
    return Crowd(sessions, scale.sessions, connecting, memory, idle_cpu, result)
