"""The protocol in forty lines, as one writes it who has an afternoon and trusts every peer.

It remembers without bound what it has opened and sealed, checks no padding and no base64, has no
limit, no deadline and one owner for each id at best. What our server costs beside it is what its
promises cost; behind the same core (`Peer` in `servers`), what its loop costs.
"""

from binascii import a2b_base64, b2a_base64
from typing import ClassVar

import rsa

KEY = rsa.newkeys(512)[1]
PREFIX = b"\x00\x01" + b"\xff" * 8


def seal(text: bytes) -> bytes:
    """A text's line."""
    blocks = []
    for start in range(0, len(text) or 1, 53):
        part = text[start : start + 53]
        block = int.from_bytes(b"\x00\x01".ljust(63 - len(part), b"\xff") + b"\x00" + part, "big")
        blocks.append(KEY.blinded_decrypt(block).to_bytes(64, "big"))
    return b2a_base64(b"".join(blocks))


class Forty:
    """One connection: octets in, octets of replies out."""

    fixed: ClassVar = {text: seal(text) for text in (b"PUT: OK", b"GET: ERROR", b"DELETE: OK")}

    def __init__(self) -> None:
        self.rest, self.n, self.key, self.closed = b"", 0, b"", False
        self.values: dict[bytes, bytes] = {}
        self.opened: dict[bytes, bytes] = {}
        self.sealed: dict[bytes, bytes] = {}

    def close(self) -> None:
        """Its id, if it had one, was never anybody's alone."""

    def open(self, line: bytes) -> bytes:
        sealed, text = a2b_base64(line), b""
        for start in range(0, len(sealed), 64):
            block = pow(int.from_bytes(sealed[start : start + 64], "big"), 65537, self.n)
            text += block.to_bytes(64, "big")[2:].partition(b"\x00")[2]
        return text

    def receive(self, data: bytes) -> bytes:
        *lines, self.rest = (self.rest + data).split(b"\n")
        return b"".join(map(self.answer, lines))

    def answer(self, line: bytes) -> bytes:
        if not self.n:
            self.n = rsa.PublicKey.load_pkcs1(a2b_base64(line), "DER").n
            return b2a_base64(rsa.PublicKey(KEY.n, KEY.e).save_pkcs1("DER"))
        text = self.opened.get(line)
        if text is None:
            text = self.opened[line] = self.open(line)
        if self.key:
            self.values[self.key], self.key = text, b""
            return self.fixed[b"PUT: OK"]
        verb, _, argument = text.partition(b" ")
        if verb == b"GET":
            value = self.values.get(argument)
            if value is None:
                return self.fixed[b"GET: ERROR"]
            if value not in self.sealed:
                self.sealed[value] = seal(value)
            return self.sealed[value]
        if verb == b"PUT":
            self.key = argument
            return b""
        if verb == b"DELETE":
            self.values.pop(argument, None)
            return self.fixed[b"DELETE: OK"]
        self.closed = verb == b"DISCONNECT"
        return seal(verb + b": OK")
