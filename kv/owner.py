"""What a link and its owner agree on: where to connect, what the link tells, how an end is worded.

Only the contract lives here: nothing that connects, sends or waits.
"""

import errno
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kv.errors import Violation
from kv.net.address import Address
from kv.net.log import cause
from kv.net.owner import Limits
from kv.protocol.cipher import PrivateKey
from kv.protocol.messages import Command, Wire

if TYPE_CHECKING:
    from kv.net.tls import Tls

#: Seconds that the server has to close after the client did. With a short timeout it has less.
LINGER = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, as whom, and how.

    `timeout`, in seconds, is the longest time from the start to `connected`. After that, it is the
    longest time in which nothing happens although the server owes something: a reply, or to read
    what the link sends. A server that answers early and then reads nothing owes that, too.
    """

    addresses: list[tuple[int, Address]]
    wire: Wire
    key: PrivateKey
    client_id: str
    timeout: float
    tls: "Tls | None" = None  # for this one connection

    @property
    def limits(self) -> Limits:
        """What the server may cost.

        A client always reads. A server does not read while it cannot send. If the client did the
        same, both would wait for ever.
        """
        return Limits(
            line_size=self.wire.line_size,
            high_water=sys.maxsize,
            stall_timeout=2 * self.timeout,  # the link's deadline is earlier
            linger_timeout=LINGER,  # or until the link's deadline, if that comes first
        )


class LinkOwner(Protocol):
    """Whom a link tells what happens to it."""

    def connected(self) -> None:
        """The server answered CONNECT with OK: commands may be sent."""

    def replied(self, command: Command | None, reply: str) -> None:
        """The oldest command without a reply has its reply. On a raw link `command` is None."""

    def may_send(self) -> None:
        """Replies have come, or octets were sent: there may be `room` again."""

    def ended(self, error: Exception | None) -> None:
        """The connection is gone. `error` is None if it ended as it should. The last call."""


#: A hint, where a server has closed the connection or reset it before it sent its key.
SPEAKS_TLS = ": perhaps it speaks TLS"


def unanswered(error: Exception | None, tls: "Tls | None") -> Exception | None:
    """`error`, with a hint at its cause. The server has not sent its key."""
    if not isinstance(error, OSError) or isinstance(error, Violation):
        return error
    if tls is not None:
        hint = ": perhaps it does not speak TLS" if tls.shaking else ""
    else:
        hint = "" if isinstance(error, TimeoutError) else SPEAKS_TLS
    return type(error)(f"{cause(error)}{hint}") if hint else error


def loss(error: OSError, connected: bool, greeted: bool) -> str:
    """A sentence: why there is no connection. `greeted` if the server's key had come."""
    reason = "the server went away" if error.errno == errno.EPIPE else cause(error)
    text = f"{'connection lost' if connected else 'cannot connect'}: {reason}"
    if error.errno == errno.ECONNREFUSED:
        text += "; is the server running?"
    elif not greeted and type(error) in (ConnectionError, Violation) and not error.errno:
        guessed = reason.endswith(SPEAKS_TLS)
        text += ", or uses other --key-bits" if guessed else "; does it use other --key-bits?"
    return text
