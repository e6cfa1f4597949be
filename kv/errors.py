"""The errors, and whose fault each is.

Only exception classes live here. `Violation` is a fault of the peer, `TextError` a fault of the
local caller. `Refused` is nobody's fault: the server said no.
"""


class Violation(ConnectionError):
    """The remote peer broke the protocol: nothing more on this connection can be trusted."""


class TextError(ValueError):
    """The local caller asked for a text that the protocol cannot carry; nothing was sent."""


class Refused(Exception):
    """The server understood a command and answered it with ERROR."""


class ConnectRefused(Refused):
    """`CONNECT: ERROR`: another client is connected under this client id."""


class PutRefused(Refused):
    """`PUT: ERROR`: the value was not stored; an older one under the key stays."""
