"""The example of a client on asyncio does what it says, with the real server."""

import subprocess
import sys

from conftest import PATIENCE, ROOT, Server


def test_the_asyncio_client_runs(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.examples.asyncio_client", str(server.port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stderr == ""
    assert sorted(done.stdout.split("\n")) == [
        "",
        "DISCONNECT: OK",
        "DISCONNECT: OK",
        "alice",
        "bob",
    ]
