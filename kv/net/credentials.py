"""Certificates, keys and authorities: from PEM files to the contexts that `Tls` works with.

Optional, as `tls` is. Reading a file blocks for a short time (47). So a server reads its files
before the reactor runs, and again only when a signal asks for it.
"""

import os
import ssl
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from kv.net.log import cause
from kv.net.tls import Tls

#: Session tickets that the server sends after a handshake. With one, a client's next handshake is
#: shorter. kv's clients stay connected, so it gains them little. And tickets do harm: a client that
#: sends and closes without reading them resets its own connection, and what it sent is lost (53).
#: OpenSSL would send two.
TICKETS = 0


class CredentialsError(ValueError):
    """A file with a certificate, a key or authorities cannot be used. Says which, and why."""


def server_tls(certificate: str, key: str, client_ca: str | None = None) -> Callable[[], Tls]:
    """Reads the files now. Returns a function that makes a `Tls` for one connection."""
    return partial(Tls, server_context(certificate, key, client_ca))


def client_tls(tls: ssl.SSLContext | str | os.PathLike[str] | Literal[True], name: str) -> Tls:
    """A `Tls` for one connection to the server with this name.

    `tls` is a context, a file with the authorities to trust, or True for the system's. Raises
    `ValueError` if the file or the name cannot be used.
    """
    if not isinstance(tls, ssl.SSLContext):
        tls = client_context(None if tls is True else os.fspath(tls))
    return Tls(tls, name)


def server_context(certificate: str, key: str, client_ca: str | None = None) -> ssl.SSLContext:
    """A context for a server with this certificate, its chain behind it, and its key (PEM).

    With `client_ca`, only clients with a certificate from those authorities are accepted. Raises
    `CredentialsError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = TICKETS
    load_certificate(context, certificate, key)
    if client_ca is not None:
        load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca: str | None = None, certificate: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """A context for a client that trusts the authorities in the file `ca`, or the system's.

    `certificate` and `key` are for servers that ask for one. Raises `CredentialsError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if ca is None:
        context.load_default_certs()
    else:
        load_authorities(context, ca)
    if certificate is not None:
        load_certificate(context, certificate, key or certificate)
    return context


def load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Reads both, and checks that they belong together. Raises `CredentialsError`."""
    check_file(certificate)
    check_file(key)

    def password() -> str:
        # By default, OpenSSL asks at the terminal, and a server would wait for ever.
        raise CredentialsError(f"the key in {key} is encrypted: decrypt it (openssl pkey)")

    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CredentialsError(f"the key in {key} is not the one of {certificate}") from error
        why = f": {error.reason.replace('_', ' ').lower()}" if error.reason else ""
        text = f"no certificate in {certificate}, or no key in {key}, that can be used{why}"
        raise CredentialsError(text) from error
    except OSError as error:
        raise CredentialsError(f"cannot read {certificate} and {key}: {error.strerror}") from error


def load_authorities(context: ssl.SSLContext, ca: str) -> None:
    """Reads the authorities to trust. Raises `CredentialsError`."""
    check_file(ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise CredentialsError(f"no certificate in {ca} that can be used") from error
    except OSError as error:
        raise CredentialsError(f"cannot read {ca}: {error.strerror}") from error


def check_file(path: str) -> None:
    """Raises `CredentialsError` unless `path` is a regular file that can be read.

    To open a FIFO without a writer would block for ever.
    """
    try:
        regular = stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError) as error:
        raise CredentialsError(f"cannot read {path}: {cause(error)}") from error
    if not regular:
        raise CredentialsError(f"cannot read {path}: not a file")
    if not os.access(path, os.R_OK):
        raise CredentialsError(f"cannot read {path}: permission denied")
