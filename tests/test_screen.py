"""What people see, and where. How far a script has come: when, what, and that it goes."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from unittest import mock

import pytest
from patience import patience
from pitfalls.in_process import Pipe, client, standard, turn
from pitfalls.pitfall import bounded

import kv.screen
from kv.net.reactor import Reactor
from kv.net.stdio import HIGH_WATER
from kv.screen import Progress, progress


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
        stack.enter_context(bounded(patience()))
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


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with closing(Reactor()) as one:
        yield one


@pytest.fixture
def pipes() -> Iterator[tuple[Pipe, Pipe]]:
    with Pipe() as out, Pipe() as notices:
        yield out, notices


def test_replies_and_notices_go_where_they_belong(
    screen: Screen, pipes: tuple[Pipe, Pipe], reactor: Reactor
) -> None:
    out, notices = pipes
    with standard(screen.slave, out.sink, notices.sink):
        shown = kv.screen.Screen(reactor, lambda: None)
        shown.show("a\x1b")
        shown.say("b\x1b\nc")
        shown.status("half")
        shown.status("all")
        shown.say("d")
    assert os.read(out.source, 99) == b"a\x1b\n"  # as it is, for a program
    assert os.read(notices.source, 99) == b"b\\x1b\nc\n\rhalf\rall \r   \rd\n"


def test_a_prompt_is_shown_once_and_nothing_is_behind_it(screen: Screen, reactor: Reactor) -> None:
    with standard(screen.slave, screen.slave, screen.slave):
        shown = kv.screen.Screen(reactor, lambda: None)
        assert shown.interactive
        shown.prompt("kv> ")
        shown.prompt("kv> ")
        shown.show("a\x1b")
        shown.prompt("kv> ")
        shown.answered()
        shown.say("b")
        shown.prompt("value> ")
        shown.fresh_line()
        shown.fresh_line()
        os.close(shown._output._descriptor)
    assert "".join(iter(screen.text, "")) == "kv> \r\na\\x1b\r\nkv> b\r\nvalue> \r\n"


def test_what_cannot_be_written_yet_is_waited_for(
    pipes: tuple[Pipe, Pipe], reactor: Reactor
) -> None:
    out, notices = pipes
    with standard(notices.source, out.sink, notices.sink):  # as at a terminal with `> file`
        shown = kv.screen.Screen(reactor, lambda: None)
        assert shown.done and not shown.interactive
        for pipe, show in ((notices, shown.say), (out, shown.show)):
            while pipe.write(b"x" * 4096):
                pass
            show("more")
            assert not shown.done
        for output in (shown._output, shown._notices):
            output._pending[:] = b"y" * (HIGH_WATER - 1)
            assert not shown.full
            output._pending += b"z"
            assert shown.full
            output._pending.clear()


def test_it_comes_after_a_second_and_is_gone_at_the_end(screen: Screen, tmp_path: Path) -> None:
    before, after, end = shown(screen, tmp_path)
    assert before == ""
    assert after == "\r100 of about 1,000 lines, 100 a second, 0:09 left"
    assert end == "\r" + " " * (len(after) - 1) + "\r"


@pytest.mark.parametrize(("columns", "length"), [(20, 19), (0, 79), (None, 79)])
def test_it_fits_in_one_line_of_the_terminal(
    columns: int | None, length: int, reactor: Reactor
) -> None:
    def size(_: int) -> os.terminal_size:
        if columns is None:
            raise OSError
        return os.terminal_size((columns, 24))

    on = mock.Mock()
    line = Progress(reactor, on, lambda: (10**60, 0))
    with mock.patch("kv.screen.os.get_terminal_size", size):
        line._show()
    assert len(on.status.call_args.args[0]) == length


@pytest.mark.parametrize("variable", ["TERM=dumb", "TERM=", "NO_COLOR=1"])
def test_it_is_off_on_a_dumb_terminal(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(*variable.split("="))
    assert shown(screen, tmp_path) == ["", "", ""]


def test_it_is_off_when_told_to_be_quiet(screen: Screen, tmp_path: Path) -> None:
    assert shown(screen, tmp_path, quiet=True) == ["", "", ""]
