"""How the arithmetic of a message grows with its length and with the keys.

No sockets: what the cipher takes to open and to seal, its checks included, in processor time. All
else that a message costs does not depend on either.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kv.protocol.cipher import OVERHEAD, PrivateKey, form


@dataclass
class Cost:
    """A text of so many blocks under keys of so many bits: seconds to open and to seal."""

    bits: int
    blocks: int
    opening: float
    sealing: float


def grow(keys: tuple[int, ...], seconds: float, progress: Callable[[], None]) -> list[Cost]:
    """The costs: of one to five blocks under the first key size, of one under the others."""
    costs = []
    for bits in keys:
        key = PrivateKey.generate(bits)
        for blocks in range(1, 6 if bits == keys[0] else 2):
            size = blocks * (form(bits).size - OVERHEAD)
            texts = [(b"%04d" % number).ljust(size, b"x") for number in range(50)]
            lines = [key.seal(text) for text in texts]
            opening = timed(key.public.open, lines, seconds)
            costs.append(Cost(bits, blocks, opening, timed(key.seal, texts, seconds)))
            progress()
    return costs


def timed(operation: Callable[[bytes], object], arguments: list[bytes], seconds: float) -> float:
    """Seconds of processor time for one call, measured for `seconds`."""
    count = 0
    start = now = time.process_time()
    while now < start + seconds:
        operation(arguments[count % len(arguments)])
        count += 1
        now = time.process_time()
    return (now - start) / count


def report(costs: list[Cost]) -> str:
    """As text."""
    lines = ["what a text costs, µs          octets  to open  to seal"]
    for cost in costs:
        size = cost.blocks * (form(cost.bits).size - OVERHEAD)
        blocks = "1 block" if cost.blocks == 1 else f"{cost.blocks} blocks"
        lines.append(
            f"  {cost.bits:5,} bits, {blocks:8} {size:13,}"
            f"{cost.opening * 1e6:9,.0f}{cost.sealing * 1e6:9,.0f}"
        )
    return "\n".join(lines)
