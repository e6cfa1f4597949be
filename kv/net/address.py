"""Internet addresses: names to addresses, addresses to text."""

import socket

#: (host, port) for IPv4, (host, port, flow information, scope id) for IPv6.
Address = tuple[str, int] | tuple[str, int, int, int]


def resolve(host: str, port: int) -> list[tuple[int, Address]]:
    """The addresses of a name, each with its family, in the order to try them (RFC 6724).

    This blocks until the name servers answer, and no selector can tell when that is. So call it
    before the reactor runs (27). Raises `OSError`.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty or overlong label: `a..b`
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    # Without IPv6, Python gives a raw two-part address for ("::1", port). No socket takes it.
    return list(
        dict.fromkeys((int(family), address) for family, _, _, _, address in found)  # type: ignore[misc]
    )


def shown(address: Address) -> str:
    """HOST:PORT, an IPv6 host in brackets (RFC 3986, section 3.2.2)."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
