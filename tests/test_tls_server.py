"""A server that speaks TLS: options, log, certificates, and strangers that talk to it."""

import contextlib
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from certificates import CA, CLIENT, OTHER_CA, SERVER, STRANGER
from conftest import ROOT, Server
from crafted import (
    APPLICATION_DATA,
    ASKED,
    CRAFTED,
    HANDSHAKE,
    KEY_UPDATE,
    Crafter,
    logging_context,
)
from house import house
from patience import patience
from test_interop import CONVERSATION, NODE, PROGRAMS, as_lines
from tls_peer import TlsSocket, trusting
from wire import KEY, Peer, from_line, new_id, open_line, parse_public_key

OPENSSL = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not on this machine")
OPTIONS = ("--tls-cert", SERVER[0], "--tls-key", SERVER[1])

StartServer = Callable[..., Server]
RunKv = Callable[..., "subprocess.CompletedProcess[str]"]


class TlsPeer(Peer):
    """A peer that speaks TLS."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        super().__init__(port)
        self.socket: Any = TlsSocket(self.socket, context)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("tls"), *OPTIONS, "--log-level", "debug")
    try:
        yield server.wait_until_listening()
        server.check_log()
    finally:
        server.stop()


@pytest.fixture
def talk(tls_server: Server) -> Iterator[Callable[..., TlsPeer]]:
    """A factory of peers that have connected and said nothing."""
    with contextlib.ExitStack() as stack:
        yield lambda *args: stack.enter_context(TlsPeer(tls_server.port, *args))


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tls-cert", "none.pem"), "cannot speak TLS: cannot read none.pem: No such file"),
        (("--tls-cert", SERVER[0]), "no certificate in"),
        (("--tls-cert", SERVER[0], "--tls-key", CLIENT[1]), "is not the one of"),
        ((*OPTIONS, "--tls-client-ca", SERVER[1]), "no certificate in"),
    ],
)
def test_files_that_cannot_be_used_are_one_line_and_status_1(
    run_kv: RunKv, options: tuple[str, ...], message: str
) -> None:
    ended = run_kv("server", "--port", "0", *options)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("file", [SERVER[1], ""], ids=["file", "empty"])
@pytest.mark.parametrize("option", ["--tls-key", "--tls-client-ca"])
def test_the_other_options_need_a_certificate(run_kv: RunKv, option: str, file: str) -> None:
    ended = run_kv("server", "--port", "0", option, file)
    assert ended.returncode == 2
    assert "need --tls-cert" in ended.stderr


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        (
            "import kv.__main__, kv.process, kv.registry.registry; kv.PrivateKey.generate()",
            "ssl pyasn1",
        ),
        ("import kv; kv.Client", "ssl"),
        (
            "import kv.__main__; kv.__main__.parser().parse_args(['server'])",
            "kv.registry kv.net.proxy kv.net.reception",
        ),
    ],
    ids=["server", "client", "options"],
)
def test_nobody_waits_for_modules_that_nothing_uses(code: str, unwanted: str) -> None:
    code += f"; import sys; sys.exit(bool({{*{unwanted.split()}}} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- who gets in -------------------------------------------------------------------------------


def test_only_clients_with_a_certificate_of_that_authority_get_in(
    start_server: StartServer,
) -> None:
    server = start_server(*OPTIONS, "--tls-client-ca", CA)
    for own, heard in ((None, "CERTIFICATE_REQUIRED"), (STRANGER, "UNKNOWN_CA")):
        context = trusting()
        if own:
            context.load_cert_chain(*own)
        with TlsPeer(server.port, context) as peer, pytest.raises(ssl.SSLError, match=heard):
            peer.handshake()
    server.wait_for_log("the peer has no certificate")
    server.wait_for_log("the peer's certificate is not accepted: unable to get local issuer")
    context = trusting()
    context.load_cert_chain(*CLIENT)
    with TlsPeer(server.port, context) as peer:
        peer.handshake().connect("bob")
        line = server.log_lines("has a session")[0]
        assert f"'bob' at 127.0.0.1:{peer.port}, certificate 'alice' has a session" in line


def test_a_plain_client_is_told_from_one_that_speaks_tls(start_server: StartServer) -> None:
    server = start_server(*OPTIONS)
    with Peer(server.port) as plain:
        plain.send_raw(KEY.line)
        assert plain.read_to_end() == b""
    server.wait_for_log(f"lost 127.0.0.1:{plain.port}: the peer does not speak TLS")


# --- the certificates are read again -----------------------------------------------------------


def test_sighup_has_the_certificates_read_again(start_server: StartServer, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(pair: tuple[str, str]) -> None:
        shutil.copy(pair[0], certificate)
        shutil.copy(pair[1], key)

    def name(ca: str) -> str:
        context = trusting(ca)
        context.check_hostname = False
        with TlsPeer(server.port, context) as peer:
            peer.handshake()
            return peer.socket.tls.getpeercert()["subject"][0][0][1]  # type: ignore[no-any-return]

    install(SERVER)
    server = start_server("--tls-cert", str(certificate), "--tls-key", str(key))
    with TlsPeer(server.port) as old:
        old.handshake().connect(new_id())
        assert name(CA) == "localhost"
        install(STRANGER)
        server.signal(signal.SIGHUP)
        server.wait_for_log("the certificates were read again")
        assert name(OTHER_CA) == "mallory"
        key.write_text("broken\n")
        server.signal(signal.SIGHUP)
        server.wait_for_log(
            "ERROR SIGHUP received; the certificates in use stay: no certificate in"
        )
        assert name(OTHER_CA) == "mallory"
        assert old.ask("GET x") == "GET: ERROR"
    assert server.stop() == 0


def test_under_nohup_sighup_is_ignored_and_the_log_says_so(start_server: StartServer) -> None:
    server = start_server(*OPTIONS, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    server.wait_for_log("WARNING SIGHUP is ignored, as it was at the start")
    with TlsPeer(server.port) as peer:
        server.signal(signal.SIGHUP)
        peer.handshake().connect(new_id())
    assert "SIGHUP received" not in server.log()


# --- ends --------------------------------------------------------------------------------------


def test_a_client_that_is_cut_off_is_lost_and_its_id_free(
    tls_server: Server, talk: Callable[..., TlsPeer]
) -> None:
    tls_server.forget_log()
    client_id = new_id()
    client = talk().handshake().connect(client_id)
    client.socket.tcp.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError):
        client.read_to_end()
    log = tls_server.wait_for_log("the connection was cut off")
    assert f"lost {client_id!r} at 127.0.0.1:{client.port}" in log
    talk().handshake().connect(client_id)


def test_commands_that_came_before_it_was_cut_off_were_done(
    tls_server: Server, talk: Callable[..., TlsPeer]
) -> None:
    """They were whole, and in order: it is what followed that is missing."""
    tls_server.forget_log()
    client = talk().handshake().connect(new_id())
    client.send_text(*["GET x"] * 500)
    client.socket.tcp.shutdown(socket.SHUT_WR)
    tls_server.wait_for_log("the connection was cut off")
    client.socket.tcp.close()


def test_a_forged_record_ends_the_session(tls_server: Server, talk: Callable[..., TlsPeer]) -> None:
    tls_server.forget_log()
    client = talk().handshake().connect(new_id())
    client.socket.tcp.sendall(b"\x17\x03\x03\x00\x50" + bytes(0x50))
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        client.read_line()
    tls_server.wait_for_log("bad record mac")


# --- half-finished handshakes ------------------------------------------------------------------


def test_one_octet_at_a_time_is_a_handshake_too(tls_server: Server) -> None:
    with TlsPeer(tls_server.port) as peer:
        tcp = peer.socket.tcp

        class OneByOne:
            def send(self, octets: bytes) -> int:
                return int(tcp.send(octets[:1]))

            def __getattr__(self, name: str) -> Any:
                return getattr(tcp, name)

        peer.socket.tcp = OneByOne()
        peer.handshake().connect(new_id())
        peer.socket.tcp = tcp


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "the peer ended the connection in the TLS handshake"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "the peer says: handshake failure"),
    ],
    ids=["FIN", "an alert"],
)
def test_an_odd_client_is_one_line_in_the_log(tls_server: Server, octets: bytes, why: str) -> None:
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        trusting().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    with Peer(tls_server.port) as client:
        client.send_raw(outgoing.read() + octets)
        client.half_close()
        client.read_to_end()
        tls_server.wait_for_log(f"127.0.0.1:{client.port}: {why}")
        assert len(tls_server.log_lines(f":{client.port}: ")) == 1


def test_to_open_a_record_may_take_all_that_is_left_of_a_turn() -> None:
    with house(tls=True, budget=5) as h:
        guests = [h.guest().connect(name) for name in ("alice", "bob", "carol")]
        assert [guest.ask("GET a") for guest in guests] == [["GET: ERROR"]] * 3
        assert not h.server.drops


@CRAFTED
def test_a_reply_waits_for_the_rest_of_a_message_that_has_begun(
    tls_server: Server, tmp_path: Path
) -> None:
    with TlsPeer(tls_server.port, logging_context(tmp_path / "keys")) as peer:
        peer.handshake()
        crafter = Crafter(tmp_path / "keys")
        crafter.record(APPLICATION_DATA, b"what `handshake` has sent")
        said = crafter.record(APPLICATION_DATA, KEY.seal(f"CONNECT {new_id()}".encode()))
        peer.socket.tcp.sendall(said + crafter.record(HANDSHAKE, KEY_UPDATE))
        assert peer.silent()
        peer.socket.tcp.sendall(crafter.record(HANDSHAKE, ASKED))
        assert peer.read_text() == "CONNECT: OK"


# --- strangers ---------------------------------------------------------------------------------


def test_pythons_blocking_ssl_talks_to_it(tls_server: Server) -> None:
    with (
        socket.create_connection(("127.0.0.1", tls_server.port), patience()) as tcp,
        trusting().wrap_socket(
            tcp, server_hostname="localhost", suppress_ragged_eofs=False
        ) as sock,
    ):
        lines = sock.makefile("rb")
        sock.sendall(KEY.line)
        server_key = parse_public_key(from_line(lines.readline()))
        said = ["CONNECT blocking", "GET x", "DISCONNECT"]
        sock.sendall(b"".join(KEY.seal(text.encode()) for text in said))
        heard = [open_line(line, *server_key) for line in lines]  # to the end, which is proper
        assert heard == ["CONNECT: OK", "GET: ERROR", "DISCONNECT: OK"]


@NODE
def test_nodes_tls_talks_to_it(tls_server: Server) -> None:
    texts = [f"CONNECT {new_id()}", *(said for said, _ in CONVERSATION), "DISCONNECT"]
    heard = ["CONNECT: OK", *(reply for _, reply in CONVERSATION if reply is not None)]
    command = ["node", str(PROGRAMS / "client.js"), str(tls_server.port), CA]
    ended = subprocess.run(command, input=as_lines(texts), capture_output=True, timeout=patience(3))
    assert ended.stdout == as_lines([*heard, "DISCONNECT: OK"]), ended.stderr


def typed(text: str) -> bytes:
    """A sealed line that `openssl s_client` does not take for one of its commands."""
    for number in range(100):
        line = KEY.seal(f"{text}{number}".encode())
        if line[:1] not in b"BKQRbkqr":
            return line
    raise AssertionError("unreachable")


@contextlib.contextmanager
def openssl(*arguments: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The program's standard output and input."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(["openssl", *arguments], bufsize=0, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process.stdout, process.stdin
        finally:
            process.kill()


@OPENSSL
def test_openssl_talks_to_it_and_new_keys_change_nothing(tls_server: Server) -> None:
    """A line that begins with K makes `s_client` ask for new keys."""
    address = f"127.0.0.1:{tls_server.port}"
    with openssl("s_client", "-connect", address, "-CAfile", CA, "-verify_return_error") as (
        source,
        sink,
    ):
        heard = b""

        def hear(count: int, what: bytes = rb"^[\w+/]{80,}=*\n") -> list[bytes]:
            """The server's lines, once there are so many; openssl's own are others."""
            nonlocal heard
            while len(found := re.findall(what, heard, re.M)) < count:
                assert select.select([source], [], [], patience())[0], heard
                octets = source.read(65536)
                assert octets, heard
                heard += octets
            return found

        sink.write(KEY.line)
        hear(1)
        sink.write(typed("CONNECT typed "))
        hear(2)
        for number in range(20):
            for asked in range(5):
                sink.write(b"K\n")
                hear(5 * number + asked + 1, b"^KEYUPDATE\n")
            sink.write(typed("GET x"))
            hear(3 + number)
        key, *lines = hear(22)
        texts = [open_line(line, *parse_public_key(from_line(key))) for line in lines]
        assert texts == ["CONNECT: OK", *["GET: ERROR"] * 20]
