"""What a reader wants to see happen, besides what a seed decides: a small language.

    reset 3 at 0.5; short-send 2; emfile at 1 for 2; stop 4 at 2

A wish is a verb, the number of a client where it is about one, and when: seconds since the world
began. The same seed with the same wishes is the same history, wherever it is run.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World

WISH = re.compile(r"([a-z-]+)(?: (\d+))?(?: at (\d+(?:\.\d+)?))?(?: for (\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Wish:
    """One of them; `number` is 0 where no client is meant."""

    verb: str
    number: int
    at: float
    lasts: float

    def begin(self, world: "World") -> None:
        """Sees to it that it happens. Raises `ValueError` if there is no such client."""
        if self.number > len(world.clients):
            raise ValueError(
                f"there is no client {self.number}: this seed has {len(world.clients)}"
            )
        world.kernel.at(self.at, lambda: self._happen(world))

    def _happen(self, world: "World") -> None:
        kernel, client = world.kernel, world.clients[self.number - 1]
        if self.verb == "term":
            world.terminate()
        elif self.verb == "emfile":
            kernel.say("kernel", f"has no descriptor left for {self.lasts:g} s")
            kernel.exhausted_by, kernel.exhausted_until = "EMFILE", kernel.now + self.lasts
        elif not client.arrived or client.gone:
            kernel.say(client.name, f"is not there, so no {self.verb}")
        elif self.verb == "short-send":
            kernel.say(client.name, "from now on, send takes no more than half")
            client.socket.halves = True
        elif self.verb == "stop":
            kernel.say(client.name, "stops reading")
            client.reading, client.disturbed = False, client.disturbed or "it was told to stop"
        elif self.verb == "read":
            kernel.say(client.name, "reads on")
            client.read_on()
        else:
            acts: dict[str, Callable[[], None]]
            acts = {"reset": client.reset, "vanish": client.vanish, "close": client.close}
            acts[self.verb]()


#: Each verb: whether it is about a client, and what it means.
VERBS = {
    "reset": (True, "the client resets its connection"),
    "vanish": (True, "the client is gone without a packet"),
    "close": (True, "the client leaves"),
    "stop": (True, "the client stops reading"),
    "read": (True, "the client reads again"),
    "short-send": (True, "send to the client takes no more than half of what it is given"),
    "emfile": (False, "no descriptor is left, for a second or as long as `for` says"),
    "term": (False, "the server gets SIGTERM"),
}


def parse(text: str) -> list[Wish]:
    """The wishes in a text. Raises `ValueError`, with a sentence, if one makes no sense."""
    return [wish(part.strip()) for part in text.split(";") if part.strip()]


def wish(text: str) -> Wish:
    verb = text.partition(" ")[0]
    if verb not in VERBS:
        raise ValueError(f"{text!r}: there is no {verb!r}; there is {', '.join(VERBS)}")
    found, about = WISH.fullmatch(" ".join(text.split())), VERBS[verb][0]
    if found is None or bool(found[2]) != about or (found[4] and verb != "emfile"):
        like = f"{verb}{' 3' if about else ''} at 0.5{' for 2' if verb == 'emfile' else ''}"
        raise ValueError(f"{text!r} makes no sense: say it like {like!r}")
    if about and int(found[2]) == 0:
        raise ValueError(f"{text!r}: clients are counted from 1")
    return Wish(verb, int(found[2] or 0), float(found[3] or 0), float(found[4] or 1))
