"""Options: what they are when nobody says, and what a text means."""

import re
from typing import Any
from unittest import mock

import pytest

from kv.__main__ import run_server, traced
from kv.net.owner import Limits
from kv.options import default_id, parser
from kv.protocol.messages import Wire
from kv.server import Settings

BOTH = {
    "host": "127.0.0.1",
    "port": 4242,
    "key_bits": 512,
    "receive_buffer_size": 4096,
    "trace": False,
    "trace_file": None,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "server": {
        **BOTH,
        "max_connections": 10_000,
        "max_memory": 268_435_456,
        "max_session_memory": None,
        "handshake_timeout": 10,
        "idle_timeout": 3_600,
        "stall_timeout": 60,
        "shutdown_timeout": 5,
        "registry": None,
        "lease": 15,
        "proxy_protocol": (),
        "tls_cert": None,
        "tls_key": None,
        "tls_client_ca": None,
        "log_level": "info",
    },
    "client": {
        **BOTH,
        "timeout": 10,
        "tls": False,
        "tls_ca": None,
        "tls_cert": None,
        "tls_key": None,
        "tls_name": None,
        "raw": False,
        "strict": False,
        "quiet": False,
    },
}


def values(*args: str) -> dict[str, Any]:
    """What these arguments mean."""
    return vars(parser().parse_args(args))


@pytest.mark.parametrize("role", DEFAULTS)
def test_what_nobody_says_is_as_documented(role: str) -> None:
    said = values(role)
    assert said.pop("role") == role and said.pop("role_parser").prog == f"python -m kv {role}"
    said.pop("id", None)
    assert said == DEFAULTS[role]


@pytest.mark.parametrize("role", DEFAULTS)
def test_the_help_names_a_value_and_says_what_it_is_for(role: str) -> None:
    shown = values(role)["role_parser"].format_help()
    assert "--port PORT " in shown and "TCP port (4242)" in shown
    described = re.findall(r"^  --\S+ ?([A-Z]*) *\n? +(\S.*)$", shown, re.M)
    assert len(described) == len(DEFAULTS[role]) + (role == "client")
    assert not any(text.isupper() for _, text in described)
    bare = [value is False for value in DEFAULTS[role].values()].count(True)  # without a value
    assert [name for name, _ in described].count("") == bare + (role == "server")  # --log-level {}


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("--max-memory", "7", 7),
        ("--max-memory", "1K", 1 << 10),
        ("--max-memory", "2m", 2 << 20),
        ("--max-session-memory", "3G", 3 << 30),
        ("--port", "0", 0),
        ("--port", "65535", 65_535),
        ("--key-bits", "1", 1),  # `Wire` says what can be used
        ("--max-connections", "1", 1),
        ("--stall-timeout", "0.5", 0.5),
        ("--stall-timeout", "999999999", 999_999_999),
        ("--idle-timeout", "0", 0),
        ("--idle-timeout", "0.0", 0),
        ("--idle-timeout", "1", 1),
        ("--lease", "0.1", 0.1),
    ],
)
def test_what_a_text_means(option: str, text: str, value: float) -> None:
    assert values("server", option, text)[option[2:].replace("-", "_")] == value


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "the following arguments are required: role"),
        (("server", "--max-memory", "0"), "'0' is not a size: use octets, or 64K, 256M, 1G"),
        (("server", "--max-memory", "K"), "'K' is not a size"),
        (("server", "--max-memory", "1T"), "'1T' is not a size"),
        (("server", "--port", "-1"), "-1 is not a port: use 0 to 65535"),
        (("server", "--port", "65536"), "65536 is not a port"),
        (("server", "--max-connections", "0"), "0 is not a number above 0"),
        (("server", "--stall-timeout", "0"), "0 is not a duration: use seconds above 0"),
        (("server", "--stall-timeout", "1e9"), "1e9 is not a duration: use seconds above 0, b"),
        (("server", "--stall-timeout", "nan"), "nan is not a duration"),
        (("server", "--idle-timeout", "-1"), "-1 is not a duration"),
        (("server", "--log-level", "loud"), "invalid choice: 'loud'"),
        (("server", "--idle", "1"), "unrecognized arguments: --idle"),  # it may be two some day
        (("client", "--stric"), "unrecognized arguments: --stric"),
        (("client", "--colour", "blue"), "unrecognized arguments: --colour"),
        (("server", "surplus"), "unrecognized arguments: surplus"),
        (("server", "--port", "x"), "invalid port value: 'x'"),
        (("server", "--key-bits", "x"), "invalid count value: 'x'"),
        (("server", "--receive-buffer-size", "0"), "0 is not a number above 0"),
        (("server", "--shutdown-timeout", "x"), "invalid seconds value: 'x'"),
        (("client", "--timeout", "0"), "0 is not a duration"),
    ],
)
def test_what_means_nothing_is_said(
    args: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        values(*args)
    assert raised.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("user", "name"), [("al ice\x7f\u00e9!~", "alice!~"), ("\u00e9", "uid7"), (OSError(), "uid7")]
)
def test_a_client_has_an_id_that_the_protocol_can_carry(
    user: str | OSError, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getuser() -> str:
        if isinstance(user, OSError):
            raise user
        return user

    monkeypatch.setattr("kv.options.getpass.getuser", getuser)
    monkeypatch.setattr("kv.options.os.getuid", lambda: 7)
    monkeypatch.setattr("kv.options.os.getpid", lambda: 12)
    monkeypatch.setattr("kv.options.os.urandom", lambda size: b"\xab" * size)
    assert default_id() == f"{name}-12-abababab"


CHOSEN = (
    "--max-memory=80 --max-session-memory=7 --max-connections=1 --handshake-timeout=2"
    " --idle-timeout=3 --stall-timeout=4 --shutdown-timeout=6 --host=h --port=9"
)


def test_the_server_is_run_as_the_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kv.__main__.affordable", lambda connections: connections + 1)
    monkeypatch.setattr("kv.__main__.logging", mock.Mock())
    for args, share, settings, shutdown in [
        ("--max-memory=80", 20, Settings(max_connections=10_001), 5),
        (CHOSEN, 7, Settings(2, 2, 3, stream=Limits(stall_timeout=4)), 6),
    ]:
        options = parser().parse_args(["server", *args.split()])
        with mock.patch("kv.__main__.serve", return_value=5) as serve:
            assert run_server(options, Wire()) == 5
        host, port, wire, used, store, seconds, certificates, join = serve.call_args.args
        assert (host, port, wire) == (options.host, options.port, Wire())
        assert (store.capacity, store.share) == (80, share)
        assert (used, seconds, certificates, join) == (settings, shutdown, None, None)


@pytest.mark.parametrize(
    ("terminal", "no_color", "colored"), [(2, "", True), (2, "1", False), (1, "", False)]
)
def test_a_trace_has_colours_where_it_is_read(
    terminal: int, no_color: str, colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    with (
        mock.patch("kv.watch.trace.Trace") as trace,
        mock.patch("kv.__main__.os.isatty", lambda descriptor: descriptor == terminal),
    ):
        traced(parser().parse_args(["server", "--trace"]))
    trace.assert_called_once_with(True, None, colored)
