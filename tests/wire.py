"""A stranger's end of the wire, written from the protocol's text and from nothing in `kv/`.

Integers and `pow`, base64, blocking sockets; `rsa` makes the key pairs and does nothing else.
Every socket has a time-out, so that a server that hangs fails a test instead of hanging it.
"""

import base64
import functools
import itertools
import socket
import struct
from dataclasses import dataclass
from typing import Self

import rsa
from patience import patience
from tls_peer import TlsSocket

BLOCK = 64  #: octets of an RSA block under a 512-bit key
STEP = BLOCK - 11  #: octets of text in a full block
LONGEST_TEXT = 5 * STEP

_numbers = itertools.count(1)


def new_id(name: str = "client") -> str:
    """A client id that no other test has used."""
    return f"{name}-{next(_numbers)}"


# --- base64, DER, PKCS#1 -------------------------------------------------------------------


def to_line(octets: bytes) -> bytes:
    """The line, LF included, that carries `octets`."""
    return base64.b64encode(octets) + b"\n"


def from_line(line: bytes) -> bytes:
    """The octets in a line, which must be canonical base64 and end in LF."""
    assert line.endswith(b"\n"), f"{line!r} is not a whole line"
    octets = base64.b64decode(line[:-1], validate=True)
    assert to_line(octets) == line, f"{line!r} is not canonical base64"
    return octets


def der(tag: int, content: bytes) -> bytes:
    """One DER element: tag, shortest length, content."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def der_integer(value: int) -> bytes:
    """A DER INTEGER (for values from 0 up)."""
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def der_public_key(n: int, e: int) -> bytes:
    """A PKCS#1 RSAPublicKey."""
    return der(0x30, der_integer(n) + der_integer(e))


