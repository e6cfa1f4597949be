"""`make demo`: a server with a trace, and four clients one after the other.

The demo takes about ten seconds and no input. It leaves `demo.html`, which shows the same step by
step.
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


FAST = sys.argv[1:] == ["--fast"]  # for tests: no pauses, and no page
#: Seconds that a pause of one second takes.
PACE = 0.05 if FAST else 1.0


def pause(seconds: float) -> None:
    """Gives time to read."""
    time.sleep(PACE * seconds)


def say(*sentences: str) -> None:
    """Prints what there is to see next."""
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
    poll.register(peer.socket, 0)  # no interest: `poll` still reports an error
    poll.poll(10_000)


def play(server: subprocess.Popen[bytes], port: int) -> list[Peer]:
    """Plays the clients, says what there is to see of each, and returns those still connected."""
    alice = first_connection(server, port)
    say("An honest client: CONNECT, PUT, and the same GET twice. The second needs no arithmetic.")
    alice.handshake().connect("alice")
    alice.send_text("PUT colour", "blue")
    alice.read_text()
    for _ in range(2):
        alice.ask("GET colour")

    say("A client that sends one octet at a time. The server keeps them, and does not wait.")
    bob = Peer(port).handshake().connect("bob")
    line = bob.seal("GET colour")
    bob.send_raw(line[:-6])
    for octet in line[-6:]:
        pause(0.1)
        bob.send_raw(bytes([octet]))
    bob.read_text()

    say(
        "A client that asks a thousand times and never reads. First the kernel's buffers fill,",
        "then the server's own. Then the server stops reading from it, and gives it two seconds.",
    )
    carol = Peer(port, small_buffers=True).handshake().connect("carol")
    carol.send_text("PUT k", "v" * 265, *["GET k"] * 1000)
    say("Until then, the server serves the first client as before.")
    alice.ask("GET colour")
    pause(1)

    say("A client that thinks this is a web server.")
    with Peer(port) as browser:
        browser.send_raw(b"GET / HTTP/1.1\r\n\r\n")

    until_reset(carol)
    say("And the end: SIGTERM. The server first answers the clients that are still connected.")
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
    say("Open demo.html in a browser. It shows the same, step by step, with the arrow keys.")
    return int(status)


if __name__ == "__main__":
    program(main)
