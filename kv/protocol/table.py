"""A mapping from text to text that never does much at once.

Sans-I/O: knows nothing of sessions, limits or clocks. A table behaves as a `dict`. You can skip
this module, and read `dict` where `Table` is used.

Some facts about dicts. When a dict grows, one assignment moves all its entries to a larger table.
With a million entries that takes tens of milliseconds, and in a loop with one thread everybody
waits. When a dict shrinks, it gives no memory back. And where entries of many sizes come and go,
the few that stay pin the memory of the others. CPython's allocator takes pools of 16 KiB, each for
blocks of one size, and a pool is free only when it is empty. A peer that knows this can make a
process many times larger than its data.

So a table consists of many small dicts, the buckets, and works on one of them at a time. To grow
and shrink it uses *linear hashing* (Litwin, 1980), which splits and merges buckets one by one in a
fixed order. To give memory back it has `copy_bucket`.
"""

from collections.abc import Iterator, MutableMapping
from typing import Any

#: Entries in a bucket, on average. Copying so few takes about ten microseconds. So many make the 64
#: octets of the bucket itself a small part.
LOAD = 32


class Table(MutableMapping[str, str]):
    """A dict in buckets. Keys and values are ASCII."""

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
        """How many buckets there are."""
        return len(self._buckets)

    def drop_bucket(self) -> None:
        """Frees the last bucket: one of many steps to free everything. Nothing else works then."""
        self._buckets.pop()

    def copy_bucket(self, number: int) -> None:
        """Copies a bucket's entries to other memory, so that the old pools become empty."""
        self._buckets[number] = {
            key.encode("ascii").decode("ascii"): value.encode("ascii").decode("ascii")
            for key, value in self._buckets[number].items()
        }

    # The last bits of a key's hash are the number of its bucket. Between _round and 2 * _round
    # buckets, some are already split in this round: their keys need one bit more.

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
