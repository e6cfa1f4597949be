"""A mapping from text to text that never does much at once.

Sans-I/O: knows nothing of sessions, limits or clocks.

Some facts about dicts. One that grows moves all its entries to a larger table in a single
assignment: for a million of them that takes tens of milliseconds, and in a loop with one thread
everybody waits. One that shrinks gives nothing back. And where entries of many sizes come and go,
the few that stay pin the memory that the others had: CPython's allocator takes pools of 16 KiB,
each for blocks of one size, and a pool goes back only when it is empty. A peer that knows this can
make a process many times larger than what it holds.

So here are many small dicts, and whatever has to be done to all entries is done to one of these
at a time: growing and shrinking by *linear hashing* (Litwin, 1980), which splits and merges them
one by one in a fixed order, and giving back memory by `copy_bucket`.
"""

from collections.abc import Iterator, MutableMapping
from typing import Any

#: Entries to a bucket on average: few enough to copy in some ten microseconds, enough to make the
#: bucket's own 64 octets small.
LOAD = 32


class Table(MutableMapping[str, str]):
    """A dict in buckets; key and value are ASCII."""

    __slots__ = ("_buckets", "_count", "_round")

    def __init__(self) -> None:
        self._buckets: list[dict[str, str]] = [{}]
        self._round = 1  # the largest power of two that is at most len(_buckets)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for bucket in self._buckets:
            yield from bucket

    def __getitem__(self, key: str) -> str:
        return self._bucket(key)[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value under `key`, or `default`; what is inherited raises and catches `KeyError`."""
        return self._bucket(key).get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._bucket(key)

    def __setitem__(self, key: str, value: str) -> None:
        bucket = self._bucket(key)
        before = len(bucket)
        bucket[key] = value
        self._count += len(bucket) - before
        if self._count > LOAD * len(self._buckets):
            self._split()

    def __delitem__(self, key: str) -> None:
        del self._bucket(key)[key]
        self._count -= 1
        if self._count < LOAD // 4 * (len(self._buckets) - 1):
            self._merge()

    @property
    def buckets(self) -> int:
        """How many there are to copy."""
        return len(self._buckets)

    def drop_bucket(self) -> None:
        """Forgets the last bucket, as the first step of many to forget everything."""
        self._buckets.pop()

    def copy_bucket(self, number: int) -> None:
        """Moves a bucket's entries to where the allocator has room, and so empties its pools."""
        self._buckets[number] = {
            key.encode("ascii").decode("ascii"): value.encode("ascii").decode("ascii")
            for key, value in self._buckets[number].items()
        }

    # A key belongs in the bucket that the last bits of its hash name. Between _round and
    # 2 * _round buckets, those split already in this round are told apart by one bit more.

    def _bucket(self, key: object) -> dict[str, str]:
        number = hash(key) & (2 * self._round - 1)
        if number >= len(self._buckets):
            number -= self._round
        return self._buckets[number]

    def _split(self) -> None:
        """Makes one bucket of the round into two."""
        number = len(self._buckets) - self._round
        bucket = self._buckets[number]
        self._buckets.append({})
        if len(self._buckets) == 2 * self._round:
            self._round *= 2
        self._buckets[number] = {}
        for key, value in bucket.items():
            self._bucket(key)[key] = value

    def _merge(self) -> None:
        """Undoes the last split."""
        last = self._buckets.pop()
        if len(self._buckets) < self._round:
            self._round //= 2
        self._buckets[len(self._buckets) - self._round].update(last)
