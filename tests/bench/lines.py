"""Messages, sealed before anything is measured.

Sealing takes a private-key operation, 200 µs or so, and forty thousand lines are needed. Three
things make that a matter of seconds:

- One key pair serves all connections: a client chooses its key, and nothing forbids two clients
  the same one. So a prepared line can be sent on any connection.
- The modulus has eight primes (RFC 8017, section 3.1, allows that), and the private-key operation
  is twice as fast through eight small remainders as through two. Any child could factor such a
  modulus; to a server it looks like any other.
- There is no blinding: nobody is timing us.

Every text fits one block, so every line has the same length, and any number of consecutive lines
is one slice of the whole.
"""

import math
from binascii import b2a_base64

import rsa.prime

from kv.protocol.cipher import EXPONENT, OVERHEAD, PublicKey, form
from kv.protocol.messages import Wire

WIRE = Wire()
FORM = form(WIRE.key_bits)
BLOCK = FORM.size
#: Octets of a line that carries one block, LF included.
WIDTH = (BLOCK + 2) // 3 * 4 + 1
PRIMES = 8


class Sealer:
    """The client's key pair."""

    def __init__(self) -> None:
        primes: list[int] = []
        while math.prod(primes).bit_length() != WIRE.key_bits:
            primes = [_prime(WIRE.key_bits // PRIMES) for _ in range(PRIMES - 1)]
            primes.append(_prime(WIRE.key_bits - math.prod(primes).bit_length()))
        self.public = PublicKey(math.prod(primes), FORM)
        self.key_line = self.public.to_line() + b"\n"
        # For each prime p: the exponent modulo p - 1, and the multiple of all other primes that
        # is 1 modulo p.
        self._parts = []
        for p in primes:
            others = self.public.n // p
            exponent = pow(EXPONENT, -1, p - 1)
            self._parts.append((p, exponent, others * pow(others, -1, p)))

    def seal(self, text: str) -> bytes:
        """The line, LF included, that carries `text`, which must fit one block."""
        assert len(text) <= BLOCK - OVERHEAD, f"{text!r} is longer than a block"
        octets = text.encode("ascii")
        padded = b"\x00\x01".ljust(BLOCK - 1 - len(octets), b"\xff") + b"\x00" + octets
        block = int.from_bytes(padded, "big")
        total = sum(pow(block, exponent, p) * basis for p, exponent, basis in self._parts)
        sealed = (total % self.public.n).to_bytes(BLOCK, "big")
        return b2a_base64(sealed)


def _prime(bits: int) -> int:
    """A prime that EXPONENT has an inverse for."""
    while True:
        prime = rsa.prime.getprime(bits)
        if (prime - 1) % EXPONENT:
            return prime


def opened(server: PublicKey, line: bytes) -> str:
    """The text of a server's line, LF included."""
    return server.open(line[:-1]).decode("ascii")
