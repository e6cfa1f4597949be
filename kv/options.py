"""The options of all programs: their names, their types, their help.

This module checks each value before anything begins. `__main__` uses the values.
"""

import argparse
import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kv import __version__

if TYPE_CHECKING:
    from kv.net.proxy import Network
    from kv.registry.resp import Place

#: Seconds.
SHORTEST_LEASE = 0.1


def port(text: str) -> int:
    """A port number from 0 to 65535."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port: use 0 to 65535")
    return number


def seconds(text: str) -> float:
    """A duration above 0."""
    number = float(text)
    if not 0 < number < 1e9:
        use = "use seconds above 0, below 1e9"
        raise argparse.ArgumentTypeError(f"{text} is not a duration: {use}")
    return number


def seconds_or_never(text: str) -> float:
    """A duration, or 0, which means never."""
    return 0.0 if float(text) == 0 else seconds(text)


def count(text: str) -> int:
    """A number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number above 0")
    return number


def octets(text: str) -> int:
    """A size in octets, or in K, M or G (2^10, 2^20, 2^30 octets)."""
    shift = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper(), 0)
    digits = text[:-1] if shift else text
    if not digits.isdecimal() or not int(digits):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: use octets, or 64K, 256M, 1G")
    return int(digits) << shift


def place(text: str) -> "Place":
    """Where the registry is: a URL, or @ and the name of a file with one."""
    from kv.registry.resp import Place  # noqa: PLC0415 (most servers have none)

    try:
        return Place(Path(text[1:]).read_text().strip() if text[:1] == "@" else text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text[1:]}: {error.strerror}") from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def lease(text: str) -> float:
    """A duration in which a registry can be asked several times."""
    number = seconds(text)
    if number < SHORTEST_LEASE:
        raise argparse.ArgumentTypeError(f"{text} is too short: use {SHORTEST_LEASE:g} or more")
    return number


