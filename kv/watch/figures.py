"""The figures of a connection at a moment, and sentences about their changes."""

from collections.abc import Callable, Iterator
from typing import Any

from kv.net.directions import Hold, deadline
from kv.net.owner import Limits
from kv.net.reactor import READ, WRITE, Registration
from kv.net.stream import Stream
from kv.protocol.conversation import ServerConversation
from kv.watch.events import Figure, Figures

#: Readiness, in words.
INTEREST = {0: "nothing", READ: "read", WRITE: "write", READ | WRITE: "read, write"}

#: For each hold, a sentence when it begins, and one when it ends.
HELD = {
    "PEER": ("its peer does not take the replies", "its peer has taken the replies"),
    "TURN": ("it waits for its turn", "its turn has come"),
    "OWNER": ("the answer comes from elsewhere", "the answer is there"),
}

#: What timers wait for, by what they call; the others by its name.
WAITS = {"handshake_timed_out": "handshake limit", "idled": "idle limit"}
WAITS |= {"timed_out": "limit", "cut_short": "stop limit"}


class Look:
    """An open connection, and the objects that its figures come from."""

    def __init__(
        self,
        stream: Stream,
        registration: Registration,
        limits: Limits,
        kernel: Callable[[], Figures],
    ) -> None:
        self.stream = stream
        self.talk: ServerConversation | None = None
        self._registration = registration
        self._kernel = kernel
        self._limits: dict[str, float] = {
            "line": limits.line_size,
            "lines": limits.line_size + limits.read_size,
            "unsent": limits.high_water,
        }

    def figures(self) -> Figures:
        """The connection's figures now: those of `FIGURES` that are known."""
        stream, kernel = self.stream, self._kernel()
        line, lines = stream.kept
        limits = self._limits | kernel.pop("limits", {})  # type: ignore[operator]
        now: Figures = {
            "in": stream.transport.incoming.name,
            "out": stream.transport.outgoing.name,
            "holds": ", ".join(str(hold.name) for hold in Hold(stream.holds)),
            "line": line,
            "lines": lines,
            "unsent": stream.unsent,
            "handled": stream.lines,
            "limits": limits,
        }
        interest = self._registration.interest
        now |= {"interest": INTEREST[interest], "why": why(interest, now)}
        if self.talk is not None:
            now |= {"state": str(self.talk.state), "name": self.talk.client_id}
        return now | kernel

    def due(self) -> str:
        """What the stream's timer is for."""
        stream = self.stream
        due = deadline(stream.transport.incoming, stream.transport.outgoing, bool(stream.unsent))
        return f"{due.name.lower()} check" if due else "end check"


def sentences(before: Figures, now: Figures) -> Iterator[tuple[str, str, dict[str, Figure]]]:
    """Verb, text and figures of each change that gets a sentence of its own."""
    old, new = (set(str(one.get("holds", "")).split(", ")) - {""} for one in (before, now))
    for name in sorted(new - old):
        then = "" if name == "TURN" else "; nothing is read"
        yield "hold", f"{name}: {HELD[name][0]}{then}", {"holds": now["holds"]}
    for name in sorted(old - new):
        yield "go on", f"{name}: {HELD[name][1]}", {"holds": now["holds"]}
    for name, verb in (("state", "state"), ("in", "incoming"), ("out", "outgoing")):
        # When the connection ends, both directions end, which needs no sentence.
        over = name == "out" and (now["in"], now["out"]) == ("ENDED", "BROKEN")
        if name in before and before[name] != now[name] and not over:
            yield verb, f"{before[name]} -> {now[name]}", {name: now[name]}


def why(interest: int, now: Figures) -> list[str]:
    """The reasons for the readiness that a connection asks for, or does not: read, and write."""
    if now["in"] == "ENDED":
        reading = "its peer has ended its side"
    elif now["in"] == "DISCARDING":
        reading = "what comes is thrown away"
    elif now["holds"]:
        held = HELD[str(now["holds"]).partition(", ")[0]][0]
        reading = f"still, though {held}" if interest & READ else held
    else:
        reading = "lines may come" if interest & READ else "it reads when its turn comes"
    asked = "replies are unsent" if interest & WRITE else "the replies go out in this turn"
    idle = "although all is sent" if interest & WRITE else "all is sent"
    return [reading, asked if now["unsent"] else idle]


def duration(microseconds: float) -> str:
    """A duration in the unit that fits."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.1f} {unit}"
    return f"{microseconds:.0f} µs"


def named(callback: Any) -> str:
    """What a timer is for, from the name of what it calls."""
    name: str = callback.__qualname__.rpartition(".")[2].strip("_<>")
    return WAITS.get(name, name.replace("_", " "))
