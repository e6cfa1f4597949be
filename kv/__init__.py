"""A key/value store over TCP in which every message is sealed with RSA, served by one thread."""

from kv.client import Client, Pipeline
from kv.errors import ConnectRefused, PutRefused, Refused, TextError, Violation
from kv.protocol.cipher import PrivateKey

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
