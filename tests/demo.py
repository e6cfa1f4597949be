"""`make demo`: a server under its microscope, and four clients one after the other.

Takes about ten seconds and no input. Leaves `demo.html`, which shows the same step by step.
"""

import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from program import run as program
from wire import Peer

ROOT = Path(__file__).resolve().parent.parent
KV = (sys.executable, "-m", "kv")
BOLD, PLAIN = ("\x1b[1m", "\x1b[m") if sys.stdout.isatty() else ("", "")


FAST = sys.argv[1:] == ["--fast"]  # nobody reads along, or wants the page
#: Seconds that a pause of one second takes.
PACE = 0.05 if FAST else 1.0


def pause(seconds: float) -> None:
    """Gives time to read."""
    time.sleep(PACE * seconds)


def say(*sentences: str) -> None:
    """The narrator."""
    pause(0.4)
    print("", *(f"{BOLD}== {sentence}{PLAIN}" for sentence in sentences), "", sep="\n", flush=True)
    pause(0.7)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def first_connection(server: subprocess.Popen[bytes], port: int) -> Peer:
    """A connection, as soon as the server listens."""
    for _ in range(500):
        try:
            return Peer(port)
        except ConnectionRefusedError:
            if server.poll() is not None:
                break
            time.sleep(0.02)
    raise SystemExit("the server did not start")


def until_reset(peer: Peer) -> None:
    """Waits until the server has given up a peer that does not read; ten seconds at most."""
    poll = select.poll()
    poll.register(peer.socket, 0)  # no interest: an error is told all the same
    poll.poll(10_000)


def play(server: subprocess.Popen[bytes], port: int) -> list[Peer]:
    """Brings on the clients, says what there is to see of each, and returns who is still there."""
    alice = first_connection(server, port)
    say("An honest client: CONNECT, PUT, and the same GET twice. The second needs no arithmetic.")
    alice.handshake().connect("alice")
    alice.send_text("PUT colour", "blue")
    alice.read_text()
    for _ in range(2):
        alice.ask("GET colour")

    say("One that sends an octet at a time. They are collected, and nobody waits for the rest.")
    bob = Peer(port).handshake().connect("bob")
    line = bob.seal("GET colour")
    bob.send_raw(line[:-6])
    for octet in line[-6:]:
        pause(0.1)
        bob.send_raw(bytes([octet]))
    bob.read_text()

    say(
        "One that asks a thousand times and never reads. The kernel's buffers are full first, then",
        "the server's own: from there on it is not read from, and has two seconds to take a reply.",
    )
    carol = Peer(port, small_buffers=True).handshake().connect("carol")
    carol.send_text("PUT k", "v" * 265, *["GET k"] * 1000)
    say("Meanwhile, the first one is served as before.")
    alice.ask("GET colour")
    pause(1)

    say("One that thinks this is a web server.")
    with Peer(port) as browser:
        browser.send_raw(b"GET / HTTP/1.1\r\n\r\n")

    until_reset(carol)
    say("And the end: SIGTERM. Whoever is still there is finished first.")
    return [alice, bob, carol]


def main() -> int:
    """Plays the demonstration."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        events = Path(directory) / "demo.json"
        limits = ("--port", str(port), "--stall-timeout", str(2 * PACE))
        command = [*KV, "server", *limits, "--trace", "--trace-file", events]
        server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
        try:
            peers = play(server, port)
            server.terminate()
            pause(1)
            for peer in peers:
                peer.close()
            status = server.wait(10)
        finally:
            server.kill()  # has no effect once it has ended
        with open((Path(directory) if FAST else ROOT) / "demo.html", "wb") as page:
            subprocess.run([*KV, "replay", events], cwd=ROOT, stdout=page, check=True)
    say("Open demo.html in a browser: it shows the same, step by step. Its keys are the arrows.")
    return int(status)


if __name__ == "__main__":
    program(main)
