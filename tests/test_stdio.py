"""Standard input, output and the log: real pipes and files, and none of them ever waited for."""

import errno
import fcntl
import json
import logging
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import starts
from conftest import ROOT
from patience import patience
from pitfalls.pitfall import bounded

from kv.net.log import PEERS, LogHandler, plural
from kv.net.reactor import Reactor
from kv.net.stdio import READ_SIZE, Input, Output, escaped, writable

#: Four pages: a pipe counts as writable while one of them is free.
SMALL_PIPE = 4 * 4096
#: Octets: no line in these tests is longer, but where they say so.
LONGEST = 1000


@pytest.fixture(autouse=True)
def patient() -> Iterator[None]:
    """A call that blocks fails its test: there is nobody else to end it."""
    with bounded(patience()):
        yield


class Pipe:
    """Both ends of a pipe, in blocking mode as inherited ones are."""

    def __init__(self) -> None:
        self.source, self.sink = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self.sink, fcntl.F_SETPIPE_SZ, SMALL_PIPE)

    def fill(self, room: int = 0) -> bytes:
        """Writes until it is full, but for `room` octets; what is in it."""
        written = b""
        os.set_blocking(self.sink, False)
        for size in (4096, 1):
            try:
                while True:
                    written += b"." * os.write(self.sink, b"." * size)
            except BlockingIOError:
                pass
        os.set_blocking(self.sink, True)
        return written[os.read(self.source, room).__len__() :] if room else written

    def drain(self) -> bytes:
        """Reads all that is in it."""
        octets = b""
        while select.select([self.source], [], [], 0)[0] and (more := os.read(self.source, 65536)):
            octets += more
        return octets

    def close_source(self) -> None:
        os.close(self.source)
        self.source = -1

    def close_sink(self) -> None:
        os.close(self.sink)
        self.sink = -1

    def close(self) -> None:
        for descriptor in (self.source, self.sink):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    one = Pipe()
    yield one
    one.close()


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    one = Reactor()
    yield one
    one.close()


def run_until(reactor: Reactor, condition: Callable[[], object]) -> None:
    """Turns until `condition()`; `bounded` sees to it that this ends."""
    while not condition():
        reactor.turn()


def idle(reactor: Reactor) -> bool:
    """Whether the loop would sleep for ever: nothing watched, nothing due."""
    return not reactor._selector.get_map() and reactor._sleep() is None


# --- escaping --------------------------------------------------------------------------------


def test_control_characters_are_escaped_and_nothing_else_is() -> None:
    assert escaped("\x00\x07\t\n\r\x1b[31m\x7f") == r"\x00\x07\t\n\r\x1b[31m\x7f"
    assert escaped("\x80\x9b\x9f") == r"\x80\x9b\x9f"  # C1: CSI in one character
    assert escaped("\u2028\u2029") == r"\u2028\u2029"
    assert escaped("\ud800\udcff") == r"\ud800\udcff"
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", escaped("".join(map(chr, range(0x3000)))))
    plain = "".join(map(chr, range(0x20, 0x7F))) + "\u00a0caf\u00e9 \u4e2d\u6587 \U0001f600"
    assert escaped(plain) == plain


# --- descriptors that are closed at the start ------------------------------------------------

