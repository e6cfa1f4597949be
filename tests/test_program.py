"""How the programs in tests/ end when nobody reads them any more, as in `make pitfalls | head`."""

import os
import subprocess

import pytest
import starts


def with_no_reader(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python; its standard output is a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return starts.run(*arguments, stdout=writer)
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "arguments",
    [
        ("pitfalls",),
        ("pitfalls", "6"),
        ("ladder", "--step=1"),
        ("simulation", "--seeds=1"),
        ("simulation", "--seed=3"),
        ("tests.bench", "--help"),
        ("tests.demo", "--fast"),
    ],
)
def test_a_reader_that_leaves_ends_a_program_quietly(arguments: tuple[str, ...]) -> None:
    done = with_no_reader("-m", *arguments)
    assert done.returncode == 0
    assert not any(word in done.stderr for word in ("Traceback", "Exception", "Broken")), (
        done.stderr
    )


SOCKET = """
import socket
from tests.program import run
one, other = socket.socketpair()
other.close()
run(lambda: one.send(b"lost"))
"""


def test_a_broken_pipe_of_a_socket_is_still_an_error() -> None:
    done = starts.run("-c", SOCKET)
    assert done.returncode == 1
    assert "BrokenPipeError" in done.stderr


def test_ctrl_c_is_status_130() -> None:
    code = "from tests.program import run\ndef main(): raise KeyboardInterrupt\nrun(main)"
    done = starts.run("-c", code)
    assert (done.returncode, done.stderr) == (130, "")
