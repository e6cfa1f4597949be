"""The command line: `python -m kv server`, `client` and `replay`."""

from kv.net.stdio import open_missing

if __name__ == "__main__":
    open_missing()  # before anything else can open a descriptor

import argparse
import getpass
import logging
import os
import stat
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kv import __version__
from kv.net.address import resolve
from kv.net.log import LogHandler
from kv.net.owner import Limits
from kv.process import affordable, serve
from kv.protocol.cipher import PrivateKey
from kv.protocol.messages import Command, Wire
from kv.protocol.store import Store
from kv.server import Settings
from kv.shell import FAILED, LOST, Shell
from kv.shell import Options as ShellOptions

if TYPE_CHECKING:
    from kv.net.tls import Tls


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
    both.add_argument(
        "--trace-file", metavar="FILE", help="the same as trace events, for replay or Perfetto"
    )
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
        " the server: the server reads the certificates again. --port 0 takes a free port. Exit"
        " status: 0 every client was answered; 1 the server could not start, or cut connections"
        " short; 2 wrong options; 128 + N a further signal N ended the server at once.",
    )
    server.set_defaults(run=run_server, role_parser=server)
    option(server, "--max-connections", count, 10_000, "N", "connections at a time; more wait")
    option(server, "--max-memory", octets, "256M", "OCTETS", "for what all clients store")
    server.add_argument(
        "--max-session-memory",
        type=octets,
        metavar="OCTETS",
        help="for what one client stores (a quarter of --max-memory)",
    )
    option(server, "--handshake-timeout", seconds, 10, "SECONDS", "from accept to CONNECT: OK")
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
    option(
        server,
        "--shutdown-timeout",
        seconds,
        5,
        "SECONDS",
        "longest time a stop may take",
    )
    files(
        server,
        *("--tls-cert", "speak TLS 1.3, with this certificate (PEM, its chain behind it)"),
        *("--tls-key", "the certificate's key, if it is not in the same file"),
        *("--tls-client-ca", "accept only clients with a certificate from these authorities"),
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
        " over after DISCONNECT, the client id is in use, or input or output failed; 2 wrong"
        " options; 3 the client could not connect, or lost the connection, or the server broke the"
        " protocol; 130 Ctrl-C.",
    )
    client.set_defaults(run=run_client, role_parser=client)
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
    files(
        client,
        *("--tls-ca", "speak TLS 1.3, and trust these authorities (PEM)"),
        *("--tls-cert", "show this certificate (PEM) to a server that wants one"),
        *("--tls-key", "the certificate's key, if it is not in the same file"),
    )
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


def files(to: argparse.ArgumentParser, *names_and_helps: str) -> None:
    """Adds options that name a file."""
    for name, help_text in zip(names_and_helps[::2], names_and_helps[1::2], strict=True):
        to.add_argument(name, metavar="FILE", help=help_text)


def default_id() -> str:
    """User name, process id and a random number. In every container there is a root, process 1."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        name = ""
    name = "".join(character for character in name if " " < character < "\x7f")
    return f"{name or f'uid{os.getuid()}'}-{os.getpid()}-{os.urandom(4).hex()}"


def say(text: str) -> None:
    """Writes a sentence to standard error, if that is open."""
    with suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace") + b"\n")


def opener(path: str, flags: int) -> int:
    """Opens the trace's file for `open`, and waits for nobody.

    A FIFO without a reader is an error. If a reader stops reading, the trace ends. A trace contains
    what clients say, so only the file's owner may read it, even if the file was there before.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        with suppress(PermissionError):  # the file belongs to another user
            os.fchmod(descriptor, 0o600)
    return descriptor


def traced(options: argparse.Namespace) -> AbstractContextManager[object]:
    """The trace, if an option asks for one. Raises `OSError` if its file cannot be written."""
    if not options.trace and options.trace_file is None:
        return nullcontext()
    from kv.watch.trace import Trace  # noqa: PLC0415 (without a trace, the start is faster)

    path = options.trace_file
    file = open(path, "w", opener=opener) if path is not None else None  # noqa: SIM115 (it does)
    return Trace(options.trace, file, os.isatty(2) and not os.environ.get("NO_COLOR"))


