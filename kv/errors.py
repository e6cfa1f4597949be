"""The errors, and whose fault each is.

Only exception classes live here. What a peer did wrong is a `Violation`; what the local caller
did wrong is a `TextError`; what the server politely refused is a `Refused`.
"""


class Violation(ConnectionError):
    """The remote peer broke the protocol: this connection is worth nothing any more."""


class TextError(ValueError):
    """The local caller asked for a text that the protocol cannot carry; nothing was sent."""


class Refused(Exception):
    """The server understood a command and answered it with ERROR."""


class ConnectRefused(Refused):
    """`CONNECT: ERROR`: another client is connected under this client id."""


class PutRefused(Refused):
    """`PUT: ERROR`: the value was not stored; an older one under the key stays."""
