"""`make run-client` at a terminal: line editing and history where rlwrap is installed."""

import contextlib
import fcntl
import os
import select
import shlex
import shutil
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import starts
from conftest import ROOT, Server
from patience import patience

UP, CTRL_D = b"\x1b[A", b"\x04"

pytestmark = [
    pytest.mark.skipif(shutil.which("rlwrap") is None, reason="rlwrap is not installed"),
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]


class Terminal:
    """A pseudo-terminal with `make run-client` in it."""

    def __init__(self, directory: Path, *args: str) -> None:
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._seen = ""
        command = [str(shutil.which("make")), "run-client", *args]
        environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
        code = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
        self.process = starts.start(
            *("-c", code, *command),
            terminal=self.slave,
            cwd=directory,
            env={**environment, "TERM": "xterm", "HOME": str(directory)},
            **dict.fromkeys(("stdin", "stdout", "stderr"), self.slave),
        )

    def press(self, keys: bytes) -> None:
        """Types `keys`."""
        os.write(self.master, keys)

    def shows(self, text: str) -> None:
        """Waits until `text` is shown; looks behind it the next time."""
        deadline = time.monotonic() + patience()
        while text not in self._seen:
            ready = select.select([self.master], [], [], deadline - time.monotonic())[0]
            assert ready, f"waited in vain for {text!r} in {self._seen!r}"
            self._seen += os.read(self.master, 65536).decode(errors="replace")
        self._seen = self._seen.partition(text)[2]

    def close(self) -> None:
        """Ends what is left of it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What a clone has after the first `make`; its .venv is this interpreter."""
    for name in ("Makefile", "requirements.txt", "kv"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    inputs = f"{sys.executable}\n{(ROOT / 'requirements.txt').read_text()}"
    (tmp_path / ".venv" / "made-from").write_text(inputs)
    return tmp_path


@pytest.fixture
def start(directory: Path, server: Server) -> Iterator[Callable[..., Terminal]]:
    """`start(*variables)` is a terminal with a client of the shared server."""
    with contextlib.ExitStack() as stack:

        def make(*args: str) -> Terminal:
            terminal = Terminal(directory, f"PORT={server.port}", *args)
            stack.callback(terminal.close)
            return terminal

        yield make


def test_the_arrow_brings_back_the_last_line_now_and_in_the_next_session(
    start: Callable[..., Terminal], directory: Path
) -> None:
    terminal = start()
    terminal.shows("kv> ")
    terminal.press(b"GET colour\n")
    terminal.shows("GET: ERROR")
    terminal.shows("kv> ")
    terminal.press(UP)
    terminal.shows("GET colour")
    terminal.press(b"\n")
    terminal.shows("GET: ERROR")
    terminal.shows("kv> ")
    terminal.press(CTRL_D)
    assert terminal.process.wait(patience()) is not None
    again = start()
    again.shows("kv> ")
    again.press(UP)
    again.shows("GET colour")
    again.press(b"\n")
    again.shows("GET: ERROR")
    outside = {path.name for path in directory.iterdir()}
    assert outside == {".venv", "Makefile", "requirements.txt", "kv"}, "history belongs into .venv"


def test_it_can_be_refused(start: Callable[..., Terminal], directory: Path) -> None:
    terminal = start("RLWRAP=")
    terminal.shows("kv> ")
    terminal.press(b"GET colour\n")
    terminal.shows("GET: ERROR")
    terminal.press(CTRL_D)
    assert terminal.process.wait(patience()) is not None
    assert not (directory / ".venv" / "history").exists()