def run_server(options: argparse.Namespace, wire: Wire) -> int:
    """Runs the server. If it cannot listen, it logs one line and returns status 1."""
    log = logging.getLogger("kv")
    log.addHandler(LogHandler(2))
    log.setLevel(options.log_level.upper())
    settings = Settings(
        max_connections=affordable(options.max_connections),
        handshake_timeout=options.handshake_timeout,
        idle_timeout=options.idle_timeout,
        stream=Limits(line_size=wire.line_size, stall_timeout=options.stall_timeout),
    )
    host, port = options.host, options.port
    store = Store(options.max_memory, options.max_session_memory or options.max_memory // 4)
    rest = store, options.shutdown_timeout, server_certificates(options)
    try:
        return serve(host, port, wire, settings, *rest)
    except ValueError as error:
        log.error("cannot speak TLS: %s", error)
        return FAILED
    except OSError as error:
        reason = error.strerror or error
        log.error("cannot listen on %s port %d: %s", host, port, reason)
        return FAILED


def server_certificates(options: argparse.Namespace) -> "Callable[[], Callable[[], Tls]] | None":
    """The function that reads the certificates. Without TLS, None, and `ssl` is not imported."""
    if options.tls_cert is None:
        if options.tls_key or options.tls_client_ca:
            options.role_parser.error("--tls-key and --tls-client-ca need --tls-cert")
        return None
    from kv.net.credentials import server_tls  # noqa: PLC0415 (as is `Trace`)

    certificate = options.tls_cert, options.tls_key or options.tls_cert
    return partial(server_tls, *certificate, options.tls_client_ca)


def client_layer(options: argparse.Namespace) -> "Tls | None":
    """TLS for the connection, if an option asks for it. Raises `ValueError`."""
    if not (options.tls or options.tls_ca):
        if options.tls_cert or options.tls_key or options.tls_name:
            options.role_parser.error("--tls-cert, --tls-key, --tls-name need --tls or --tls-ca")
        return None
    from kv.net.credentials import client_context, client_tls  # noqa: PLC0415 (as is `Trace`)

    context = client_context(options.tls_ca, options.tls_cert, options.tls_key)
    return client_tls(context, options.tls_name or options.host)


def run_client(options: argparse.Namespace, wire: Wire) -> int:
    """Runs the client. Everything that blocks is done before the reactor runs (27)."""
    try:
        tls = client_layer(options)
        addresses = resolve(options.host, options.port)
    except ValueError as error:
        say(f"cannot speak TLS: {error}")
        return FAILED
    except OSError as error:
        say(f"cannot connect to {options.host}: {error.strerror or error}")
        return LOST
    key = PrivateKey.generate(wire.key_bits)
    how = ShellOptions(options.id, options.timeout, options.raw, options.strict, options.quiet)
    try:
        return Shell(addresses, wire, key, how, tls).run()
    except KeyboardInterrupt:
        if os.isatty(1):
            with suppress(OSError):
                os.write(1, b"\n")  # the shell's prompt belongs on a line of its own
        raise


def run_replay(options: argparse.Namespace) -> int:
    """Writes the page. If the file is not a trace, it says so and returns status 1."""
    from kv.watch.events import read  # noqa: PLC0415 (as is `Trace`)
    from kv.watch.replay import UNFINISHED, Lane, page  # noqa: PLC0415

    try:
        events, whole = read(options.file)
    except (OSError, ValueError) as error:
        say(f"cannot replay {options.file}: {getattr(error, 'strerror', error)}")
        return FAILED
    text = page(Path(options.file).name, [Lane(events)], "" if whole else UNFINISHED)
    try:
        with open(1, "w", encoding="utf-8", closefd=False) as output:
            print(text, file=output)
    except BrokenPipeError:
        pass  # the reader has seen enough
    except OSError as error:
        say(f"cannot write the page: {error.strerror}")
        return FAILED
    return 0


def main() -> int:
    """Parses the command line and runs the role; returns the exit status."""
    options = parser().parse_args()
    try:
        return run_replay(options) if options.role == "replay" else run(options)
    except KeyboardInterrupt:
        return 130


def run(options: argparse.Namespace) -> int:
    """Runs the server or the client, with a trace if an option asks for one."""
    try:
        wire = Wire(options.key_bits, options.receive_buffer_size)
        if options.role == "client":
            Command.connect(wire, options.id)
    except ValueError as error:
        options.role_parser.error(str(error))
    try:
        trace = traced(options)
    except OSError as error:
        options.role_parser.error(f"cannot write {options.trace_file}: {error.strerror}")
    with trace:
        return int(options.run(options, wire))


if __name__ == "__main__":
    sys.exit(main())
