"""A key/value store over TCP in which every message is sealed with RSA, served by one thread."""

import logging

from kv.client import Client, Pipeline
from kv.errors import ConnectRefused, PutRefused, Refused, TextError, Violation
from kv.protocol.cipher import PrivateKey

__version__ = "1.0.0"

__all__ = [
    "Client",
    "ConnectRefused",
    "Pipeline",
    "PrivateKey",
    "PutRefused",
    "Refused",
    "TextError",
    "Violation",
]

# A library says nothing unless its host program asks for it: not even on standard error.
logging.getLogger("kv").addHandler(logging.NullHandler())
