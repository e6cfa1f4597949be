"""The PROXY protocol: who is behind a connection that a balancer has passed on.

Sans-I/O, generic, and optional. A balancer connects to us itself, so each client seems to have the
balancer's address. So it can begin each connection with a header that says whose it is: a line of
text (version 1) or a block of octets (version 2). Anybody can write such a header. It is believed
from balancers alone, and there it must be: without it, the first line of the client would be taken
for one. The specification is HAProxy's, doc/proxy-protocol.txt.
"""

import re
import socket
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from kv.net.address import Address

Network = IPv4Network | IPv6Network

#: Octets of the longest header, of version 1 (section 2.1) and of version 2: with it may come what
#: a balancer knows about TLS, which we do not read.
LONGEST_LINE, LONGEST = 107, 2048

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Octets before the addresses.
FIXED = 16
LOCAL, PROXY = 0x20, 0x21  # version 2, and what is said
#: Family and transport: octets of one address.
TCP4, TCP6 = 0x11, 0x21
FAMILIES = {TCP4: socket.AF_INET, TCP6: socket.AF_INET6}
SIZES = {TCP4: 4, TCP6: 16}
#: Version 1, without its end: addresses, then ports.
TCP = re.compile(rb"PROXY TCP([46]) ([^ ]+) ([^ ]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})")
#: What else may stand there: unknown, UDP, UNIX sockets. The address is then the sender's.
OTHERS = {family << 4 | transport for family in range(4) for transport in range(3)}


class BadHeader(ValueError):
    """It is no header of the PROXY protocol."""


def parse(octets: bytes) -> tuple[int, Address | None] | None:
    """How many octets the header has, and the client's address; None if more is to come.

    Without an address, the sender speaks for itself. Raises `BadHeader`.
    """
    if octets[: len(SIGNATURE)] == SIGNATURE[: len(octets)]:
        return block(octets) if len(octets) >= FIXED else None
    if octets[:6] != b"PROXY "[: len(octets)]:
        raise BadHeader("it begins with no PROXY header")
    end = octets.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0:
        if len(octets) >= LONGEST_LINE:
            raise BadHeader("its PROXY header has no end")
        return None
    return end + 2, line(octets[:end])


def block(octets: bytes) -> tuple[int, Address | None] | None:
    """As `parse`, for version 2."""
    said, kind, size = octets[12], octets[13], int.from_bytes(octets[14:16])
    if said not in (LOCAL, PROXY) or FIXED + size > LONGEST:
        raise BadHeader("its PROXY header is not one of version 2")
    if len(octets) < FIXED + size:
        return None
    if said == LOCAL or (kind in OTHERS and kind not in SIZES):
        return FIXED + size, None
    if kind not in SIZES or size < 2 * SIZES[kind] + 4:
        raise BadHeader("its PROXY header has a kind of address that there is not")
    host = socket.inet_ntop(FAMILIES[kind], octets[FIXED : FIXED + SIZES[kind]])
    start = FIXED + 2 * SIZES[kind]
    return FIXED + size, address(host, int.from_bytes(octets[start : start + 2]))


def line(octets: bytes) -> Address | None:
    """The client's address in a header of version 1, without its end."""
    if octets.split(b" ")[1] == b"UNKNOWN":
        return None
    found = TCP.fullmatch(octets)
    try:
        if found is None:
            raise ValueError
        version, source, destination, *ports = (word.decode() for word in found.groups())
        family = FAMILIES[TCP4 if version == "4" else TCP6]
        socket.inet_pton(family, destination)
        host = socket.inet_ntop(family, socket.inet_pton(family, source))
        port, to = map(int, ports)
        if max(port, to) > 0xFFFF:
            raise ValueError
    except (OSError, ValueError) as error:
        raise BadHeader("its PROXY header has no addresses") from error
    return address(host, port)


def address(host: str, port: int) -> Address:
    """As `accept` gives it."""
    return (host, port, 0, 0) if ":" in host else (host, port)


def networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, with commas between them. Raises `ValueError`."""
    return tuple(ip_network(part.strip()) for part in text.split(","))


def within(where: Address, allowed: tuple[Network, ...]) -> bool:
    """Whether it is one of these; IPv4 that comes to an IPv6 socket counts as IPv4."""
    host = ip_address(where[0].partition("%")[0])
    host = getattr(host, "ipv4_mapped", None) or host
    return any(host in network for network in allowed)
