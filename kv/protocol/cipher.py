"""RSA keys, and the step between a text's octets and the line that carries them.

Sans-I/O: no sockets, no clock, no notion of a command. This is the only module that imports
`rsa` (archived upstream), so that it can be replaced in one place. A line here never includes
its LF.

What the protocol calls sealing is the RSA private-key operation on a PKCS#1 v1.5 block of type
01 (RFC 2313, section 8.1), what other libraries call a raw signature or `privateEncrypt`:

    00 01 FF … FF 00 D        k octets in all; at least eight FF, so D has at most k - 11

The padding has no randomness: under one key, one text has exactly one sealed line. Opening
enforces that to the letter, so nobody can send the same text in two guises.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass

import rsa
from pyasn1.error import PyAsn1Error

from kv.errors import Violation

#: Octets of a block that are not text: 00 01, at least eight FF, 00 (RFC 2313, section 8.1).
OVERHEAD = 11
PREFIX = b"\x00\x01" + b"\xff" * 8


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The key that opens what its owner sealed: modulus `n`, exponent `e`."""

    n: int
    e: int

    @classmethod
    def from_line(cls, line: bytes, bits: int) -> "PublicKey":
        """The key in a key line: base64 of a DER RSAPublicKey (RFC 8017, A.1.1) of `bits` bits.

        Parsers forgive (trailing octets, long-form lengths, base64 with spare bits), so the key
        is encoded again and compared: a key has one line. Raises `Violation`.
        """
        try:
            parsed = rsa.PublicKey.load_pkcs1(a2b_base64(line), "DER")
            key = cls(int(parsed.n), int(parsed.e))
            canonical = key.to_line()
        except (ValueError, OverflowError, PyAsn1Error) as error:
            raise Violation("the key line is not base64 of a PKCS#1 RSAPublicKey") from error
        if canonical != line:
            raise Violation("the key line is not the one DER and base64 text of its key")
        if key.n < 0:
            raise Violation("the modulus is negative")
        if key.n.bit_length() != bits:
            raise Violation(f"the modulus has {key.n.bit_length()} bits, not {bits}")
        if not (3 <= key.e < 2**32 and key.e % 2):
            raise Violation("the public exponent is not an odd number from 3 to 2^32 - 1")
        return key

    def to_line(self) -> bytes:
        """The key line, without LF."""
        return b2a_base64(rsa.PublicKey(self.n, self.e).save_pkcs1("DER"), newline=False)

    def open(self, line: bytes) -> bytes:
        """The octets that the owner of this key sealed into `line`; raises `Violation`."""
        try:
            sealed = a2b_base64(line)
        except Base64Error as error:
            raise Violation(f"the line is not base64: {error}") from error
        if b2a_base64(sealed, newline=False) != line:
            raise Violation("the line is not canonical base64")
        size = block_size(self.n.bit_length())
        if not sealed or len(sealed) % size:
            raise Violation(f"{len(sealed)} sealed octets are not whole blocks of {size}")
        parts = [
            self._open_block(int.from_bytes(sealed[start : start + size], "big"), size)
            for start in range(0, len(sealed), size)
        ]
        if any(len(part) != size - OVERHEAD for part in parts[:-1]):
            raise Violation("a block before the last is not full")
        if len(parts) > 1 and not parts[-1]:
            raise Violation("the last block is empty")
        return b"".join(parts)

    def _open_block(self, sealed: int, size: int) -> bytes:
        if sealed >= self.n:
            raise Violation("a block is not below the modulus")
        block = pow(sealed, self.e, self.n).to_bytes(size, "big")
        padding, zero, octets = block[len(PREFIX) :].partition(b"\x00")
        if not block.startswith(PREFIX) or not zero or padding.strip(b"\xff"):
            raise Violation("a block's padding is wrong, or another key sealed it")
        return octets


class PrivateKey:
    """The key that seals. Making one takes about 35 ms at 512 bits: never inside the reactor."""

    __slots__ = ("_key", "_size", "public")

    def __init__(self, key: rsa.PrivateKey) -> None:
        self._key = key
        self._size = block_size(key.n.bit_length())
        self.public = PublicKey(key.n, key.e)

    @classmethod
    def generate(cls, bits: int = 512) -> "PrivateKey":
        """A new key whose modulus has exactly `bits` bits."""
        return cls(rsa.newkeys(bits)[1])

    @property
    def bits(self) -> int:
        """The size of the modulus in bits."""
        return self._key.n.bit_length()

    def seal(self, octets: bytes) -> bytes:
        """The one line, without LF, that carries `octets` (of any length) under this key."""
        step = self._size - OVERHEAD
        parts = [octets[start : start + step] for start in range(0, len(octets) or 1, step)]
        return b2a_base64(b"".join(map(self._seal_block, parts)), newline=False)

    def _seal_block(self, part: bytes) -> bytes:
        block = b"\x00\x01".ljust(self._size - 1 - len(part), b"\xff") + b"\x00" + part
        # The name says decrypt; the arithmetic is m^d mod n either way. This one takes the
        # Chinese remainder path, which is twice as fast as `blinded_encrypt`, and blinds, so
        # that its duration tells nothing about the key.
        sealed = self._key.blinded_decrypt(int.from_bytes(block, "big"))
        return sealed.to_bytes(self._size, "big")


def block_size(bits: int) -> int:
    """k, the octets of one RSA block under a modulus of `bits` bits (RFC 8017, section 2)."""
    return (bits + 7) // 8
