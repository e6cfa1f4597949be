"""Strangers on the wire: clients and a server made with other languages' own RSA.

The programs are in `tests/interop/`, written from `protocol.md`. A client there sends the texts
that it reads from standard input and prints the texts that come back, one a line.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from wire import new_id

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "tests" / "interop"
OUR_CLIENT = [sys.executable, "-m", "kv", "client", "--host", "127.0.0.1"]

NODE = pytest.mark.skipif(not shutil.which("node"), reason="node is not on this machine")
NO_JAVA = not (shutil.which("javac") and shutil.which("java"))
JAVA = pytest.mark.skipif(NO_JAVA, reason="Java is not on this machine")
CLIENTS = [
    pytest.param(["node", str(PROGRAMS / "client.js")], marks=NODE, id="node"),
    pytest.param(["java", str(PROGRAMS / "Client.java")], marks=JAVA, id="java"),
]

#: Texts of one, two and five blocks, full and not, and what they are answered with.
CONVERSATION = [
    ("PUT colour", None),
    ("blue", "PUT: OK"),
    ("GET colour", "blue"),
    ("GET size", "GET: ERROR"),
    ("PUT empty", None),
    ("", "PUT: OK"),
    ("GET empty", ""),
    *(
        step
        for size in (52, 53, 54, 106, 107, 265)
        for step in ((f"PUT {size}", None), ("x" * size, "PUT: OK"), (f"GET {size}", "x" * size))
    ),
    ("PUT " + "k" * 254, None),
    ("DISCONNECT", "PUT: OK"),
    ("GET " + "k" * 254, "DISCONNECT"),
    ("DELETE " + "k" * 254, "DELETE: OK"),
    ("GET " + "k" * 254, "GET: ERROR"),
    ("DELETE colour", "DELETE: OK"),
    ("DELETE colour", "DELETE: OK"),
    ("PUT controls", None),
    ("\x00\t\r\x1b\"'\x7f", "PUT: OK"),
    ("GET controls", "\x00\t\r\x1b\"'\x7f"),
]


def as_lines(texts: list[str]) -> bytes:
    """`texts`, one a line."""
    return "".join(text + "\n" for text in texts).encode("ascii")


@pytest.mark.parametrize("command", CLIENTS)
def test_a_client_in_another_language_is_understood_and_understands(
    server: Any, command: list[str]
) -> None:
    refused = [("PUT colour", None), ("GET: ERROR", "PUT: ERROR")]
    again = [(f"CONNECT {new_id()}", "CONNECT: ERROR")]
    steps = [(f"CONNECT {new_id()}", "CONNECT: OK"), *CONVERSATION, *refused, *again]
    steps += [("DISCONNECT", "DISCONNECT: OK"), ("GET nobody answers this", None)]
    client = subprocess.run(
        [*command, str(server.port)],
        input=as_lines([text for text, _ in steps]),
        capture_output=True,
        timeout=patience(3),
        check=False,
    )
    assert client.stdout == as_lines([reply for _, reply in steps if reply is not None]), (
        client.stderr
    )
    assert client.stderr == b""
    assert client.returncode == 0


@pytest.fixture
def node_server() -> Iterator[int]:
    """The port of the server made with Node's crypto."""
    command = ["node", str(PROGRAMS / "server.js")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.kill()


@NODE
def test_our_client_talks_to_a_server_in_another_language(node_server: int, tmp_path: Path) -> None:
    script = tmp_path / "script.txt"
    script.write_bytes(as_lines([text for text, _ in CONVERSATION]))
    with script.open("rb") as stdin:
        client = subprocess.run(
            [*OUR_CLIENT, "--port", str(node_server), "--id", "alice"],
            cwd=ROOT,
            stdin=stdin,
            capture_output=True,
            timeout=patience(3),
            check=False,
        )
    replies = [reply for _, reply in CONVERSATION if reply is not None]
    assert client.stdout == as_lines(replies), client.stderr
    assert client.returncode == 1, "two keys were not there"


@NODE
def test_our_client_says_so_when_a_server_in_another_language_has_its_id_in_use(
    node_server: int, run_kv: Callable[..., subprocess.CompletedProcess[str]], connect: Any
) -> None:
    arguments = ("client", "--host", "127.0.0.1", "--port", str(node_server), "--id", "alice")
    with connect(node_server).handshake().connect("alice"):
        refused = run_kv(*arguments)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "alice" in refused.stderr