#: Prints, into the file that is its argument, what descriptors 0 to 2 are and the next number.
SHOW = """
import json, os, sys
from kv.net.stdio import open_missing
open_missing()
null = os.stat(os.devnull)
def same(one):
    return (one.st_dev, one.st_ino, one.st_rdev) == (null.st_dev, null.st_ino, null.st_rdev)
shown = {
    "null": [same(os.fstat(fd)) for fd in range(3)],
    "inheritable": [os.get_inheritable(fd) for fd in range(3)],
    "next": os.open(os.devnull, os.O_RDONLY),
    "writable": [bool(os.write(fd, b"x")) for fd in (1, 2)],
    "readable": os.read(0, 1).decode(),
}
with open(sys.argv[1], "w") as file:
    json.dump(shown, file)
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (1, 2), (0, 1, 2)], ids=str)
def test_missing_descriptors_are_opened_on_dev_null(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    redirections = "".join(f" {number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$@"{redirections}', "sh"]
    command += [sys.executable, "-c", SHOW, str(tmp_path / "shown")]
    subprocess.run(command, cwd=ROOT, input=b"y", capture_output=True, check=True)
    shown = json.loads((tmp_path / "shown").read_text())
    assert shown["null"] == [number in closed for number in range(3)]
    assert shown["inheritable"] == [True] * 3
    assert shown["next"] == 3  # and none is left open besides
    assert shown["writable"] == [True, True]
    assert shown["readable"] == ("" if 0 in closed else "y")


# --- output ----------------------------------------------------------------------------------


def test_a_pipe_is_writable_until_it_is_full(pipe: Pipe) -> None:
    assert writable(pipe.sink)
    pipe.fill()
    assert not writable(pipe.sink)
    pipe.drain()
    assert writable(pipe.sink)
    pipe.close_source()
    assert writable(pipe.sink)  # a write would not block: it would fail


def test_what_fits_is_written_at_once(pipe: Pipe, reactor: Reactor) -> None:
    output = Output(reactor, pipe.sink, lambda: None)
    output.write(b"one\n")
    output.write(b"two\n")
    assert pipe.drain() == b"one\ntwo\n"
    output.write(b"x" * 4 * select.PIPE_BUF)  # on Linux, that is all the room there is
    assert output.pending == 0
    assert idle(reactor)  # write interest with nothing to write would spin


def test_a_full_pipe_is_never_waited_for_and_nothing_is_lost(pipe: Pipe, reactor: Reactor) -> None:
    changes: list[int] = []
    before = pipe.fill()
    output = Output(reactor, pipe.sink, lambda: changes.append(output.pending))
    lines = [b"%06d\n" % number for number in range(50_000)]
    for line in lines:
        output.write(line)
    assert output.pending == 350_000
    received = b""
    while output.pending or not received.endswith(lines[-1]):
        received += pipe.drain()
        if output.pending:
            reactor.turn()
    assert received == before + b"".join(lines)
    assert changes == sorted(changes, reverse=True) and changes[-1] == 0
    assert idle(reactor)
    pipe.fill()
    output.write(b"kept")
    pipe.drain()
    output.write(b"and written by the next call, before the loop has seen any readiness")
    assert not idle(reactor)  # it has to tell of this, too
    reactor.turn()
    assert changes[-2:] == [0, 0]
    assert idle(reactor)


def test_a_pipe_with_less_room_than_it_promised_is_not_waited_for(
    pipe: Pipe, reactor: Reactor
) -> None:
    pipe.fill(room=100)
    output = Output(reactor, pipe.sink, lambda: None)
    output.write(b"x" * 4096)
    output.write(b"y" * 4096)
    run_until(reactor, lambda: (pipe.drain(), not output.pending)[1])


def test_a_descriptor_that_others_made_non_blocking_is_no_trouble(
    pipe: Pipe, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may also take the room between the question and the write."""
    output = Output(reactor, pipe.sink, lambda: None)
    filling = pipe.fill()
    os.set_blocking(pipe.sink, False)
    monkeypatch.setattr("kv.net.stdio.writable", lambda _: True)
    output.write(b"kept\n")
    assert output.pending and not output.error
    assert pipe.drain() == filling
    run_until(reactor, lambda: not output.pending)
    assert pipe.drain() == b"kept\n"


@pytest.mark.parametrize("full", [False, True])
def test_a_reader_that_has_left_is_an_error_and_the_rest_is_dropped(
    pipe: Pipe, reactor: Reactor, full: bool
) -> None:
    calls: list[OSError | None] = []
    output = Output(reactor, pipe.sink, lambda: calls.append(output.error))
    if full:
        pipe.fill()
        output.write(b"kept\n")
        assert output.pending and not output.error
    pipe.close_source()
    if not full:
        output.write(b"x\n")
        assert calls == []  # whoever writes is not called back in the middle of it
    run_until(reactor, lambda: output.error is not None and calls)
    assert output.error is not None and output.error.errno == errno.EPIPE
    assert calls[-1] is output.error
    output.write(b"dropped\n")
    assert output.pending == 0
    run_until(reactor, lambda: idle(reactor))


