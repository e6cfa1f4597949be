"""What crowds and slow readers can do to a server in total, and what becomes of them at its end.

`make test` has the same on a small scale. Needs /proc.
"""

import contextlib
import resource
import signal
import time
from collections.abc import Callable

from conftest import Server, wait_until
from test_hostile import resident, statistics
from wire import KEY, Barrier, Peer

from kv.net.log import MOST
from kv.net.turns import UNSENT

StartServer = Callable[..., Server]
MakePeer = Callable[..., Peer]

VALUE = "v" * 250


def test_a_reader_of_16_kb_a_second_gets_every_reply_of_a_server_that_stops(
    start_server: StartServer, peer: MakePeer
) -> None:
    """320 replies of 429 octets take it 8.6 s, and the stop has 5."""
    server = start_server()
    client = peer(port=server.port, small_buffers=True)
    client.send_text("PUT x", VALUE, *["GET x"] * 320)
    with contextlib.closing(Barrier(server.port)) as barrier:
        barrier.wait(320)
    server.signal(signal.SIGTERM)
    received, start = b"", time.monotonic()
    while octets := client.socket.recv(1600):
        received += octets
        while len(received) > 16_000 * (time.monotonic() - start):
            time.sleep(0.01)
    _, *lines = received.splitlines(keepends=True)
    print(f"{len(lines)} of 320 arrive in {time.monotonic() - start:.1f} s")
    assert lines == lines[:1] * 320
    client.close()
    assert server.wait() == 1  # the kernel had the last of them, and nobody could know
    assert "1 connection cut short" in server.log()


def test_a_thousand_clients_that_do_not_read_cost_twice_what_all_may_leave_unsent_at_most(
    start_server: StartServer,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    server = start_server()
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        peers = []
        for number in range(1000):
            client = stack.enter_context(Peer(server.port, small_buffers=True))
            peers.append(client.handshake().connect(str(number)))
            client.ask("PUT x", VALUE)
            client.ask("GET x")
        before = resident(server)
        for client in peers:
            client.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.socket.send(client.seal("GET x") * 700)
        handled = -1
        while handled != (now := int(statistics(server)["messages"])):
            handled = now
            time.sleep(0.5)
        grown = resident(server) - before
        print(f"{grown / 2**20:.1f} MiB for 1,000 clients that do not read")
        assert grown < 2 * UNSENT


def test_five_thousand_resets_in_a_moment_are_a_few_hundred_lines_of_log(
    start_server: StartServer,
) -> None:
    server = start_server()
    server.forget_log()
    start = time.monotonic()
    for _ in range(20):
        crowd = [Peer(server.port) for _ in range(250)]
        for client in crowd:
            client.send_raw(KEY.line)
        for client in crowd:
            client.read_key()
            client.reset()
    wait_until(lambda: "5000 lost" in statistics(server)["drops"], "all to be lost")
    took = time.monotonic() - start
    assert server.stop() == 0
    lines = len(server.log_lines("lost 127"))
    told = [int(line.split()[2].replace(",", "")) for line in server.log_lines("more about peers")]
    print(f"{lines} lines and {sum(told)} more in {took:.1f} s")
    assert lines <= MOST * (took + 2)
    assert lines + sum(told) == 5000
