"""RSA keys, and the step between a text's octets and the line that carries them.

Sans-I/O: no sockets, no clock, no commands. Only this module imports `rsa` (archived upstream), so
`rsa` can be replaced in one place. Only this module uses `gmpy2`, if it is installed. A line here
never includes its LF.

Sealing is the RSA private-key operation on a PKCS#1 v1.5 block of type 01 (RFC 2313, section 8.1).
Other libraries call it a raw signature, or `privateEncrypt`. A block is:

    00 01 FF … FF 00 D        k octets in all; at least eight FF, so D has at most k - 11

The padding has no randomness: under one honestly made key, one text has exactly one sealed line.
Opening checks every octet of the padding, so nobody can send the same text in two forms.
"""

import functools
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import rsa

from kv.errors import Violation

try:
    import gmpy2
except ImportError:
    gmpy2 = None

#: Octets of a block that are not text: 00 01, at least eight FF, 00 (RFC 2313, section 8.1).
OVERHEAD = 11
#: The only public exponent, and the default of every library. With 3, anybody who has the public
#: key can forge a block. One of 32 bits costs the receiver four times as much.
EXPONENT = 65537
#: The largest key, in bits. A larger one takes minutes to make.
LARGEST = 4096

# --- arithmetic ------------------------------------------------------------------------------

#: `power` raises a base to a public exponent, modulo a modulus. `private_operation` uses the
#: private key. Without gmpy2 it is that of `rsa`, which blinds: it raises a random number instead,
#: so the time that it takes says nothing about the key.
power: Callable[[int, int, int], int] = pow
ARITHMETIC = "pure Python"


def private_operation(key: rsa.PrivateKey) -> Callable[[int], int]:
    """M -> m^d mod n under `key`, by the Chinese remainder theorem (RFC 8017, section 5.1.2)."""
    # The name says decrypt; the arithmetic is the same either way.
    return key.blinded_decrypt


if gmpy2 is not None:
    power = gmpy2.powmod
    ARITHMETIC = f"gmpy2 {gmpy2.version()}"

    def private_operation(key: rsa.PrivateKey) -> Callable[[int], int]:
        """The same with gmpy2."""
        p, q, exp1, exp2, coef = map(gmpy2.mpz, (key.p, key.q, key.exp1, key.exp2, key.coef))
        # The time of `powmod` depends on the bits of the exponent, which is secret here. Peers can
        # measure how long a reply takes. `powmod_sec` does the same steps for all bits, and takes
        # half as long again.
        secret_power = gmpy2.powmod_sec

        def operation(number: int) -> int:
            rest = secret_power(number, exp2, q)
            return int(rest + (secret_power(number, exp1, p) - rest) * coef % p * q)

        return operation


# --- keys ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Form:
    """What all keys of one size have in common."""

    bits: int
    size: int  # k, the octets of a block (RFC 8017, section 2)
    prefix: bytes  # of the DER, before the octets of the modulus
    suffix: bytes  # after them: the exponent
    padding: bytes  # 01 FF FF …, for an empty text: from the first 00 of a block to the second
    paddings: frozenset[bytes]  # for a text of any length


@functools.cache
def form(bits: int) -> Form:
    """The form of keys of `bits` bits, a multiple of 8.

    An RSAPublicKey (RFC 8017, A.1.1) is SEQUENCE { INTEGER n, INTEGER e }. The first bit of n is
    set, so an octet 00 stands before it. Everything but the octets of n is fixed.
    """
    size = bits // 8
    suffix = b"\x02\x03" + EXPONENT.to_bytes(3)
    modulus = b"\x02" + der_length(size + 1) + b"\x00"
    prefix = b"\x30" + der_length(len(modulus) + size + len(suffix)) + modulus
    padding = b"\x01".ljust(size - 2, b"\xff")
    paddings = frozenset(padding[:end] for end in range(OVERHEAD - 2, size - 1))
    return Form(bits, size, prefix, suffix, padding, paddings)


