"""TLS by somebody else, in front of a plain server: the configurations that the course shows."""

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import SERVER
from conftest import Server, wait_until
from test_tls_client import free_port, library
from tls_peer import TlsSocket
from wire import Peer, new_id

COURSE = Path(__file__).resolve().parent.parent / "kv" / "README.md"

#: What a configuration begins with, and the command for it.
PROXIES: dict[str, tuple[str, Callable[[str], list[str]]]] = {
    "haproxy": ("defaults\n", lambda file: ["haproxy", "-db", "-f", file]),
    "stunnel": ("foreground = yes\n", lambda file: ["stunnel", file]),
}


@pytest.fixture(
    params=[
        pytest.param(
            name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not here")
        )
        for name in PROXIES
    ]
)
def port(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[int]:
    """The port of a proxy, configured as the course has it, but for the ports and the file."""
    first, command = PROXIES[request.param]
    found = re.search(rf"```\n({first}.*?)```", COURSE.read_text(), re.S)
    assert found
    both, file, port = tmp_path / "both.pem", tmp_path / "proxy.conf", free_port()
    both.write_text("".join(Path(part).read_text() for part in SERVER))
    both.chmod(0o600)
    shown = (
        found[1]
        .replace("both.pem", str(both))
        .replace("127.0.0.1:4242", f"127.0.0.1:{server.port}")
    )
    file.write_text(re.sub(r" :?4243\b", f" 127.0.0.1:{port}", shown))
    log = tmp_path / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(command(str(file)), stdout=said, stderr=said)
    try:
        wait_until(lambda: reachable(port) or process.poll() is not None, "the proxy to listen")
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.kill()
        process.wait()


def reachable(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_our_client_talks_through_it(port: int) -> None:
    with library(port) as kv:
        kv.put("colour", "blue")
        assert kv.get("colour") == "blue"
        pipeline = kv.pipeline()
        for number in range(300):
            pipeline.put(f"k{number}", "v" * 265).get(f"k{number}")
        assert pipeline.execute() == [True, "v" * 265] * 300


def test_a_half_closed_client_still_gets_its_replies_through_it(port: int) -> None:
    with Peer(port) as peer:
        peer.socket = TlsSocket(peer.socket)  # type: ignore[assignment]
        peer.handshake().connect(new_id())
        peer.send_text(*["GET x"] * 50)
        peer.socket.shutdown(socket.SHUT_WR)
        assert [peer.read_text() for _ in range(50)] == ["GET: ERROR"] * 50
        assert peer.read_to_end() == b""
