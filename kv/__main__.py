"""The command line: `python -m kv server`, `client` and `replay`."""

from kv.net.stdio import open_missing

if __name__ == "__main__":
    open_missing()  # before anything else can open a descriptor

import argparse
import logging
import os
import stat
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kv.net.address import resolve
from kv.net.log import LogHandler, cause
from kv.net.owner import Limits
from kv.options import parser
from kv.owner import Target
from kv.process import affordable, serve
from kv.protocol.cipher import PrivateKey
from kv.protocol.messages import Command, Wire
from kv.protocol.store import Store
from kv.server import Settings
from kv.shell import FAILED, LOST, Shell

if TYPE_CHECKING:
    from kv.net.tls import Tls


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
    if options.role == "client":  # it has no log, but a trace that ends early must not go unsaid
        logging.getLogger("kv").addHandler(LogHandler(2))
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
        balancers=options.proxy_protocol,
        stream=Limits(line_size=wire.line_size, stall_timeout=options.stall_timeout),
    )
    host, port = options.host, options.port
    store = Store(options.max_memory, options.max_session_memory or options.max_memory // 4)
    rest = store, options.shutdown_timeout, server_certificates(options)
    join = None
    if options.registry is not None:
        from kv.registry.registry import joined  # noqa: PLC0415 (as is `Trace`)

        try:
            join = joined(options.registry, options.lease)
        except (OSError, ValueError) as error:
            log.error("cannot use the registry: %s", cause(error))
            return FAILED
    try:
        return serve(host, port, wire, settings, *rest, join)
    except ValueError as error:
        log.error("cannot speak TLS: %s", error)
        return FAILED
    except OSError as error:
        log.error("cannot listen on %s port %d: %s", host, port, cause(error))
        return FAILED


def server_certificates(options: argparse.Namespace) -> "Callable[[], Callable[[], Tls]] | None":
    """The function that reads the certificates. Without TLS, None, and `ssl` is not imported."""
    if options.tls_cert is None:
        # An empty name, as of an unset variable, is a mistake. It must not switch TLS off.
        if (options.tls_key, options.tls_client_ca) != (None, None):
            options.role_parser.error("--tls-key and --tls-client-ca need --tls-cert")
        return None
    from kv.net.credentials import server_tls  # noqa: PLC0415 (as is `Trace`)

    certificate = options.tls_cert, options.tls_key or options.tls_cert
    return partial(server_tls, *certificate, options.tls_client_ca)


def client_layer(options: argparse.Namespace) -> "Tls | None":
    """TLS for the connection, if an option asks for it. Raises `ValueError`."""
    if not options.tls and options.tls_ca is None:  # an empty name is a mistake
        if (options.tls_cert, options.tls_key, options.tls_name) != (None, None, None):
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
        say(f"cannot connect to {options.host}: {cause(error)}")
        return LOST
    key = PrivateKey.generate(wire.key_bits)
    target = Target(addresses, wire, key, options.id, options.timeout, tls)
    try:
        return Shell(target, options.raw, options.strict, options.quiet).run()
    except KeyboardInterrupt:
        if os.isatty(1):
            with suppress(OSError):
                os.write(1, b"\n")  # the shell's prompt belongs on a line of its own
        raise
    except OSError as error:  # the loop itself needs descriptors
        say(f"cannot run the client: {cause(error)}")
        return LOST


def run_replay(options: argparse.Namespace) -> int:
    """Writes the page. If the file is not a trace, it says so and returns status 1."""
    from kv.watch.events import read  # noqa: PLC0415 (as is `Trace`)
    from kv.watch.replay import UNFINISHED, Lane, page  # noqa: PLC0415

    try:
        events, whole = read(options.file)
    except (OSError, ValueError) as error:
        say(f"cannot replay {options.file}: {cause(error)}")
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
        return (run_server if options.role == "server" else run_client)(options, wire)


if __name__ == "__main__":
    sys.exit(main())
