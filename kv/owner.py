"""What a link and its owner agree on: where to connect, what is told, and how an end is worded.

Only the contract lives here: nothing that connects, sends or waits.
"""

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kv.errors import Violation
from kv.net.address import Address
from kv.protocol.cipher import PrivateKey
from kv.protocol.messages import Command, Wire

if TYPE_CHECKING:
    from kv.net.tls import Tls


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, as whom, and how.

    `timeout`, in seconds, is the longest time from the start to `connected`; after that, the
    longest time in which nothing happens though something is owed: a reply to us, or octets that
    the server does not take. Whoever answers early and reads nothing owes as well.
    """

    addresses: list[tuple[int, Address]]
    wire: Wire
    key: PrivateKey
    client_id: str
    timeout: float
    tls: "Tls | None" = None  # for this one connection


class LinkOwner(Protocol):
    """Whom a link tells what happens to it."""

    def connected(self) -> None:
        """Keys are exchanged and CONNECT was answered with OK: commands may be sent."""

    def replied(self, command: Command | None, reply: str) -> None:
        """The oldest command without a reply has its reply. A raw link knows no commands."""

    def may_send(self) -> None:
        """Replies have come, or what was sent is on its way: there may be `room` again."""

    def ended(self, error: Exception | None) -> None:
        """The connection is gone: as it was meant to be, or because of `error`. The last call."""


def unanswered(error: Exception | None, tls: "Tls | None") -> Exception | None:
    """`error`, and what may be behind it when the server has not sent its key."""
    if not isinstance(error, OSError) or isinstance(error, Violation):
        return error
    if tls is not None:
        hint = ": perhaps it does not speak TLS" if tls.shaking else ""
    else:
        hint = "" if isinstance(error, TimeoutError) else ": perhaps it speaks TLS"
    return type(error)(f"{error.strerror or error}{hint}") if hint else error


def loss(error: OSError, connected: bool, greeted: bool) -> str:
    """Why there is no connection, for people; `greeted` if the server's key had come."""
    reason = "the server went away" if error.errno == errno.EPIPE else error.strerror
    text = f"{'connection lost' if connected else 'cannot connect'}: {reason or error}"
    if error.errno == errno.ECONNREFUSED:
        text += "; is the server running?"
    elif not greeted and type(error) in (ConnectionError, Violation) and not error.errno:
        text += "; does it use other --key-bits?"
    return text
