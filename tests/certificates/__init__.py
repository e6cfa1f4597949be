"""Certificates for the tests, made by `make.sh`. All are good until 2120, but one."""

from pathlib import Path

HERE = Path(__file__).parent

#: The authority that the others are signed by, but for the stranger's, and the stranger's.
CA, OTHER_CA = str(HERE / "ca.pem"), str(HERE / "other-ca.pem")
#: Certificates and keys: for localhost, 127.0.0.1 and ::1; for alice; for mallory.
SERVER = str(HERE / "server.pem"), str(HERE / "server.key")
CLIENT = str(HERE / "client.pem"), str(HERE / "client.key")
STRANGER = str(HERE / "stranger.pem"), str(HERE / "stranger.key")
#: For old, signed by itself, and good until 2021.
EXPIRED = str(HERE / "expired.pem"), str(HERE / "expired.key")
#: For localhost, signed by itself, with Ed25519: its signatures all have the same size.
FIXED = str(HERE / "fixed.pem"), str(HERE / "fixed.key")
#: The server's key; the password is "secret".
ENCRYPTED_KEY = str(HERE / "encrypted.key")
