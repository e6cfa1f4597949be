"""Sealed TLS 1.3 records that no library sends: half a message, an alert of one octet.

Keys come from OpenSSL's key log, and AES-GCM from its libcrypto, by `ctypes`. Linux only: macOS
ends a process that loads its libcrypto in this way.
"""

import ctypes
import ctypes.util
import hashlib
import hmac
import ssl
import sys
from pathlib import Path

import pytest
from certificates import CA

APPLICATION_DATA, HANDSHAKE, ALERT = 23, 22, 21
#: A message that asks for new keys (RFC 8446, section 4.6.3): without its last octet, and the last.
KEY_UPDATE, ASKED = b"\x18\x00\x00\x01", b"\x01"
CLOSE_NOTIFY = b"\x01\x00"

_found = ctypes.util.find_library("crypto") if sys.platform == "linux" else None
CRAFTED = pytest.mark.skipif(not _found, reason="needs Linux and its libcrypto")

EVP_CTRL_AEAD_GET_TAG = 0x10


class Crafter:
    """Seals records as the client whose keys are in the log."""

    def __init__(self, log: Path) -> None:
        lines = [line.split() for line in log.read_text().splitlines()]
        (secret,) = [line[2] for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0"]
        self._use(bytes.fromhex(secret))

    def record(self, kind: int, text: bytes) -> bytes:
        """Section 5.2."""
        inner = text + bytes([kind])
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2)
        nonce = (int.from_bytes(self._iv) ^ self._number).to_bytes(12)
        self._number += 1
        return header + gcm(self._key, nonce, header, inner)

    def key_update(self) -> bytes:
        """The record, after which the next keys are used."""
        octets = self.record(HANDSHAKE, KEY_UPDATE + ASKED)
        self._use(expanded(self._secret, b"traffic upd", 48))
        return octets

    def _use(self, secret: bytes) -> None:
        self._secret, self._number = secret, 0
        self._key, self._iv = expanded(secret, b"key", 32), expanded(secret, b"iv", 12)


def logging_context(log: Path) -> ssl.SSLContext:
    """A client's, whose keys are written to a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CA)
    context.keylog_filename = str(log)
    return context


def expanded(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label with SHA-384 (section 7.1), for no more than one block."""
    label = b"tls13 " + label
    info = size.to_bytes(2) + bytes([len(label)]) + label + b"\x00"
    return hmac.digest(secret, info + b"\x01", hashlib.sha384)[:size]


def gcm(key: bytes, nonce: bytes, header: bytes, text: bytes) -> bytes:
    """AES-256-GCM: the sealed text and its tag."""
    lib = ctypes.CDLL(_found)
    lib.EVP_CIPHER_CTX_new.restype = lib.EVP_aes_256_gcm.restype = ctypes.c_void_p
    context, count = ctypes.c_void_p(lib.EVP_CIPHER_CTX_new()), ctypes.byref(ctypes.c_int())
    sealed, tag = ctypes.create_string_buffer(len(text)), ctypes.create_string_buffer(16)
    cipher = ctypes.c_void_p(lib.EVP_aes_256_gcm())
    done = (
        lib.EVP_EncryptInit_ex(context, cipher, None, key, nonce),
        lib.EVP_EncryptUpdate(context, None, count, header, len(header)),
        lib.EVP_EncryptUpdate(context, sealed, count, text, len(text)),
        lib.EVP_EncryptFinal_ex(context, None, count),
        lib.EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, tag),
    )
    lib.EVP_CIPHER_CTX_free(context)
    assert all(done)
    return sealed.raw + tag.raw
