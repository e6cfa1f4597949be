"""The example of a client on asyncio does what it says, with the real server."""

import starts
from conftest import Server


def test_the_asyncio_client_runs(server: Server) -> None:
    program = ("-m", "tests.examples.asyncio_client", str(server.port))
    done = starts.run(*program)
    assert done.stderr == ""
    assert sorted(done.stdout.split("\n")) == [
        "",
        "DISCONNECT: OK",
        "DISCONNECT: OK",
        "alice",
        "bob",
    ]