def test_after_a_full_disk_nothing_is_written_even_if_there_is_room_again(
    reactor: Reactor, tmp_path: Path
) -> None:
    """Or there would be a hole in the output, and nobody would know where."""
    path = tmp_path / "out"
    with open("/dev/full", "wb", buffering=0) as full, path.open("wb") as roomy:
        calls: list[bool] = []
        output = Output(reactor, full.fileno(), lambda: calls.append(True))
        output.write(b"x\n")
        run_until(reactor, lambda: calls)
        assert output.error is not None and output.error.errno == errno.ENOSPC
        os.dup2(roomy.fileno(), full.fileno())
        output.write(b"y\n")
    assert path.read_bytes() == b""


def test_a_regular_file_takes_everything_at_once(reactor: Reactor, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb", buffering=0) as file:
        output = Output(reactor, file.fileno(), lambda: None)
        output.write(b"x" * 1_000_000)
        assert output.pending == 0
    assert (tmp_path / "out").stat().st_size == 1_000_000
    assert idle(reactor)


# --- input -----------------------------------------------------------------------------------


def all_lines(reactor: Reactor, read: Input) -> list[bytes]:
    """Every line up to the end."""
    lines: list[bytes] = []
    read.read_on(True)
    while True:
        while (line := read.take()) is not None:
            lines.append(line)
        if read.ended:
            return lines
        reactor.turn()


def test_lines_come_whole_however_they_were_cut(pipe: Pipe, reactor: Reactor) -> None:
    received: list[bytes | None] = []
    read = Input(reactor, pipe.source, LONGEST, lambda: received.append(read.take()))
    read.read_on(True)
    for piece in (b"a", b"b", b"c\nde", b"f\n", b"\n"):
        os.write(pipe.sink, piece)
        reactor.turn()
    assert received == [None, None, b"abc", b"def", b""]
    assert read.take() is None and not read.ended


def test_what_follows_the_last_line_feed_is_a_line_once_the_input_has_ended(
    pipe: Pipe, reactor: Reactor
) -> None:
    os.write(pipe.sink, b"one\ntwo")
    read = Input(reactor, pipe.source, LONGEST, lambda: None)
    read.read_on(True)
    reactor.turn()
    assert [read.take(), read.take()] == [b"one", None]
    pipe.close_sink()
    run_until(reactor, lambda: read.ended)
    assert [read.take(), read.take()] == [b"two", None]
    assert idle(reactor)  # an ended pipe stays readable for ever


@pytest.mark.parametrize("text", [b"", b"\n", b"\n\n", b"one", b"one\n", b"one\n\n two\r\n\0\xff"])
def test_a_file_has_the_same_lines_as_a_pipe(
    pipe: Pipe, reactor: Reactor, tmp_path: Path, text: bytes
) -> None:
    os.write(pipe.sink, text)
    pipe.close_sink()
    (tmp_path / "in").write_bytes(text)
    with (tmp_path / "in").open("rb") as file:
        from_file = all_lines(reactor, Input(reactor, file.fileno(), LONGEST, lambda: None))
    from_pipe = all_lines(reactor, Input(reactor, pipe.source, LONGEST, lambda: None))
    expected = text.split(b"\n")
    assert from_pipe == from_file == (expected if expected[-1] else expected[:-1])


def test_it_says_which_part_of_a_file_was_taken(
    pipe: Pipe, reactor: Reactor, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(b"a\nbc\nd")
    with (tmp_path / "in").open("rb", buffering=0) as file, open(os.devnull, "rb") as null:
        read = Input(reactor, file.fileno(), LONGEST, lambda: None)
        shares = [read.share]
        read.read_on(True)
        run_until(reactor, lambda: read.ended)
        while read.take() is not None:
            shares.append(read.share)
        assert shares == [0, 2 / 6, 5 / 6, 1]
        for other in (pipe.source, null.fileno()):
            assert Input(reactor, other, LONGEST, lambda: None).share == 0


def test_dev_null_has_ended_from_the_start(reactor: Reactor) -> None:
    with open(os.devnull, "rb") as null:
        calls: list[bool] = []
        read = Input(reactor, null.fileno(), LONGEST, lambda: calls.append(read.ended))
        read.read_on(True)
        run_until(reactor, lambda: calls)
        assert calls == [True] and read.take() is None
        run_until(reactor, lambda: idle(reactor))
        read.read_on(True)  # asks in vain
        assert idle(reactor)


@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_of_a_line_that_is_too_long_no_more_than_that_is_kept(
    pipe: Pipe, reactor: Reactor, pieces: int
) -> None:
    """It is still one line, its successor is whole, and 10 MB take no more memory than 1 KB."""
    read = Input(reactor, pipe.source, LONGEST, lambda: None)
    read.read_on(True)
    for _ in range(pieces):
        os.write(pipe.sink, b"x" * 4000)
        reactor.turn()
        assert read.take() is None
        assert len(read._buffer) <= LONGEST
    os.write(pipe.sink, b"its end\nnext\n")
    reactor.turn()
    assert [read.take(), read.take()] == [b"x" * LONGEST, b"next"]
    os.write(pipe.sink, b"x" * 4000)
    reactor.turn()
    read.drop()  # and then nothing is kept of it
    for more in (b"y" * 4000, b"y\n"):
        os.write(pipe.sink, more)
        reactor.turn()
    assert read.take() == b""


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_cuts_the_neighbours_of_a_line_that_is_too_long_are_whole(
    pipe: Pipe, reactor: Reactor, seed: int
) -> None:
    random, longest = Random(seed), 5
    lines = [
        b"".join(random.choices([b"a", b"b"], k=random.choice((0, 1, 4, 5, 6, 30))))
        for _ in range(99)
    ]
    lines.append(b"the last one")
    octets, received = b"\n".join(lines), []
    read = Input(reactor, pipe.source, longest, lambda: received.extend(iter(read.take, None)))
    read.read_on(True)
    while octets:
        size = random.choice((1, 2, 5, 6, 40))
        os.write(pipe.sink, octets[:size])
        octets = octets[size:]
        reactor.turn()
    pipe.close_sink()
    run_until(reactor, lambda: read.ended)
    assert [line[:longest] for line in received] == [line[:longest] for line in lines]


def test_nothing_is_read_before_it_is_wanted_nor_after(pipe: Pipe, reactor: Reactor) -> None:
    os.write(pipe.sink, b"one\n")
    read = Input(reactor, pipe.source, LONGEST, lambda: read.read_on(False))
    assert idle(reactor)
    read.read_on(True)
    reactor.turn()
    os.write(pipe.sink, b"two\n")
    assert idle(reactor)
    assert [read.take(), read.take()] == [b"one", None]
    assert pipe.drain() == b"two\n"  # is there for whoever comes next


def test_a_file_is_read_no_further_than_is_wanted(reactor: Reactor, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 79 + b"\n" + b"y" * 10_000_000)
    with (tmp_path / "in").open("rb", buffering=0) as file:
        read = Input(reactor, file.fileno(), LONGEST, lambda: read.read_on(False))
        for turn in range(1, 4):
            read.read_on(True)
            run_until(reactor, lambda: idle(reactor))
            assert file.tell() == turn * READ_SIZE


def test_changing_ones_mind_does_not_read_a_file_faster(reactor: Reactor, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 10_000_000)
    with (tmp_path / "in").open("rb", buffering=0) as file:
        read = Input(reactor, file.fileno(), LONGEST, lambda: None)
        for _ in range(10):
            read.read_on(True)
            read.read_on(False)
        read.read_on(True)
        reactor.turn()
        assert file.tell() == READ_SIZE
        reactor.turn()
        assert file.tell() == 2 * READ_SIZE


def test_what_is_still_there_is_seen_without_waiting(pipe: Pipe, reactor: Reactor) -> None:
    read = Input(reactor, pipe.source, LONGEST, lambda: None)
    assert not read.more_is_there()  # the pipe is open and empty
    os.write(pipe.sink, b"\n \n")
    assert not read.more_is_there()  # blank lines are nothing
    os.write(pipe.sink, b"x")
    assert read.more_is_there()
    assert read.more_is_there()


def test_what_is_still_there_is_seen_behind_any_number_of_blank_lines(
    pipe: Pipe, reactor: Reactor
) -> None:
    os.write(pipe.sink, b"\n" * 10)
    read = Input(reactor, pipe.source, LONGEST, lambda: None)
    read.read_on(True)
    reactor.turn()
    os.write(pipe.sink, b"x\n")
    assert read.more_is_there()


def test_at_the_end_nothing_is_there_any_more(pipe: Pipe, reactor: Reactor) -> None:
    os.write(pipe.sink, b"x\n")
    pipe.close_sink()
    read = Input(reactor, pipe.source, LONGEST, lambda: None)
    assert all_lines(reactor, read) == [b"x"]
    assert not read.more_is_there()


@pytest.mark.parametrize("answer", [b"", OSError(errno.EIO, "as some systems say")])
def test_a_terminal_that_has_gone_away_is_the_end(reactor: Reactor, answer: object) -> None:
    master, slave = os.openpty()
    try:
        read = Input(reactor, slave, LONGEST, lambda: None)
        os.close(master)
        with mock.patch("kv.net.stdio.os.read", side_effect=[answer]):
            assert all_lines(reactor, read) == [] and read.error is None
    finally:
        os.close(slave)


def test_in_the_background_what_was_typed_is_left_for_the_shell_and_nothing_stops() -> None:
    """A shell with job control, in short: it has the terminal, and another group has the input."""
    code = """if True:
        import os, signal
        from kv.net.reactor import Reactor
        from kv.net.stdio import Input
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            Input(Reactor(), 0, 100, lambda: None).drop_typed()
            os._exit(0)
        status = os.waitpid(child, os.WUNTRACED)[1]
        print(os.read(0, 100) if os.WIFEXITED(status) else "it was stopped")
        os.kill(child, signal.SIGKILL) if os.WIFSTOPPED(status) else None
    """
    master, slave = os.openpty()
    try:
        os.write(master, b"jobs\n")
        popen = {"stdin": slave, "stdout": subprocess.PIPE, "text": True}
        with starts.start("-c", code, terminal=slave, **popen) as shell:
            assert shell.communicate(timeout=patience())[0] == "b'jobs\\n'\n"
    finally:
        os.close(master)
        os.close(slave)


def test_an_input_that_cannot_be_read_has_ended_and_says_why(reactor: Reactor) -> None:
    descriptor = os.open("/", os.O_RDONLY)
    try:
        read = Input(reactor, descriptor, LONGEST, lambda: None)
        assert all_lines(reactor, read) == []
        assert read.error is not None and read.error.errno == errno.EISDIR
    finally:
        os.close(descriptor)


# --- the log ---------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[Callable[[int], logging.Logger]]:
    """`logger(descriptor)` is a logger that logs there and nowhere else."""
    # pytest listens to every logger that the manager knows, and formats tracebacks first.
    log = logging.Logger("test", logging.DEBUG)  # noqa: LOG001

    def make(descriptor: int) -> logging.Logger:
        log.addHandler(LogHandler(descriptor))
        return log

    yield make
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


MakeLogger = Callable[[int], Any]


def messages(octets: bytes) -> list[str]:
    """Each line without date, time and level."""
    return [line.split(" ", 3)[-1] for line in octets.decode().splitlines()]


def test_a_record_is_one_line_with_its_level(pipe: Pipe, logger: MakeLogger) -> None:
    logger(pipe.sink).info("dropped %s: %s", "alice", "why")
    line = pipe.drain().decode()
    assert line.endswith(" INFO dropped alice: why\n") and line.count("\n") == 1


def test_what_peers_send_cannot_forge_a_line_or_reach_the_terminal(
    pipe: Pipe, logger: MakeLogger
) -> None:
    logger(pipe.sink).info("dropped %s", "a\n2026-01-01 INFO all is well\x1b[2J\r\ud800\u2028")
    octets = pipe.drain()
    assert messages(octets) == [r"dropped a\n2026-01-01 INFO all is well\x1b[2J\r\ud800\u2028"]


def test_a_traceback_keeps_its_lines_and_escapes_the_rest(pipe: Pipe, logger: MakeLogger) -> None:
    try:
        raise ValueError("\x1b[2J\u2028")
    except ValueError:
        logger(pipe.sink).exception("failed")
    text = pipe.drain().decode()
    assert text.count("\n") >= 4 and "Traceback" in text
    assert text.endswith("ValueError: \\x1b[2J\\u2028\n")


def test_a_full_pipe_is_never_waited_for_and_the_records_dropped_are_counted(
    pipe: Pipe, logger: MakeLogger
) -> None:
    log = logger(pipe.sink)
    filling = pipe.fill()
    for number in range(1000):
        log.info("dropped %d", number)
    assert pipe.drain() == filling
    log.info("there is room")
    told, last = pipe.drain().decode().splitlines()
    assert "1000 log records dropped" in told
    assert last.endswith(" INFO there is room")
    log.info("and it is told once")
    assert messages(pipe.drain()) == ["and it is told once"]


def test_the_count_goes_on_if_there_is_room_for_nothing_but_itself(
    pipe: Pipe, logger: MakeLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logger(pipe.sink)
    answers = [False, False, True, False, True, True]
    monkeypatch.setattr("kv.net.log.writable", lambda _: answers.pop(0))
    for number in range(4):
        log.info("record %d", number)
    assert answers == []
    first, second, last = pipe.drain().decode().splitlines()
    assert "2 log records dropped" in first
    assert "1 log records dropped" in second
    assert last.endswith("record 3")


def test_what_is_said_of_peers_is_bounded_each_second_and_the_rest_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [7.0]
    monkeypatch.setattr("kv.net.log.time", SimpleNamespace(monotonic=lambda: seconds[-1]))
    monkeypatch.setattr("kv.net.log.MOST", 2)
    handler = LogHandler(pipe.sink)
    for second, count, said in [
        (7.0, 2, ["x", "x"]),
        (7.9, 3, []),
        (8.0, 1, ["... and 3 more about peers in one second", "x"]),
        (8.5, 1, ["x"]),
        (9.0, 1002, ["x", "x"]),
    ]:
        seconds.append(second)
        for _ in range(count):
            handler.emit(logging.LogRecord(PEERS, logging.INFO, "", 0, "x", (), None))
        lines = pipe.drain().decode().splitlines()
        assert [line.rpartition(" INFO ")[-1] for line in lines] == said
    handler.emit(logging.LogRecord("kv", logging.INFO, "", 0, "of the server", (), None))
    handler.close()
    told = pipe.drain().decode()
    assert told.endswith("INFO of the server\n... and 1,000 more about peers in one second\n")
    assert [plural(count, "peer") for count in (0, 1, 2)] == ["0 peers", "1 peer", "2 peers"]


def test_a_pipe_with_a_little_room_is_not_waited_for(pipe: Pipe, logger: MakeLogger) -> None:
    log = logger(pipe.sink)
    pipe.fill(room=50)
    for number in range(100):
        log.info("record %d, longer than the room that there is", number)
    pipe.drain()
    log.info("last")
    assert pipe.drain().decode().splitlines()[-1].endswith("last")


def test_a_record_longer_than_what_can_be_written_at_once_is_whole(
    pipe: Pipe, logger: MakeLogger, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("wb") as file:
        logger(file.fileno()).info("x" * 100_000)
    assert messages((tmp_path / "log").read_bytes()) == ["x" * 100_000]


def test_a_record_too_long_for_the_pipe_is_not_waited_for_and_spoils_no_other(
    pipe: Pipe, logger: MakeLogger
) -> None:
    log = logger(pipe.sink)
    log.info("x" * 100_000)
    log.info("no room for this one, either")
    begun = pipe.drain()
    log.info("next")
    lines = (begun + pipe.drain()).decode().splitlines()
    assert any("2 log records dropped" in line and "xxx" not in line for line in lines)
    assert lines[-1].endswith(" INFO next")


@pytest.mark.parametrize("ends", ["source", "source sink"])
def test_a_reader_that_has_left_or_a_closed_descriptor_is_no_trouble(
    pipe: Pipe, logger: MakeLogger, ends: str
) -> None:
    log = logger(pipe.sink)
    for end in ends.split():
        getattr(pipe, f"close_{end}")()
    for _ in range(10):
        log.error("nobody reads this")
