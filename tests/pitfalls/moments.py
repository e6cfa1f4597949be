"""Where it goes wrong: finds that step among the events of a scenario with the usual code.

Each way to fall that happens in the loop has such a rule (`Pitfall.wrong`). It is about what
happened: it finds a step with the usual code, and none with this project's.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from kv.watch.events import Event

Found: TypeAlias = int | None
Rule: TypeAlias = str | Callable[[list[Event]], Found]


def moment(rule: Rule, events: list[Event]) -> Found:
    """The index of the step at which it goes wrong. A text is a pattern, as `seen` takes it."""
    return (seen(rule) if isinstance(rule, str) else rule)(events)


def matches(pattern: str, event: Event) -> bool:
    """Whether "who verb text" of an event has something like `pattern` in it."""
    return bool(re.search(pattern, f"{event.track} {event.verb} {event.text}"))


def seen(
    pattern: str, times: int = 1, after: str = "", unless: str = "^$"
) -> Callable[[list[Event]], Found]:
    """Finds the step at which it matches for so many times, after one thing and before another."""

    def found(events: list[Event]) -> Found:
        left, begun = times, not after
        for i, event in enumerate(events):
            if matches(unless, event):
                break
            left -= begun and matches(pattern, event)
            if not left:
                return i
            begun = begun or matches(after, event)
        return None

    return found


def never(pattern: str, times: int = 1, after: str = "") -> Rule:
    """Finds the end, if `seen` finds nothing."""
    return lambda events: None if seen(pattern, times, after)(events) else len(events) - 1


def without(pattern: str, then: str) -> Rule:
    """Finds the end of a turn in which the one thing happened, and the other did not follow."""

    def found(events: list[Event]) -> Found:
        due = False
        for i, event in enumerate(events):
            if due and event.verb == "sleep":
                return i
            due = (due or matches(pattern, event)) and not matches(then, event)
        return None

    return found


def above(figure: str, limit: int, together: bool = False) -> Rule:
    """Finds where a figure of somebody, or of all together, is above a limit."""

    def found(events: list[Event]) -> Found:
        sizes: Counter[str] = Counter()
        for i, event in enumerate(events):
            if isinstance(size := event.now.get(figure), int):
                sizes[event.track] = size
            if (sizes.total() if together else sizes[event.track]) > limit:
                return i
        return None

    return found


def in_a_turn(pattern: str, limit: int) -> Rule:
    """Finds where it has matched more often than `limit` in one turn."""

    def found(events: list[Event]) -> Found:
        done = 0
        for i, event in enumerate(events):
            done = 0 if event.verb == "sleep" else done + matches(pattern, event)
            if done > limit:
                return i
        return None

    return found


def slow(seconds: float) -> Rule:
    """Finds the end of a turn that has taken longer."""
    turns = lambda event: event.verb == "turn" and (event.lasted or 0) > 1e6 * seconds  # noqa: E731
    return lambda events: next((i for i, event in enumerate(events) if turns(event)), None)


def spins(events: list[Event]) -> Found:
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


def loses(events: list[Event]) -> Found:
    """Finds where more octets stop being unsent than were sent."""
    unsent: Counter[str] = Counter()
    for i, event in enumerate(events):
        left = event.now.get("unsent")
        if not isinstance(left, int):
            continue
        sent = re.match(r"(\d+) of", event.text) if event.verb == "send" else None
        if left < unsent[event.track] - int(sent[1] if sent else 0):
            return i
        unsent[event.track] = left
    return None


def forgotten(events: list[Event]) -> Found:
    """Finds a sleep of which nobody is woken, while somebody's lines wait without a reason."""
    waiting: Counter[str] = Counter()
    held: dict[str, object] = {}
    for i, event in enumerate(events):
        if isinstance(size := event.now.get("lines"), int):
            waiting[event.track] = size
        held[event.track] = event.now.get("holds", held.get(event.track))
        if event.verb == "sleep" and not event.now.get("woken"):
            if any(size and not held[who] for who, size in waiting.items()):
                return i
    return None
