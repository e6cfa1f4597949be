"""Our client's end of TLS: the library, the command line, and servers that strangers have made."""

import os
import select
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import CA, CLIENT, OTHER_CA, SERVER
from conftest import Server
from fake import Conversation, FakeServer, opened
from patience import patience
from service.parts import free_port
from test_interop import CONVERSATION, NODE, OUR_CLIENT, PROGRAMS, ROOT, as_lines
from test_tls_server import OPENSSL, OPTIONS, openssl
from wire import KEY, from_line, new_id, parse_public_key

from kv import Client
from kv.protocol.cipher import PrivateKey

OUR_KEY = PrivateKey.generate()
StartServer = Callable[..., Server]
RunKv = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("tls"), *OPTIONS)
    try:
        yield server.wait_until_listening()
        server.check_log()
    finally:
        server.stop()


def library(port: int, **options: object) -> Client:
    options = {"tls": CA, "client_id": new_id(), "timeout": patience(), "key": OUR_KEY, **options}
    return Client("127.0.0.1", port, **options)  # type: ignore[arg-type]


# --- the library -------------------------------------------------------------------------------


def test_a_client_talks_tls(tls_server: Server) -> None:
    with library(tls_server.port) as kv:
        kv.put("colour", "blue")
        assert kv.get("colour") == "blue"
        pipeline = kv.pipeline()
        for number in range(500):
            pipeline.put(f"k{number}", "v" * 265).get(f"k{number}")
        assert pipeline.execute() == [True, "v" * 265] * 500


@pytest.mark.parametrize("how", ["path", "context", "name"])
def test_authorities_are_named_in_several_ways(tls_server: Server, how: str) -> None:
    options: dict[str, object] = {
        "path": {"tls": Path(CA)},
        "context": {"tls": ssl.create_default_context(cafile=CA)},
        "name": {"tls_name": "localhost"},
    }[how]  # type: ignore[assignment]
    with library(tls_server.port, **options) as kv:
        assert kv.get("x") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tls": OTHER_CA}, "certificate is not accepted: unable to get local issuer"),
        ({"tls": True}, "certificate is not accepted: unable to get local issuer"),
        ({"tls_name": "example.org"}, "not valid for 'example.org'"),
    ],
)
def test_a_server_that_is_not_known_is_not_talked_to(
    tls_server: Server, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConnectionError, match=message):
        library(tls_server.port, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tls": "none"}, "cannot read none"), ({"tls_name": "a..b"}, "'a..b' is not a host name")],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        library(1, **options)


# --- the wrong way to talk ---------------------------------------------------------------------


def test_tls_to_a_plain_server_says_what_it_probably_is(server: Server) -> None:
    with pytest.raises(ConnectionError, match="may not speak TLS"):
        library(server.port)


def test_tls_to_a_silent_server_says_what_it_may_be() -> None:
    with FakeServer() as fake:
        fake.behave(Conversation.drain)
        with pytest.raises(TimeoutError, match=r"did not reply.*perhaps it does not speak TLS"):
            library(fake.port, timeout=0.3)


def test_plainly_to_a_tls_server_says_what_it_probably_is(tls_server: Server) -> None:
    with pytest.raises(ConnectionError, match="perhaps it speaks TLS"):
        library(tls_server.port, tls=None)


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9\r\n", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_whatever_answers_instead_of_tls_is_one_error(greeting: bytes) -> None:
    def greet(conversation: Conversation) -> None:
        conversation.send_raw(greeting)
        conversation.drain()

    with FakeServer() as fake:
        fake.behave(greet)
        with pytest.raises(ConnectionError):
            library(fake.port)


# --- the command line --------------------------------------------------------------------------


def test_the_command_line_talks_tls(start_server: StartServer, run_kv: RunKv) -> None:
    server = start_server(*OPTIONS, "--tls-client-ca", CA)
    address = ("client", "--port", str(server.port), "--tls-ca", CA)
    refused = run_kv(*address)
    assert refused.returncode == 3
    assert refused.stderr == "cannot connect: the peer wants a certificate from us\n"
    own = ("--tls-cert", CLIENT[0], "--tls-key", CLIENT[1], "--tls-name", "localhost")
    taken = run_kv(*address, *own, input="PUT a\nblue\nGET a\n")
    assert (taken.returncode, taken.stdout, taken.stderr) == (0, "PUT: OK\nblue\n", "")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--tls-ca", "none"), 1, "cannot speak TLS: cannot read none: No such file"),
        (("--tls-name", "x"), 2, "need --tls or --tls-ca"),
        (("--tls-cert", ""), 2, "need --tls or --tls-ca"),
        (("--tls-ca", ""), 1, "cannot read "),  # as of an unset variable
        (("--tls-ca", CA, "--tls-cert", CLIENT[0], "--tls-key", SERVER[1]), 1, "is not the one of"),
    ],
)
def test_options_that_cannot_be_used(
    run_kv: RunKv, options: tuple[str, ...], status: int, message: str
) -> None:
    ended = run_kv("client", "--port", "1", *options)
    assert ended.returncode == status
    assert message in ended.stderr


