"""A simulated history as a page: `make simulate SEED=n REPLAY=page.html`.

The server is watched by the same trace as in real life. From the world come the kernel's buffers,
and what clients and network do. As no work takes time here, each thing is drawn as if it took 2 µs.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from kv.watch.events import Figures, read
from kv.watch.replay import Lane, page
from kv.watch.trace import Trace

from .kernel import Failure, Selector
from .sockets import Socket
from .wishes import Wish
from .world import World, run

#: Seconds that each thing takes, for the picture.
TICK = 2e-6
#: A line of a world's trace: who, and what.
SAID = re.compile(r" *[\d.]+  ([a-z]+ \d+(?:/fd \d+)?|\S+) +(.*)", re.DOTALL)
#: What the trace itself tells of the server's end of a connection.
TOLD = re.compile(r"recv|send|close|shutdown|accepted|setsockopt")


class Show(list[str]):
    """Stands where a world's trace is: what it says becomes part of the page."""

    def __init__(self, wishes: list[Wish]) -> None:
        super().__init__()
        self._wishes = wishes
        self._world: World | None = None
        self._last = 0.0
        self.trace: Trace | None = None

    def begin(self, world: World) -> None:
        """The world is there."""
        self._world = world
        for wish in self._wishes:
            wish.begin(world)

    def clock(self) -> float:
        """Seconds since the world began."""
        now = self._world.kernel.now - 1000 if self._world is not None else 0.0
        self._last = max(self._last + TICK, now)
        return self._last

    def append(self, line: str) -> None:
        """Tells what clients, network and kernel do."""
        super().append(line)
        found = SAID.fullmatch(line)
        if found is None or self.trace is None or self._world is None:
            return
        name, what = found.groups()
        if name == "log" or TOLD.match(what):
            return
        sockets = {client.name: client.socket for client in self._world.clients}
        track = self.trace.name(sockets.get(name.partition("/")[0])) or "world"
        told = what if track != "world" else f"{name} {what}"
        self.trace.tell(track, "peer" if track != "world" else "world", told)


def kernel_of(sock: Socket) -> Figures:
    """The kernel's two buffers, and their limits."""
    limits: Any = {"arrived": sock.receive_size, "undelivered": sock.send_size}
    return {"arrived": len(sock.unread), "undelivered": len(sock.undelivered), "limits": limits}


def show(seed: int, wishes: list[Wish], title: str) -> tuple[str, str]:
    """The page, and what went wrong. Raises `ValueError` for wishes that the seed cannot have."""
    told, wrong = Show(wishes), ""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        file = path.open("w")
        kinds: dict[str, Any] = {"sockets": (Socket,), "selectors": (Selector,)}
        trace = Trace(False, file, clock=told.clock, kernel=kernel_of, **kinds)
        try:
            told.trace = trace
            run(seed, told, told.begin, trace)
        except Failure as failure:
            wrong = f"An invariant does not hold: {failure}"
        finally:
            told.trace = None
        events, _ = read(path)
    return page(title, [Lane(events)], wrong), wrong