def parse_public_key(octets: bytes) -> tuple[int, int]:
    """`n` and `e` of a PKCS#1 RSAPublicKey in DER; asserts that it is one, to the letter."""

    def element(tag: int, octets: bytes) -> tuple[bytes, bytes]:
        assert octets[0] == tag
        size, start = octets[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(octets[2:start], "big")
        return octets[start : start + size], octets[start + size :]

    body, rest = element(0x30, octets)
    assert not rest
    modulus, body = element(0x02, body)
    exponent, body = element(0x02, body)
    assert not body
    n, e = int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")
    assert der_public_key(n, e) == octets, "the server's key is not in DER"
    return n, e


@dataclass(frozen=True)
class Key:
    """A key pair: three integers and what the protocol makes of them."""

    n: int
    e: int
    d: int

    @classmethod
    def make(cls, bits: int = 512) -> "Key":
        key = rsa.newkeys(bits)[1]
        return cls(key.n, key.e, key.d)

    @property
    def size(self) -> int:
        """Octets of one block."""
        return (self.n.bit_length() + 7) // 8

    @property
    def line(self) -> bytes:
        """The key line, LF included."""
        return to_line(der_public_key(self.n, self.e))

    def private(self, block: bytes) -> bytes:
        """The bare private-key operation on one block, whatever it contains."""
        assert len(block) == self.size
        return pow(int.from_bytes(block, "big"), self.d, self.n).to_bytes(self.size, "big")

    def block(self, part: bytes) -> bytes:
        """`part` in a block of type 01: 00 01 FF … FF 00 part."""
        return b"\x00\x01" + b"\xff" * (self.size - 3 - len(part)) + b"\x00" + part

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - keys are few and live as long as the tests
    def seal(self, octets: bytes) -> bytes:
        """The sealed line, LF included, of `octets`: any, allowed or not."""
        step = self.size - 11
        parts = [octets[i : i + step] for i in range(0, len(octets) or 1, step)]
        return to_line(b"".join(self.private(self.block(part)) for part in parts))


@functools.lru_cache(maxsize=4096)  # one key gives one line one text
def open_line(line: bytes, n: int, e: int) -> str:
    """The text of a sealed line under the public key `n`, `e`; asserts every rule about it."""
    octets, size, parts = from_line(line), (n.bit_length() + 7) // 8, []
    assert octets and len(octets) % size == 0
    for i in range(0, len(octets), size):
        sealed = int.from_bytes(octets[i : i + size], "big")
        assert sealed < n
        block = pow(sealed, e, n).to_bytes(size, "big")
        assert block[:2] == b"\x00\x01"
        zero = block.index(b"\x00", 2)
        assert zero >= 10 and block[2:zero] == b"\xff" * (zero - 2)
        parts.append(block[zero + 1 :])
    assert all(len(part) == size - 11 for part in parts[:-1])
    assert parts[-1] or len(parts) == 1
    return b"".join(parts).decode("ascii")


#: Two key pairs for all tests. Making one takes tens of milliseconds; the server does not mind
#: seeing one twice.
KEY = Key.make()
OTHER_KEY = Key.make()


# --- a connection ----------------------------------------------------------------------------


#: Whether peers speak TLS.
TLS = False


class End:
    """One end of a connection, blocking: lines that are read and written, each wait bounded."""

    def __init__(self, sock: socket.socket, key: Key) -> None:
        self.key = key
        self.socket = sock
        self.socket.settimeout(patience())
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send_raw(self, octets: bytes) -> None:
        """Sends `octets` as they are."""
        self.socket.sendall(octets)

    def seal(self, text: str) -> bytes:
        """The line, LF included, that carries `text` under this end's key."""
        return self.key.seal(text.encode("latin-1"))

    def send_text(self, *texts: str) -> None:
        """Seals and sends `texts`, all in one go."""
        self.send_raw(b"".join(map(self.seal, texts)))

    def read_line(self) -> bytes:
        """The next line, LF included; EOFError if the stream ends before its LF."""
        while (end := self._received.find(b"\n")) < 0:
            octets = self.socket.recv(65536)
            if not octets:
                raise EOFError(f"the stream ended after {bytes(self._received)!r}")
            self._received += octets
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return line

    def read_text(self) -> str:
        """The text of the next line, which must be one that the protocol allows."""
        raise NotImplementedError

    def read_texts(self, count: int) -> list[str]:
        """The next `count` texts."""
        return [self.read_text() for _ in range(count)]

    def half_close(self) -> None:
        """Ends this end's sending; what the other one sends can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Ends the connection with RST."""
        sock = getattr(self.socket, "tcp", self.socket)  # without a word of TLS
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def close(self) -> None:
        """Closes the socket."""
        self.socket.close()


class Peer(End):
    """One blocking connection to a server, from its first octet on.

    `Peer(port)` connects and sends nothing; `.handshake()` exchanges the keys; `.connect(id)`
    asks for a session. Both return the peer, so `Peer(port).handshake().connect("alice")`. With
    `small_buffers`, the server soon finds that it cannot send to a peer that does not read.
    """

    def __init__(
        self, port: int, host: str = "127.0.0.1", key: Key = KEY, small_buffers: bool = False
    ) -> None:
        super().__init__(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET), key)
        self.server_key: tuple[int, int] | None = None
        if small_buffers:
            # What a peer does not read fills the kernels' buffers first, and on loopback that
            # takes megabytes. With small segments and a small window it takes a few kilobytes.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            self.socket.connect((host, port))
        except OSError:
            self.socket.close()
            raise
        if TLS:
            self.socket = TlsSocket(self.socket)  # type: ignore[assignment]
        #: This end's port: how the server's log names the connection.
        self.port: int = self.socket.getsockname()[1]

    def handshake(self) -> "Peer":
        """Sends this end's key line and reads the server's."""
        self.send_raw(self.key.line)
        self.read_key()
        return self

    def connect(self, client_id: str) -> "Peer":
        """CONNECT under `client_id`, which must be free."""
        assert self.ask(f"CONNECT {client_id}") == "CONNECT: OK"
        return self

    def read_key(self) -> tuple[int, int]:
        """Reads the server's key line; `n` and `e`."""
        self.server_key = parse_public_key(from_line(self.read_line()))
        return self.server_key

    def read_text(self) -> str:
        """The next line, opened with the server's key."""
        assert self.server_key, "the keys have not been exchanged"
        return open_line(self.read_line(), *self.server_key)

    def ask(self, *texts: str) -> str:
        """Sends `texts` (two for a PUT and its value) and reads the one reply."""
        self.send_text(*texts)
        return self.read_text()

    def read_to_end(self) -> bytes:
        """Everything up to the server's FIN; a reset is a ConnectionResetError."""
        while octets := self.socket.recv(65536):
            self._received += octets
        received = bytes(self._received)
        self._received.clear()
        return received

    def read_texts_to_end(self) -> list[str]:
        """Every text up to the server's FIN, which must come after a whole line."""
        assert self.server_key, "the keys have not been exchanged"
        lines = self.read_to_end().splitlines(keepends=True)
        return [open_line(line, *self.server_key) for line in lines]

    def silent(self) -> bool:
        """Whether nothing has arrived: no octet, no FIN. Waits for nothing."""
        if self._received:
            return False
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(patience())
        return False