def balancers(text: str) -> "tuple[Network, ...]":
    """Addresses and networks, separated by commas."""
    from kv.net.proxy import networks  # noqa: PLC0415 (most servers have none)

    try:
        return networks(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser() -> argparse.ArgumentParser:
    """The options of both programs."""
    both = argparse.ArgumentParser(add_help=False)
    option(both, "--host", str, "127.0.0.1", "HOST", "name or address")
    option(both, "--port", port, 4242, "PORT", "TCP port")
    option(both, "--key-bits", count, 512, "BITS", "size of both sides' RSA keys")
    option(both, "--receive-buffer-size", count, 4096, "BITS", "every line is smaller than this")
    both.add_argument(
        "--trace", action="store_true", help="show on standard error what the reactor does"
    )
    file(both, "--trace-file", "write the trace to FILE, for replay or Perfetto")
    program = argparse.ArgumentParser(
        prog="python -m kv",
        description="An RSA-sealed key/value server and client.",
        allow_abbrev=False,
    )
    program.add_argument("--version", action="version", version=f"kv {__version__}")
    roles = program.add_subparsers(dest="role", required=True)
    server = roles.add_parser(
        "server",
        parents=[both],
        allow_abbrev=False,
        help="serve until SIGINT, SIGTERM or SIGHUP",
        description="Serves until SIGINT, SIGTERM or SIGHUP. With --tls-cert, SIGHUP does not stop"
        " the server: the server reads the certificates again. A signal that was ignored at the"
        " start, as after nohup, stays ignored. --port 0 takes a free port. Exit"
        " status: 0 every client was answered; 1 the server could not start, or cut connections"
        " short; 2 wrong options; 128 + N a further signal N ended the server at once.",
    )
    server.set_defaults(role_parser=server)
    option(server, "--max-connections", count, 10_000, "N", "connections at a time; more wait")
    option(server, "--max-memory", octets, "256M", "OCTETS", "limit for what all clients store")
    server.add_argument(
        "--max-session-memory",
        type=octets,
        metavar="OCTETS",
        help="limit for what one client stores (a quarter of --max-memory)",
    )
    option(server, "--handshake-timeout", seconds, 10, "SECONDS", "longest time to CONNECT: OK")
    option(
        server,
        "--idle-timeout",
        seconds_or_never,
        3600,
        "SECONDS",
        "longest silence of a client; 0 is no limit",
    )
    option(
        server,
        "--stall-timeout",
        seconds,
        60,
        "SECONDS",
        "longest time a client takes none of its waiting replies",
    )
    option(server, "--shutdown-timeout", seconds, 5, "SECONDS", "longest time a stop may take")
    file(server, "--tls-cert", "speak TLS 1.3, with this certificate (PEM, its chain behind it)")
    file(server, "--tls-key", "the certificate's key, if it is not in the same file")
    file(server, "--tls-client-ca", "accept only clients with a certificate from these authorities")
    server.add_argument(
        "--registry",
        type=place,
        metavar="URL",
        help="share client ids with other servers, in the Redis or Valkey at"
        " redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] (rediss:// speaks TLS; @FILE: the file has"
        " the URL)",
    )
    option(server, "--lease", lease, 15, "SECONDS", "until the ids of a dead server are free")
    server.add_argument(
        "--proxy-protocol",
        type=balancers,
        default=(),
        metavar="ADDRESSES",
        help="accept only connections from these balancers, each with a PROXY header (addresses"
        " or networks, separated by commas)",
    )
    server.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="what to log on standard error (%(default)s)",
    )
    client = roles.add_parser(
        "client",
        parents=[both],
        allow_abbrev=False,
        help="talk to a server, from a terminal or a script",
        description="Sends what is typed, or piped in, to a server: one line, one message. Exit"
        " status: 0 all went well; 1 a command was refused or answered with ERROR, lines were left"
        " over after DISCONNECT, the client id is in use, TLS files cannot be used, or input or"
        " output failed; 2 wrong options; 3 the client could not connect, or lost the connection,"
        " or the server broke the protocol; 130 Ctrl-C.",
    )
    client.set_defaults(role_parser=client)
    client.add_argument(
        "--id",
        default=default_id(),
        metavar="ID",
        help="client id (user name, process id and a random number)",
    )
    option(client, "--timeout", seconds, 10, "SECONDS", "longest wait, also to connect")
    client.add_argument(
        "--tls", action="store_true", help="speak TLS 1.3, and trust the system's authorities"
    )
    file(client, "--tls-ca", "speak TLS 1.3, and trust these authorities (PEM)")
    file(client, "--tls-cert", "show this certificate (PEM) to a server that wants one")
    file(client, "--tls-key", "the certificate's key, if it is not in the same file")
    client.add_argument(
        "--tls-name", metavar="NAME", help="the name in the server's certificate, if not HOST"
    )
    client.add_argument(
        "--raw",
        action="store_true",
        help="seal and send every line unchecked, print what comes back, half-close at the end",
    )
    client.add_argument(
        "--strict", action="store_true", help="in a script, the first refused line ends it"
    )
    client.add_argument(
        "--quiet", action="store_true", help="show no progress on a terminal during a script"
    )
    replay = roles.add_parser(
        "replay",
        help="make a page of a trace file",
        description="Writes an HTML page to standard output. The page shows a trace step by step,"
        " in any browser, without a network.",
    )
    replay.add_argument("file", metavar="FILE", help="what --trace-file has written")
    return program


def option(
    to: argparse.ArgumentParser,
    name: str,
    kind: Callable[[str], object],
    default: object,
    metavar: str,
    help_text: str,
) -> None:
    """Adds an option with a value; its help shows the default."""
    text = f"{help_text} (%(default)s)"
    to.add_argument(name, type=kind, default=default, metavar=metavar, help=text)


def file(to: argparse.ArgumentParser, name: str, help_text: str) -> None:
    """Adds an option that names a file."""
    to.add_argument(name, metavar="FILE", help=help_text)


def default_id() -> str:
    """User name, process id and a random number. In every container there is a root, process 1."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        name = ""
    name = "".join(character for character in name if " " < character < "\x7f")
    return f"{name or f'uid{os.getuid()}'}-{os.getpid()}-{os.urandom(4).hex()}"
