"""The command line: `python -m kv server` and `python -m kv client`."""

from kv.stdio import LogHandler, open_missing

if __name__ == "__main__":
    open_missing()  # before anything else can open a descriptor

import argparse
import getpass
import logging
import os
import sys

from kv.address import resolve
from kv.cipher import PrivateKey
from kv.protocol import Command, Wire
from kv.server import Settings, serve
from kv.shell import FAILED, LOST, Shell


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
        raise argparse.ArgumentTypeError(f"{text} is not a duration: use seconds above 0")
    return number


def parser() -> argparse.ArgumentParser:
    """The options of both programs."""
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--host", default="127.0.0.1", help="name or address (%(default)s)")
    both.add_argument("--port", type=port, default=4242, help="TCP port (%(default)s)")
    both.add_argument(
        "--key-bits",
        type=int,
        default=512,
        metavar="BITS",
        help="size of both sides' RSA keys, in bits (%(default)s)",
    )
    both.add_argument(
        "--receive-buffer-size",
        type=int,
        default=4096,
        metavar="BITS",
        help="a line is smaller than this, in bits (%(default)s)",
    )
    program = argparse.ArgumentParser(
        prog="python -m kv", description="An RSA-sealed key/value server and client."
    )
    roles = program.add_subparsers(dest="role", required=True)
    server = roles.add_parser(
        "server",
        parents=[both],
        help="serve until SIGINT or SIGTERM",
        description="Serves until SIGINT or SIGTERM. --port 0 takes a free port. Exit status:"
        " 0 all was answered; 1 it could not start, or cut connections short; 2 wrong options;"
        " 128 + N ended at once by a further signal N.",
    )
    server.add_argument(
        "--shutdown-timeout",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="longest time to finish with the connected clients (%(default)g)",
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
        help="talk to a server, from a terminal or a script",
        description="Sends what is typed, or piped in, to a server: one line, one message. Exit"
        " status: 0 all well; 1 a command was refused or answered with ERROR; 2 wrong options;"
        " 3 no connection, or it was lost; 130 Ctrl-C.",
    )
    client.add_argument("--id", default=default_id(), help="client id (%(default)s)")
    client.add_argument(
        "--timeout",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="longest time without an awaited reply (%(default)g)",
    )
    client.add_argument(
        "--raw",
        action="store_true",
        help="seal and send every line unchecked, print what comes back, half-close at the end",
    )
    return program


def default_id() -> str:
    """User name and process id."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        name = f"uid{os.getuid()}"
    return f"{name}-{os.getpid()}"


def run_server(options: argparse.Namespace, wire: Wire) -> int:
    """Serves; an address that cannot be had is one line and status 1."""
    log = logging.getLogger("kv")
    log.addHandler(LogHandler(2))
    log.setLevel(options.log_level.upper())
    try:
        return serve(Settings(options.host, options.port, wire, options.shutdown_timeout))
    except OSError as error:
        reason = error.strerror or error
        log.error("cannot listen on %s port %d: %s", options.host, options.port, reason)
        return FAILED


def run_client(options: argparse.Namespace, wire: Wire) -> int:
    """Talks to a server; all that blocks is done before the reactor runs (27)."""
    try:
        addresses = resolve(options.host, options.port)
    except OSError as error:
        print(f"cannot connect to {options.host}: {error.strerror or error}", file=sys.stderr)
        return LOST
    key = PrivateKey.generate(wire.key_bits)
    return Shell(addresses, wire, key, options.id, options.timeout, options.raw).run()


def main() -> int:
    """Parses the command line and runs the role; returns the exit status."""
    program = parser()
    options = program.parse_args()
    try:
        wire = Wire(options.key_bits, options.receive_buffer_size)
        if options.role == "client":
            Command.connect(wire, options.id)
    except ValueError as error:
        program.error(str(error))
    try:
        return run_server(options, wire) if options.role == "server" else run_client(options, wire)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
