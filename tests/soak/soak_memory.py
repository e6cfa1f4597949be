"""Resident memory against --max-memory: at most one and a half times, whatever is stored.

Each pattern runs in a process of its own, over nothing but a `Store`, which is what could grow
without bound. Some were made to make CPython's allocator look bad, which keeps a block of memory
for as long as one object in it lives. Needs /proc. Run as a program, it runs the pattern it is
given.
"""

import itertools
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kv.protocol.store import Session, Store

ROOT = Path(__file__).resolve().parents[2]
CAPACITY = 64 << 20
SIZES = range(16, 258, 16)  # one of each of CPython's size classes
KEEP = 50  # of what is deleted, every so manieth stays


def text(number: int, size: int) -> str:
    """A new string of so many octets, or a few more; different for each number."""
    return str(number).rjust(size, "x") if size else ""


def fill(session: Session, key: int, value: int, first: int = 0) -> int:
    """Stores keys and values of so many octets until there is no room; the next number."""
    for number in itertools.count(first):
        if not session.put(text(number, key), text(number, value)):
            return number
    raise AssertionError("unreachable")


def thin_out(session: Session, keys: list[str]) -> None:
    """Deletes all of `keys` but a few."""
    for number, key in enumerate(keys):
        if number % KEEP:
            session.delete(key)


# --- the patterns ----------------------------------------------------------------------------


def tiny_entries(store: Store) -> None:
    fill(begin(store), 4, 0)


def large_entries(store: Store) -> None:
    fill(begin(store), 258, 265)


def all_sizes(store: Store) -> None:
    session = begin(store)
    for number in itertools.count():
        if not session.put(text(number, 6 + number % 250), text(number, number * 7 % 266)):
            return


def many_sessions(store: Store) -> None:
    while store.used < store.capacity - 1300:
        begin(store).put("k", text(len(store), 6))


def overwritten(store: Store) -> None:
    session = begin(store)
    count = fill(session, 6, 2) // 3
    for key in list(session.values)[count:]:
        session.delete(key)
    for size in range(4, 240, 4):
        for number in range(count):
            session.put(text(number, 6), text(size, size))


def emptied_and_filled_again(store: Store) -> None:
    for size in range(0, 260, 13):
        session = begin(store)
        fill(session, 6, size)
        for key in list(session.values):
            session.delete(key)


def ended_and_filled_again(store: Store) -> None:
    for size in range(0, 260, 13):
        session = begin(store)
        fill(session, 6, size)
        store.end(session)


def thinned_out(store: Store) -> None:
    session, count = begin(store), 0
    for size in SIZES:
        count = fill(session, 12, size, count)
        thin_out(session, [k for k, v in session.values.items() if len(v) == size])


def thinned_out_keys(store: Store) -> None:
    session, count = begin(store), 0
    for size in SIZES:
        count = fill(session, size, size, count)
        thin_out(session, [k for k in session.values if len(k) == size])


def thinned_out_sessions(store: Store) -> None:
    count = 0
    for size in SIZES:
        session = begin(store)
        count = fill(session, size, size, count)
        thin_out(session, list(session.values))


def thinned_out_while_filled(store: Store) -> None:
    session = begin(store)
    count = fill(session, 12, 0)
    old = range(count)
    for size in SIZES:
        first = count
        for number in old:
            if number % KEEP:
                session.delete(text(number, 12))
            count += session.put(text(count, 12), text(count, size))
        old = range(first, count)


def changed_at_random(store: Store) -> None:
    rng, session = random.Random(1), begin(store)
    count = fill(session, 12, 100)
    for _ in range(40):
        size = rng.randrange(266)
        for _ in range(count // 3):
            session.put(text(rng.randrange(count), 12), text(1, size))


def remembered_lines(store: Store) -> None:
    sessions = [begin(store) for _ in range(3000)]
    numbers = itertools.count()
    for size in range(50, 420, 16):
        for session in sessions:
            for number in itertools.islice(numbers, 40):
                line = text(number, size)
                session.remember(line[: size // 2] + str(number), line.encode(), line.encode())
        for session in (s for number, s in enumerate(sessions) if number % KEEP):
            session.answers.clear()


def begin(store: Store) -> Session:
    """A new session."""
    session = store.begin(f"client {len(store)}")
    assert session is not None
    return session


PATTERNS: dict[str, Callable[[Store], None]] = {
    pattern.__name__: pattern
    for pattern in (
        *(tiny_entries, large_entries, all_sizes, many_sessions, overwritten),
        *(
            emptied_and_filled_again,
            ended_and_filled_again,
            thinned_out,
            thinned_out_keys,
            thinned_out_sessions,
        ),
        *(thinned_out_while_filled, changed_at_random, remembered_lines),
    )
}


@pytest.mark.parametrize("name", PATTERNS)
def test_resident_memory_stays_within_one_and_a_half_times_the_limit(name: str) -> None:
    command = [sys.executable, "-m", "tests.soak.soak_memory", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ratio = float(done.stdout)
    print(f"\n    {name}: {ratio:.2f} times the limit")
    assert ratio <= 1.5


def resident() -> int:
    """Octets of memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    before = resident()
    store = Store(CAPACITY)
    PATTERNS[sys.argv[1]](store)
    print((resident() - before) / CAPACITY)