class Barrier:
    """A second client of the same server, to wait until the server has seen what was sent.

    What was sent on another connection before `wait()` has been read by the server when it
    returns, provided that this process runs on the server's machine: on loopback, `send` returns
    with the octets in the receiver's queue. The first reply may come from the same turn of the
    server's loop as that read and before it; the second request can only be seen in a later one.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.peer = Peer(port, host).handshake().connect(new_id("barrier"))

    def wait(self, turns: int = 2) -> None:
        """Returns when the server has taken at least that many turns of its loop.

        A server with work left over does some of it in every turn: for `n` messages that it has
        received, `n` turns are enough, unless it is waiting for their sender.
        """
        self.peer.socket.settimeout(patience())
        for _ in range(turns):
            assert self.peer.ask("GET nothing") == "GET: ERROR"

    def close(self) -> None:
        """Closes the connection."""
        self.peer.close()


# --- what a server must refuse ---------------------------------------------------------------


def _not_below_the_modulus(key: Key) -> bytes:
    """A command whose block is right but for having the modulus added to it once."""
    for number in itertools.count():
        block = key.private(key.block(b"GET %d" % number))
        raised = int.from_bytes(block, "big") + key.n
        if raised < 1 << (8 * key.size):
            return to_line(raised.to_bytes(key.size, "big"))
    raise AssertionError("unreachable")


def _with_spare_bits(line: bytes) -> bytes:
    """The same octets in base64, one of the unused bits before the padding set."""
    body = line.rstrip(b"=\n")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(body[-1]) + 1]
    return body[:-1] + bytes([last]) + line[len(body) :]


def bad_texts() -> dict[str, bytes]:
    """By name: octets that are no message when sealed properly."""
    return {
        "unknown verb": b"HELLO",
        "unknown verb with an argument": b"PATCH x",
        "lower-case verb": b"get x",
        "mixed-case verb": b"Put x",
        "lower-case disconnect": b"disconnect",
        "DISCONNECT with an argument": b"DISCONNECT x",
        "DISCONNECT and a space": b"DISCONNECT ",
        "CONNECT without an id": b"CONNECT",
        "CONNECT with an empty id": b"CONNECT ",
        "PUT without a key": b"PUT",
        "PUT with an empty key": b"PUT ",
        "GET without a key": b"GET",
        "GET with an empty key": b"GET ",
        "DELETE without a key": b"DELETE",
        "DELETE with an empty key": b"DELETE ",
        "space before the verb": b" GET x",
        "tab after the verb": b"GET\tx",
        "no space after the verb": b"GETx",
        "empty text": b"",
        "a reply": b"PUT: OK",
        "non-ASCII octet": b"GET caf\xe9",
        "UTF-8": "GET café".encode(),
        "LF in the text": b"GET a\nb",
        "LF at the end of the text": b"GET a\n",
    }


def bad_lines(key: Key = KEY) -> dict[str, bytes]:
    """By name: lines, LF included, that carry no text under `key`, whatever the state."""
    good = key.seal(b"GET x")
    block = from_line(good)
    second = key.private(key.block(b"x" * STEP))
    ones = b"\x00\x01" + b"\xff" * 10

    def sealed(block: bytes) -> bytes:
        return to_line(key.private(block.ljust(key.size, b"x")[: key.size]))

    return {
        "empty line": b"\n",
        "command that is not sealed": b"GET x\n",
        "not base64": b"!!!!\n",
        "octets that are not ASCII": b"\xff\xfe\x00\x80\n",
        "base64 without its padding": good.rstrip(b"=\n") + b"\n",
        "base64 with too much padding": good[:-1] + b"=\n",
        "base64 with a space in it": good[:40] + b" " + good[40:],
        "base64 with spare bits": _with_spare_bits(good),
        "base64 of the URL alphabet": b"-_" + good[2:],
        "CR before the LF": good[:-1] + b"\r\n",
        "block short of an octet": to_line(block[1:]),
        "block and an octet": to_line(block + b"x"),
        "block and half a block": to_line(block + block[:32]),
        "block not below the modulus": _not_below_the_modulus(key),
        "block sealed by another key": OTHER_KEY.seal(b"GET x"),
        "block of zeros": to_line(bytes(key.size)),
        "block type 00": sealed(b"\x00\x00" + bytes(10) + b"\x00GET x"),
        "block type 02": sealed(b"\x00\x02" + b"\xff" * 56 + b"\x00GET x"),
        "first octet not 00": sealed(b"\x01\x01" + b"\xff" * 56 + b"\x00GET x"),
        "seven FF octets": sealed(b"\x00\x01" + b"\xff" * 7 + b"\x00GET "),
        "padding that is not all FF": sealed(b"\x00\x01" + b"\xff" * 55 + b"\xfe\x00GET x"),
        "no 00 after the padding": sealed(ones + b"\xff" * 60),
        "short block in the middle": to_line(block + second),
        "empty last block": to_line(second + key.private(key.block(b""))),
        "second key line": key.line,
        "line too long": b"A" * 4096 + b"\n",
    }


def bad_messages(key: Key = KEY) -> dict[str, bytes]:
    """By name: everything that a session must be dropped for when it is the next command."""
    texts = {name: key.seal(text) for name, text in bad_texts().items()}
    return texts | bad_lines(key)


def bad_key_lines() -> dict[str, bytes]:
    """By name: first lines, LF included, that are no 512-bit PKCS#1 public key."""
    n, e = KEY.n, KEY.e
    good = der_public_key(n, e)
    modulus, exponent = der_integer(n), der_integer(e)
    oid = bytes.fromhex("300d06092a864886f70d0101010500")
    long_form = b"\x30\x82" + len(modulus + exponent).to_bytes(2, "big") + modulus + exponent
    negative = der(0x02, n.to_bytes(64, "big"))  # its first bit is a sign bit, and set
    padded = der(0x02, b"\x00\x00" + n.to_bytes(64, "big"))
    return {
        "empty line": b"\n",
        "command instead of a key": b"CONNECT alice\n",
        "sealed command instead of a key": KEY.seal(b"CONNECT alice"),
        "not base64": b"****\n",
        "octets that are not ASCII": b"\xff\xfe\n",
        "DER that is no key": to_line(der(0x30, b"")),
        "DER cut short": to_line(good[:-1]),
        "DER of one integer": to_line(der(0x30, modulus)),
        "DER of three integers": to_line(der(0x30, modulus + exponent + exponent)),
        "octet after the DER": to_line(good + b"\x00"),
        "long-form length": to_line(long_form),
        "length of 2^64 - 1 octets": to_line(b"\x30\x0a\x02\x88" + b"\xff" * 8),
        "integer with a needless zero": to_line(der(0x30, padded + exponent)),
        "negative modulus": to_line(der(0x30, negative + exponent)),
        "indefinite length": to_line(b"\x30\x80" + modulus + exponent + b"\x00\x00"),
        "SubjectPublicKeyInfo": to_line(der(0x30, oid + der(0x03, b"\x00" + good))),
        "modulus of 504 bits": to_line(der_public_key(n >> 8, e)),
        "modulus of 511 bits": to_line(der_public_key(n >> 1, e)),
        "modulus of 513 bits": to_line(der_public_key(n << 1, e)),
        "modulus of 1024 bits": to_line(der_public_key(n * n, e)),
        "exponent 0": to_line(der_public_key(n, 0)),
        "exponent 1": to_line(der_public_key(n, 1)),
        "even exponent": to_line(der_public_key(n, 65536)),
        "exponent 3": to_line(der_public_key(n, 3)),
        "exponent 17": to_line(der_public_key(n, 17)),
        "exponent of 32 bits": to_line(der_public_key(n, 2**32 - 1)),
        "even modulus": to_line(der_public_key(n - 1, e)),
        "exponent of 33 bits": to_line(der_public_key(n, 2**32 + 1)),
        "base64 without its padding": KEY.line.rstrip(b"=\n") + b"\n",
        "base64 with a space in it": KEY.line[:10] + b" " + KEY.line[10:],
        "CR before the LF": KEY.line[:-1] + b"\r\n",
        "line too long": b"A" * 4096 + b"\n",
    }
