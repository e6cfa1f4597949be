"""Cuts what a client sends in the clear into records, and checks their lengths (51).

Generic, and optional, as `tls` is. A message begins with its length, and OpenSSL sets aside that
much memory. So OpenSSL gets whole records only, and none of a message longer than any real one.
"""

from collections.abc import Iterator

from kv.net.owner import TlsError

#: Octets of plaintext in the largest record (RFC 8446, section 5.1).
RECORD = 16 * 1024
#: Octets of a record's header, and the most that sealing may add (section 5.2).
HEADER, SEAL = 5, 256
#: The first octet of a handshake record, and of every record that may come in the clear.
HANDSHAKE_RECORD = 22
CLEAR_KINDS = {20, 21, 22, 23}
#: This record says nothing. Clients send it for boxes on the way that know TLS 1.2 only, and a
#: receiver drops it (section 5). To give it to OpenSSL would cost one more call in each handshake.
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"
#: Octets of the largest ClientHello that the server takes. Real ones have 250 to 2,000. OpenSSL
#: takes 128 KiB, and sets that memory aside when 9 octets announce such a message (51).
LARGEST_HELLO = 8 * 1024

NOT_TLS = "the peer does not speak TLS"


class ClearRecords:
    """The records of one client, until its handshake is over."""

    __slots__ = ("_left", "rest")

    def __init__(self) -> None:
        self.rest = bytearray()  # a record that is not complete
        self._left = 0  # octets still to come of a message that has begun

    def cut(self, octets: bytes) -> Iterator[bytes]:
        """The records that are complete now. Raises `TlsError` at a wrong one."""
        self.rest += octets
        if self.rest and self.rest[0] not in CLEAR_KINDS:
            raise TlsError(NOT_TLS)
        while len(self.rest) >= HEADER:
            size = int.from_bytes(self.rest[3:HEADER])
            if size > RECORD + SEAL:
                raise TlsError("the peer sent a record that is too long")
            if len(self.rest) < HEADER + size:
                break
            record = bytes(self.rest[: HEADER + size])
            del self.rest[: HEADER + size]
            if record[0] == HANDSHAKE_RECORD:
                self._look_at(record[HEADER:])
            if record != CHANGE_CIPHER_SPEC:
                yield record

    def _look_at(self, messages: bytes) -> None:
        while messages:
            if not self._left:
                announced = int.from_bytes(messages[1:4])
                if len(messages) < 4 or announced > LARGEST_HELLO:
                    raise TlsError("the peer announced a handshake message that is too long")
                self._left = 4 + announced
            here = min(self._left, len(messages))
            self._left -= here
            messages = messages[here:]
