"""The caller's end: what `Client.pipeline()` makes of one key, in the client's own process.

The client remembers sealed lines, so asking for the same keys again costs no arithmetic. A new
command costs one private-key operation for each block, and that is the limit.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from kv import Client, PrivateKey

#: Different keys that are asked for again and again.
KEYS = 100


@dataclass
class Use:
    """One way to use the library: commands per second of this process's processor time."""

    title: str
    rate: float
    share: float  # of the private-key operations that the same process does a second


def use(port: int, rounds: int, count: int, progress: Callable[[], None]) -> list[Use]:
    """Measures both ways, in so many rounds of `count` new commands each."""
    key = PrivateKey.generate()
    again: list[tuple[float, float]] = []
    new: list[tuple[float, float]] = []
    with Client(port=port, client_id="caller", key=key) as client:
        client.pipeline().execute()
        for number in range(KEYS):
            client.put(f"key {number}", f"value {number}")
        for round_ in range(rounds):
            texts = [f"GET bare {round_} {number}".encode() for number in range(count)]
            bare = count / seconds(lambda texts=texts: [key.seal(text) for text in texts])
            for rates, names in (
                (again, [f"key {number % KEYS}" for number in range(20 * count)]),
                (new, [f"new {round_} {number}" for number in range(count)]),
            ):
                rate = len(names) / seconds(lambda names=names: ask(client, names))
                rates.append((rate, rate / bare))
            progress()
    return [
        Use(title, median(rate for rate, _ in rates), median(share for _, share in rates))
        for title, rates in ((f"GETs of {KEYS} keys, again and again", again), ("new GETs", new))
    ]


def ask(client: Client, names: list[str]) -> None:
    """One pipeline."""
    pipeline = client.pipeline()
    for name in names:
        pipeline.get(name)
    pipeline.execute()


def seconds(call: Callable[[], object]) -> float:
    """Of processor time that `call` took."""
    start = time.process_time()
    call()
    return time.process_time() - start


def report(uses: list[Use]) -> str:
    """As text."""
    lines = ["one caller, Client.pipeline()             commands/CPU s  x private-key operations"]
    lines += [f"  {use.title:40}{use.rate:14,.0f}{use.share:26.2f}" for use in uses]
    return "\n".join(lines)