def der_length(size: int) -> bytes:
    """A length in DER: one octet below 128. Otherwise the number of its octets, and then these."""
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([0x80 | len(octets)]) + octets


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The key that opens what its owner sealed: a modulus, and the form of keys of its size."""

    e: ClassVar[int] = EXPONENT
    n: int
    form: Form

    @classmethod
    def from_line(cls, line: bytes, bits: int) -> "PublicKey":
        """The key in a key line: base64 of a DER RSAPublicKey (RFC 8017, A.1.1) of `bits` bits.

        One key has one line, so comparing octets is enough, and nothing is parsed. Raises
        `Violation`.
        """
        shape = form(bits)
        octets = decoded(line)
        start, end = len(shape.prefix), len(shape.prefix) + shape.size
        if octets[:start] != shape.prefix:
            kind = f"one of {bits} bits with the exponent {EXPONENT}"
            raise Violation(f"the key is not {kind}: its DER begins differently")
        if octets[end:] != shape.suffix:
            raise Violation(f"the key's DER does not end with the exponent {EXPONENT}")
        if not octets[start] & 0x80:
            raise Violation(f"the modulus has fewer than {bits} bits")
        if not octets[end - 1] & 1:
            raise Violation("the modulus is even")
        return cls(int.from_bytes(octets[start:end]), shape)

    def to_line(self) -> bytes:
        """The key line, without LF."""
        shape = self.form
        octets = shape.prefix + self.n.to_bytes(shape.size) + shape.suffix
        return b2a_base64(octets, newline=False)

    def open(self, line: bytes) -> bytes:
        """The octets that the owner of this key sealed into `line`; raises `Violation`."""
        sealed = decoded(line)
        size = self.form.size
        if len(sealed) == size:  # nearly every message has one block, and needs no lists
            return self._open_block(sealed)
        if not sealed or len(sealed) % size:
            raise Violation(f"{len(sealed)} sealed octets are not whole blocks of {size}")
        parts = [
            self._open_block(sealed[start : start + size]) for start in range(0, len(sealed), size)
        ]
        if any(len(part) != size - OVERHEAD for part in parts[:-1]):
            raise Violation("a block before the last is not full")
        if not parts[-1]:
            raise Violation("the last block is empty")
        return b"".join(parts)

    def _open_block(self, sealed: bytes) -> bytes:
        modulus, shape = self.n, self.form
        number = int.from_bytes(sealed)
        if number >= modulus:
            raise Violation("a block is not below the modulus")
        try:  # without the first octet, which is 00
            block = power(number, EXPONENT, modulus).to_bytes(shape.size - 1)
        except OverflowError:
            block = b""
        padding, _, part = block.partition(b"\x00")
        if padding not in shape.paddings:
            raise Violation("a block's padding is wrong, or another key sealed it")
        return part


class PrivateKey:
    """The key that seals. Making one takes about 35 ms at 512 bits: never inside the reactor."""

    __slots__ = ("_operation", "bits", "public")

    def __init__(self, key: rsa.PrivateKey) -> None:
        self._operation = private_operation(key)
        #: The size of the modulus in bits.
        self.bits = key.n.bit_length()
        self.public = PublicKey(key.n, form(self.bits))

    @classmethod
    def generate(cls, bits: int = 512) -> "PrivateKey":
        """A new key whose modulus has exactly `bits` bits. `ValueError` if that takes minutes."""
        if bits > LARGEST:
            raise ValueError(f"a key of {bits} bits takes minutes to make: use at most {LARGEST}")
        return cls(rsa.newkeys(bits, exponent=EXPONENT)[1])

    def seal(self, octets: bytes) -> bytes:
        """The one line, without LF, that carries `octets` (of any length) under this key.

        Raises `ArithmeticError` if the machine or the program has computed a wrong result.
        """
        step = self.public.form.size - OVERHEAD
        parts = [octets[start : start + step] for start in range(0, len(octets) or 1, step)]
        return b2a_base64(b"".join(map(self._seal_block, parts)), newline=False)

    def _seal_block(self, part: bytes) -> bytes:
        shape, n = self.public.form, self.public.n
        block = int.from_bytes(shape.padding[: shape.size - 2 - len(part)] + b"\x00" + part)
        sealed = self._operation(block)
        # A flipped bit in memory can make a result right modulo one prime and wrong modulo the
        # other. With the text, such a result gives the primes away, by one greatest common divisor.
        # So each sealed block is opened again before it leaves.
        if power(sealed, EXPONENT, n) != block:
            raise ArithmeticError("a sealed block cannot be opened again: the arithmetic failed")
        return sealed.to_bytes(shape.size)


def decoded(line: bytes) -> bytes:
    """The octets in a line. Raises `Violation` unless the line is their one base64."""
    try:
        octets = a2b_base64(line)
    except Base64Error as error:
        raise Violation(f"the line is not base64: {error}") from error
    if b2a_base64(octets, newline=False) != line:
        raise Violation("the line is not canonical base64")
    return octets


def key_line_size(bits: int) -> int:
    """The octets of a key line with its LF, for keys of `bits` bits."""
    shape = form(bits)
    return (len(shape.prefix) + shape.size + len(shape.suffix) + 2) // 3 * 4 + 1


def work(bits: int) -> tuple[int, int]:
    """What one block costs to open and to seal, in units of about 1 µs, at least 1.

    The public exponent takes the same number of steps for every size. The cost of a step grows
    nearly as the square of the size. The private exponent takes a step for each bit. The figures
    were measured from 512 to 4096 bits, and include the check of each sealed block.
    """
    ratio = bits / 512
    if gmpy2 is None:
        opening, sealing = 15 * ratio**1.75, 255 * ratio**2.5
    else:
        opening, sealing = 3 * ratio**1.6, 50 * ratio**2.35
    return max(1, round(opening)), max(1, round(sealing))
