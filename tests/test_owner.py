"""How the end of a connection is worded for people."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from kv.errors import Violation
from kv.net.owner import TlsError
from kv.owner import loss, unanswered

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
RESET = ConnectionResetError(errno.ECONNRESET, "reset")
LATE = TimeoutError(errno.ETIMEDOUT, "late")
GONE = ConnectionError("gone")


@pytest.mark.parametrize(
    ("error", "connected", "greeted", "said"),
    [
        (REFUSED, False, False, "cannot connect: refused; is the server running?"),
        (RESET, False, False, "cannot connect: reset"),
        (RESET, True, True, "connection lost: reset"),
        (BrokenPipeError(errno.EPIPE, "pipe"), True, True, "connection lost: the server went away"),
        (GONE, False, True, "cannot connect: gone"),
        (GONE, False, False, "cannot connect: gone; does it use other --key-bits?"),
        (
            unanswered(GONE, None),
            False,
            False,
            "cannot connect: gone: perhaps it speaks TLS, or uses other --key-bits",
        ),
        (
            Violation("no key"),
            False,
            False,
            "cannot connect: no key; does it use other --key-bits?",
        ),
        (TlsError("cut off"), False, False, "cannot connect: cut off"),
    ],
)
def test_a_loss_is_one_sentence(error: OSError, connected: bool, greeted: bool, said: str) -> None:
    assert loss(error, connected, greeted) == said


@pytest.mark.parametrize(
    ("error", "shaking", "said"),
    [
        (GONE, None, "gone: perhaps it speaks TLS"),
        (RESET, None, "reset: perhaps it speaks TLS"),
        (LATE, None, ""),
        (LATE, True, "late: perhaps it does not speak TLS"),
        (RESET, True, "reset: perhaps it does not speak TLS"),
        (RESET, False, ""),
        (Violation("no key"), None, ""),
        (ValueError("ours"), True, ""),
        (None, None, ""),
    ],
)
def test_a_server_that_has_not_sent_its_key_may_speak_otherwise(
    error: Exception | None, shaking: bool | None, said: str
) -> None:
    tls: Any = None if shaking is None else SimpleNamespace(shaking=shaking)
    told = unanswered(error, tls)
    assert told is error if not said else (type(told) is type(error) and str(told) == said)
