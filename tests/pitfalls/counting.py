"""Counts how many octets a stream searches and copies in its own memory.

While `counting()`, what the sockets of this process receive, and the buffers that a stream makes,
are `bytes` and `bytearray` that keep count.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any
from unittest import mock


class Count:
    """The count, and the operations that add to it."""

    octets = 0

    def count(self, octets: Any) -> Any:
        """Adds the length of `octets`, and returns them."""
        Count.octets += len(octets)
        return octets

    def __contains__(self: Any, mark: Any) -> bool:
        found: int = self.find(mark)
        Count.octets += len(self) if found < 0 else found + 1
        return found >= 0

    def __add__(self, more: Any) -> Any:
        return type(self)(self.count(super().__add__(more)))  # type: ignore[misc]

    def __bytes__(self: Any) -> bytes:
        return Bytes(self.count(bytearray(self)))

    def split(self: Any, mark: bytes, most: int = -1) -> list[Any]:
        """As `bytes.split`; every octet is searched, and copied into one of the parts."""
        self.count(self)
        return [type(self)(part) for part in super().split(mark, most)]  # type: ignore[misc]


class Bytes(Count, bytes):
    """What `recv` returns."""


class Array(Count, bytearray):
    """What a stream collects octets in."""

    def __iadd__(self, more: Any) -> Any:
        return super().__iadd__(self.count(more))


@contextlib.contextmanager
def counting() -> Iterator[type[Count]]:
    """Counts, from 0 on."""
    recv = socket.socket.recv
    with (
        mock.patch.object(socket.socket, "recv", lambda *args: Bytes(recv(*args))),
        mock.patch("kv.net.lines.bytearray", Array),
    ):
        Count.octets = 0
        yield Count