# --- strangers' servers ------------------------------------------------------------------------


class Wrapped(FakeServer):
    """Python's blocking `ssl` at the server's end."""

    def __init__(self) -> None:
        super().__init__()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*SERVER)

    def accept(self) -> Conversation:
        conversation = super().accept()
        wrapped = self.context.wrap_socket(conversation.socket, server_side=True)
        conversation.socket = wrapped
        conversation.half_close = wrapped.unwrap  # type: ignore[assignment,method-assign]
        self._conversations.append(conversation)
        return conversation


def test_our_client_talks_to_pythons_blocking_ssl() -> None:
    with Wrapped() as fake:
        fake.behave(lambda conversation: conversation.connect().serve())
        with library(fake.port) as kv:
            kv.put("colour", "blue")
            assert kv.get("colour") == "colour"


def test_a_servers_last_reply_is_not_taken_for_complete_if_it_is_cut_off() -> None:
    def cut_off(conversation: Conversation) -> None:
        conversation.connect()
        conversation.read_text()
        socket.socket.shutdown(conversation.socket, socket.SHUT_WR)  # without a word of TLS
        conversation.drain()

    with Wrapped() as fake:
        fake.behave(cut_off)
        kv = library(fake.port)
        with pytest.raises(ConnectionError, match="cut off: it ended without TLS's close_notify"):
            kv.get("x")


def test_a_raw_script_whose_replies_are_cut_off_has_status_3(run_kv: RunKv) -> None:
    def cut_off(conversation: Conversation) -> None:
        conversation.connect()
        conversation.read_octets()
        conversation.reply("half of it")
        socket.socket.shutdown(conversation.socket, socket.SHUT_WR)
        conversation.drain()

    with Wrapped() as fake:
        fake.behave(cut_off)
        address = ("client", "--port", str(fake.port), "--tls-ca", CA)
        ended = run_kv(*address, "--raw", input="GET x\n")
    assert ended.stdout == "half of it\n"
    assert "connection lost: the connection was cut off" in ended.stderr
    assert ended.returncode == 3


@NODE
def test_our_client_talks_to_nodes_tls(tmp_path: Path) -> None:
    command = ["node", str(PROGRAMS / "server.js"), *SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as node:
        try:
            assert node.stdout
            port = node.stdout.readline().strip().decode()
            ours = subprocess.run(
                [*OUR_CLIENT, "--port", port, "--tls-ca", CA],
                input=as_lines([text for text, _ in CONVERSATION[:-3]]),
                capture_output=True,
                cwd=ROOT,
                timeout=patience(),
            )
        finally:
            node.kill()
    heard = as_lines([reply for _, reply in CONVERSATION[:-3] if reply is not None])
    assert ours.stdout == heard, ours.stderr


#: Until there is somebody to connect to.
AGAIN = 'i=0; until "$@"; do i=$((i + 1)); [ $i -lt 20 ] || exit 1; done'


@OPENSSL
def test_our_client_talks_to_openssl() -> None:
    """`s_server` opens what comes, and seals what this test answers."""
    port = free_port()
    files = ("-cert", SERVER[0], "-key", SERVER[1])
    command = [*OUR_CLIENT, "--port", str(port), "--tls-ca", CA]
    with (
        openssl("s_server", "-accept", f"127.0.0.1:{port}", *files, "-quiet", "-tls1_3") as server,
        subprocess.Popen(
            ["sh", "-c", AGAIN, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        ) as ours,
    ):
        source, sink = server
        assert ours.stdin and ours.stdout

        def read_line() -> bytes:
            line = b""
            while not line.endswith(b"\n"):
                assert select.select([source], [], [], patience())[0], line
                line += os.read(source.fileno(), 1)
            return line

        try:
            client_key = parse_public_key(from_line(read_line()))
            sink.write(KEY.line)
            assert opened(read_line(), *client_key).startswith(b"CONNECT ")
            sink.write(KEY.seal(b"CONNECT: OK"))
            ours.stdin.write(b"GET colour\n")
            ours.stdin.flush()
            assert opened(read_line(), *client_key) == b"GET colour"
            sink.write(KEY.seal(b"blue"))
            assert ours.stdout.readline() == b"blue\n"
        finally:
            ours.kill()
