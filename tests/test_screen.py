"""The line that says how far a script has come: when it is there, what it says, that it goes."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pitfalls.in_process import Pipe, client, turn

from kv.screen import progress


def test_it_says_lines_of_how_many_how_fast_and_how_long_it_will_take() -> None:
    assert progress(500, 0.25, 10.0) == "500 of about 2,000 lines, 50 a second, 0:30 left"
    assert progress(1000, 0.01, 6.0) == "1,000 of about 100,000 lines, 167 a second, 9:54 left"


def test_without_a_size_it_says_lines_and_how_fast() -> None:
    assert progress(12_345, 0, 10.0) == "12,345 lines, 1,234 a second"
    assert progress(0, 0.5, 1.0) == "0 lines, 0 a second"


class Screen:
    """What a terminal shows of standard error."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)

    def text(self) -> str:
        """All that has come since the last call."""
        try:
            return os.read(self.master, 65536).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    one = Screen()
    yield one
    one.close()


LINES = 1000


def shown(screen: Screen, tmp_path: Path, quiet: bool = False) -> list[str]:
    """What the terminal shows at once, after a second, and when the script is over."""
    script = tmp_path / "script"
    script.write_text("GET k\n" * LINES)
    with ExitStack() as stack:
        source = stack.enter_context(script.open("rb"))
        output = stack.enter_context(Pipe())
        shell, server = stack.enter_context(
            client(source.fileno(), output.sink, screen.slave, quiet)
        )

        def answer(count: int) -> None:
            for _ in range(count):
                turn(shell, lambda: not shell._link.idle)
                assert server.read_text() == "GET k"
                server.reply("v")
                turn(shell, lambda before=shell._order.answered: shell._order.answered > before)

        answer(100)
        texts = [screen.text()]
        shell._reactor.time.now += 1.0  # type: ignore[attr-defined]
        shell._reactor.turn()
        texts.append(screen.text())
        answer(LINES - 100)
        turn(shell, lambda: not shell._link.idle)
        assert server.read_text() == "DISCONNECT"
        server.reply("DISCONNECT: OK")
        server.half_close()
        turn(shell, lambda: shell._status is not None)
        texts.append(screen.text())
    return texts


def test_it_comes_after_a_second_and_is_gone_at_the_end(screen: Screen, tmp_path: Path) -> None:
    before, after, end = shown(screen, tmp_path)
    assert before == ""
    assert after == "\r100 of about 1,000 lines, 100 a second, 0:09 left"
    assert end == "\r" + " " * (len(after) - 1) + "\r"


@pytest.mark.parametrize("variable", ["TERM=dumb", "TERM=", "NO_COLOR=1"])
def test_it_is_off_on_a_dumb_terminal(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(*variable.split("="))
    assert shown(screen, tmp_path) == ["", "", ""]


def test_it_is_off_when_told_to_be_quiet(screen: Screen, tmp_path: Path) -> None:
    assert shown(screen, tmp_path, quiet=True) == ["", "", ""]
