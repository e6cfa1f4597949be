"""Where it goes wrong: finds that step among the events of a scenario with the usual code.

Each way to fall has such a rule (`Pitfall.wrong`). It is about what happened, so it finds a step with
the usual code, and none with this project's.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from kv.watch.events import Event

Rule: TypeAlias = str | Callable[[list[Event]], int | None]


def moment(rule: Rule, events: list[Event]) -> int | None:
    """The index of the step at which it goes wrong. A text is a pattern, as `seen` takes it."""
    return (seen(rule) if isinstance(rule, str) else rule)(events)


def seen(pattern: str, times: int = 1, after: str | None = None) -> Rule:
    """Finds the step at which "who verb text" matches for so many times, after another one did."""

    def found(events: list[Event]) -> int | None:
        left, begun = times, after is None
        for i, event in enumerate(events):
            told = f"{event.track} {event.verb} {event.text}"
            if begun and re.search(pattern, told):
                left -= 1
                if not left:
                    return i
            begun = begun or bool(re.search(str(after), told))
        return None

    return found


def above(figure: str, limit: int) -> Rule:
    """Finds where a figure is above a limit."""

    def found(events: list[Event]) -> int | None:
        sizes = ((i, event.now.get(figure)) for i, event in enumerate(events))
        return next((i for i, size in sizes if isinstance(size, int) and size > limit), None)

    return found


def in_a_turn(pattern: str, limit: int) -> Rule:
    """Finds where somebody has done so more often than `limit` in one turn."""

    def found(events: list[Event]) -> int | None:
        done: Counter[str] = Counter()
        for i, event in enumerate(events):
            if event.verb == "sleep":
                done.clear()
            done[event.track] += bool(re.search(pattern, f"{event.verb} {event.text}"))
            if done[event.track] > limit:
                return i
        return None

    return found


def spins(events: list[Event]) -> int | None:
    """Finds the third turn in a row that has found somebody ready, and has done nothing."""
    idle, busy, woken = 0, False, False
    for i, event in enumerate(events):
        if event.verb == "sleep":
            idle = idle + 1 if woken and not busy else 0
            woken, busy = bool(event.now.get("woken")), False
            if idle == 3:
                return i
        busy = busy or event.track not in ("loop", "listener")
    return None


def never(pattern: str) -> Rule:
    """Finds the end, if nothing has matched until then."""
    return lambda events: None if seen(pattern)(events) is not None else len(events) - 1
