"""The trace: what it shows, what it leaves alone, and the form of its file."""

import io
import json
import os
import pty
import re
import select
import signal
import stat
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Server, wait_until
from house import Clock, Selector, house
from wire import Peer

import kv.server
from kv.connection import Connection
from kv.link import Link
from kv.net.listener import Listener
from kv.net.reactor import READ, WRITE
from kv.protocol.cipher import PrivateKey, PublicKey
from kv.watch.events import FIGURES, Event, Writer, read
from kv.watch.figures import duration, named, sentences, why
from kv.watch.printer import Printer
from kv.watch.trace import Trace

LINE = re.compile(r" *\d+\.\d{6}  (\S+) +(\S+(?: on| up)?) +(.*)")
EVENT = {"ph": "X", "name": "sleep", "tid": 0, "args": {"is": ""}}
NAME = {"ph": "M", "name": "thread_name", "tid": 0, "args": {"name": "loop", "track": "loop"}}


def told(log: str, who: str) -> list[str]:
    """What the lines of a trace say of one connection: `VERB TEXT`."""
    found = (LINE.fullmatch(line) for line in log.splitlines())
    return [f"{m[2]} {m[3]}" for m in found if m and m[1] == who]


def in_order(wanted: list[str], lines: list[str]) -> None:
    """Each of `wanted` begins one of `lines`, after the one before."""
    rest = iter(lines)
    for start in wanted:
        assert any(line.startswith(start) for line in rest), f"no {start!r} in {lines}"


# --- for people ------------------------------------------------------------------------------


def test_the_trace_of_one_put_reads_as_a_story(start_server: Callable[..., Server]) -> None:
    server = start_server("--trace")
    with Peer(server.port).handshake().connect("alice") as peer:
        peer.send_text("PUT colour", "blue")
        assert peer.read_text() == "PUT: OK"
        assert peer.ask("DISCONNECT") == "DISCONNECT: OK"
    server.wait_for_log("is free again")
    in_order(
        [
            "accept descriptor ",
            "message PUT 'colour' -> no reply",
            "state AWAITING_COMMAND -> AWAITING_PUT_VALUE",
            "message value 'blue' -> PUT: OK",
            "send 89 of 89 octets",
            "close descriptor ",
        ],
        told(server.log(), "#1"),
    )
    assert any(" at most " in line for line in told(server.log(), "loop"))
    assert all(len(line) <= 100 for line in server.log().splitlines())
    assert "\x1b" not in server.log()


def test_the_clients_end_of_it(start_server: Callable[..., Server], run_kv: Any) -> None:
    port = str(start_server().port)
    done = run_kv("client", "--trace", "--id", "a", "--port", port, input="PUT k\nv\n")
    assert done.stdout == "PUT: OK\n"
    mine = told(done.stderr, "#1")
    assert [line for line in mine if line.startswith("command")] == [
        "command 'CONNECT a'",
        "command 'PUT k' and 'v'",
        "command 'DISCONNECT'",
    ]
    assert [line for line in mine if line.startswith("reply")] == [
        "reply the server's key line",
        "reply 'CONNECT a' -> 'CONNECT: OK'",
        "reply 'PUT k' -> 'PUT: OK'",
        "reply 'DISCONNECT' -> 'DISCONNECT: OK'",
    ]
    in_order(["accept ", "send 101 of 101 ", "recv ", "close ", "gone without an error"], mine)
    assert [line for line in told(done.stderr, "stdin") if "line" in line] == [
        "line 5 octets",
        "line 1 octets",
    ]
    assert told(done.stderr, "stdout")[0] == "write 8 octets"


def test_colours_on_a_terminal(start_server: Callable[..., Server]) -> None:
    ours, theirs = pty.openpty()
    env = os.environ | {"NO_COLOR": ""}
    server = start_server("--trace", stderr=theirs, env=env, listening=False)
    os.close(theirs)
    shown = b""
    while not (found := re.search(rb"listening on \S+:(\d+)\r", shown)):
        shown += os.read(ours, 65536)
    with Peer(int(found[1])).handshake():
        while b"AWAITING_KEY -> AWAITING_CONNECT" not in shown:
            shown += os.read(ours, 65536)
    assert b"\x1b[" in shown
    server.stop()
    os.close(ours)


def traced(*texts: str, reads: bool = True) -> tuple[str, list[dict[str, Any]]]:
    """The lines and the events of a guest that says `texts`, and is gone."""
    events = io.StringIO()
    events.close = lambda: None  # type: ignore[method-assign]
    ours, theirs = os.pipe()
    kept = os.dup(2)
    os.dup2(theirs, 2)
    try:
        with Trace(lines=True, file=events):
            os.set_blocking(ours, False)
            with house() as h:
                guest = h.guest(reads=reads)
                guest.send_raw(guest.key.line).send("CONNECT alice", *texts)
                guest.read_on(2 + sum(not text.startswith("PUT") for text in texts))
    finally:
        os.dup2(kept, 2)
        for descriptor in (kept, theirs):
            os.close(descriptor)
    lines = b""
    while select.select([ours], [], [], 0)[0] and (data := os.read(ours, 65536)):
        lines += data
    os.close(ours)
    return lines.decode(), json.loads(events.getvalue())


def test_what_peers_say_is_escaped_and_shortened() -> None:
    lines, _ = traced("GET \x1b[2J\r\x07", "GET " + "k" * 200)
    assert "\x1b" not in lines and "\r" not in lines
    assert r"GET '\x1b[2J\r\x07' -> GET: ERROR" in lines
    assert f"GET '{'k' * 40}'… (200 characters)"[: 100 - 31 - 8] in lines


def test_a_client_that_does_not_read_is_seen_to_be_held_up() -> None:
    lines, _ = traced("PUT k", "v" * 265, *["GET k"] * 2000, reads=False)
    in_order(
        [
            "message GET 'k' -> the value",
            "message (the same ",
            "hold PEER: its peer does not take the replies; nothing is read",
            "held up its owner is told",
            "go on PEER: ",
            "drained its owner is told",
            "end nothing more will come, as its owner is told",
        ],
        told(lines, "#1"),
    )


def test_what_an_owner_asks_of_a_stream_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with open(path, "w") as file, Trace(False, file, selectors=[Selector]), house() as h:
        for _ in range(2):
            h.guest()
        one, other = (connection.stream for connection in h.server.connections)
        one.half_close()
        one.finish()
        one.leave()
        other.abort(None)
    in_order(
        [
            "#1 half-close: FIN after the last octet",
            "#1 finish: what has arrived is answered first",
            "#1 leave: what the kernel has is still delivered",
            "#2 abort: with RST",
        ],
        [f"{event.track} {event.verb}: {event.text}" for event in read(path)[0]],
    )


def test_what_tls_does_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with open(path, "w") as file, Trace(False, file, selectors=[Selector]), house(tls=True) as h:
        h.guest().connect().socket.close()
        h.tls = False
        h.guest().send_raw(b"GET / HTTP/1.1\r\n\r\n")
    events = [event for event in read(path)[0] if event.verb == "tls"]
    told = [re.sub(r"(handshake, )\d+", r"\1N", f"{one.track} {one.text}") for one in events]
    assert told == [
        "#1 the handshake, N octets: 0 of plaintext",
        "#1 handshake -> open",
        "#1 the handshake, N octets: 101 of plaintext",
        "#1 101 octets of plaintext: 123 octets",
        "#1 111 octets: 89 of plaintext",
        "#1 89 octets of plaintext: 111 octets",
        "#1 open -> they ended",
        "#1 24 octets: 0 of plaintext",
        "#1 they ended -> over",
        "#2 handshake -> over: the peer does not speak TLS",
        "#2 the handshake, N octets: 0 of plaintext",
    ]


@pytest.mark.parametrize("coloured", [False, True])
def test_the_lines_for_people(coloured: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as undo:
        printer = Printer(undo, coloured)
        for track, verb, text, now, lasted in [
            ("#1", "recv", "178 octets", {}, 5.0),
            *[("#12", "message", "\x1b[m" + "x" * 60, {}, None)] * 3,
            ("#12", "message", "y" * 69, {}, None),
            ("#12", "send", "y" * 70, {}, None),
            ("loop", "turn", "is over", {}, None),
            ("loop", "sleep", "at most 2.0 s; ready: nobody", {"most": 2e6}, 1500.0),
            ("loop", "sleep", "until somebody comes", {"most": None}, 1500.0),
            ("loop", "sleep", "only looks", {"most": 0.0}, 1500.0),
            ("listener", "asks for", "read", {}, None),
        ]:
            printer.write(Event(track, verb, text, 1_572_867.1, lasted, "", now))
    printer.write(Event("#1", "recv", "after the end", 0.0, 5.0, "", {}))
    shown = capfd.readouterr().err.splitlines()
    head = "  1.572867  "
    if coloured:
        assert shown[0] == f"\x1b[33m{head}#1        recv     178 octets\x1b[m"
        assert {line[:5] for line in shown[1:5]} == {"\x1b[36m"}
        shown = [re.sub(r"\x1b\[\d*m", "", line) for line in shown]
    assert shown == [
        f"{head}#1        recv     178 octets",
        rf"{head}#12       message  \x1b[m" + "x" * 60,
        f"{head}#12       message  (the same 2 times more)",
        f"{head}#12       message  " + "y" * 69,
        f"{head}#12       send     " + "y" * 68 + "…",
        f"{head}loop      sleep    1.5 ms, at most 2.0 s; ready: nobody",
        f"{head}loop      sleep    until somebody comes",
        f"{head}loop      sleep    only looks",
        f"{head}listener  asks for read",
    ]


def test_six_connections_in_a_row_have_six_colours(capfd: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as undo:
        printer = Printer(undo, True)
        for number in range(8, 14):
            printer.write(Event(f"#{number}", "recv", "", 0.0, None, "", {}))
    shown = re.findall(r"^\x1b\[(\d+)m", capfd.readouterr().err, re.M)
    assert sorted(shown) == ["31", "32", "33", "34", "35", "36"]  # no black, and no white


@pytest.mark.parametrize(
    ("interest", "now", "reasons"),
    [
        (READ, {}, ("lines may come", "all is sent")),
        (0, {}, ("it reads when its turn comes", "all is sent")),
        (READ | WRITE, {}, ("lines may come", "although all is sent")),
        (READ | WRITE, {"unsent": 5}, ("lines may come", "replies are unsent")),
        (READ, {"unsent": 5}, ("lines may come", "the replies go out in this turn")),
        (0, {"holds": "TURN"}, ("it waits for its turn", "all is sent")),
        (READ, {"holds": "TURN"}, ("still, though it waits for its turn", "all is sent")),
        (0, {"holds": "OWNER, TURN"}, ("the answer comes from elsewhere", "all is sent")),
        (READ, {"in": "DISCARDING"}, ("what comes is thrown away", "all is sent")),
        (0, {"in": "ENDED", "holds": "TURN"}, ("its peer has ended its side", "all is sent")),
    ],
)
def test_why_a_connection_asks_for_readiness(
    interest: int, now: dict[str, Any], reasons: tuple[str, str]
) -> None:
    assert why(interest, {"in": "OPEN", "holds": "", "unsent": 0} | now) == list(reasons)


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({}, {}, []),
        ({}, {"holds": "TURN"}, [("hold", "TURN: it waits for its turn")]),
        ({"holds": "TURN"}, {}, [("go on", "TURN: its turn has come")]),
        (
            {"holds": "PEER"},
            {"holds": "OWNER, TURN"},
            [
                ("hold", "OWNER: the answer comes from elsewhere; nothing is read"),
                ("hold", "TURN: it waits for its turn"),
                ("go on", "PEER: its peer has taken the replies"),
            ],
        ),
        ({"in": "OPEN", "out": "OPEN"}, {"in": "ENDED"}, [("incoming", "OPEN -> ENDED")]),
        ({"out": "OPEN"}, {"out": "BROKEN"}, [("outgoing", "OPEN -> BROKEN")]),
        ({"out": "OPEN"}, {"in": "ENDED", "out": "BROKEN"}, []),
        ({"out": "OPEN"}, {"in": "ENDED", "out": "SHUT"}, [("outgoing", "OPEN -> SHUT")]),
        ({"state": "A", "in": "OPEN"}, {"state": "B"}, [("state", "A -> B")]),
    ],
)
def test_which_changes_get_a_sentence(
    before: dict[str, Any], now: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    now = {"holds": "", "in": "OPEN", "out": "OPEN", "state": "A"} | now
    all_of_it = list(sentences(before, now))
    assert [(verb, text) for verb, text, _ in all_of_it] == told
    assert all(now[name] == figure for *_, had in all_of_it for name, figure in had.items())


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(0.4, "0 µs"), (999, "999 µs"), (1000, "1.0 ms"), (999_940, "999.9 ms"), (1e6, "1.0 s")],
)
def test_a_duration_has_the_unit_that_fits(microseconds: float, text: str) -> None:
    assert duration(microseconds) == text


@pytest.mark.parametrize(
    ("callback", "purpose"),
    [
        (Connection._handshake_timed_out, "handshake limit"),
        (Connection._idled, "idle limit"),
        (Link._timed_out, "limit"),
        (kv.server.Server._cut_short, "stop limit"),
        (Listener._try_again, "try again"),
        (lambda: None, "lambda"),
    ],
)
def test_a_timer_has_a_purpose(callback: Callable[..., object], purpose: str) -> None:
    assert named(callback) == purpose


# --- for programs ----------------------------------------------------------------------------


def slowly(clock: Clock, seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
    """What takes its time, on a clock that is moved by hand."""

    def called(*args: Any) -> Any:
        clock.now += seconds
        return call(*args)

    return called


def line_of(event: Event) -> str:
    """When it ended, how long it lasted (ms), whose it was, what; @ for a place; figures."""
    lasted = "" if event.lasted is None else f" +{abs(event.lasted) / 1000:g}"
    text = re.sub(r"(descriptor |127\.0\.0\.1:|Errno )\d+", r"\1N", f"{event.verb} {event.text}")
    head = f"{event.end / 1000:g}{lasted} {event.track} {text}{' @' * (event.place != '')}"
    figures = " ".join(f"{name}={json.dumps(figure)}" for name, figure in event.now.items())
    indent = " " * 4
    wrapped = textwrap.wrap(figures, 96, initial_indent=indent, subsequent_indent=indent)
    return "\n".join([head, *wrapped])


def test_three_lives_are_told_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client that says goodbye, one that resets, one that says nothing; one at a time."""
    clock = Clock()
    monkeypatch.setattr("house.Clock", lambda: clock)
    monkeypatch.setattr(PublicKey, "open", slowly(clock, 0.001, PublicKey.open))
    monkeypatch.setattr(PrivateKey, "seal", slowly(clock, 0.004, PrivateKey.seal))
    path = tmp_path / "trace.json"
    with (
        open(path, "w") as file,
        Trace(False, file, clock=clock, selectors=[Selector]) as trace,
        house(max_connections=1, idle_timeout=60) as h,
    ):
        clock.now = 0.0
        alice = h.guest()
        h.wait(1.5)
        alice.connect()
        bob = h.guest()
        alice.send("PUT k", "v", "GET k", "GET k")
        h.wait(1)
        alice.send("DISCONNECT")
        alice.socket.close()
        h.settle()
        bob.reset()
        h.settle()
        h.guest()
        h.wait(10)
        h.wait(0.6)
    kept = trace._loop  # of those who are gone, nothing is
    assert {*kept.names.values()} == {*kept.registrations} == {"listener"}
    assert not (kept.known or trace.looks or trace._seen)
    assert [who for who, *_ in trace.timers.values()] == ["loop"]
    wanted = (ROOT / "tests" / "three_lives.txt").read_text()
    assert "\n".join(map(line_of, read(path)[0])).splitlines() == wanted.splitlines()


def test_one_thread_does_one_thing_at_a_time() -> None:
    _, events = traced("PUT k", "v", "GET k", "GET k")
    slices = [event for event in events if event["ph"] == "X"]
    assert {"turn", "sleep", "recv", "message", "open", "seal", "send"} <= {
        event["name"] for event in slices
    }
    end, until = 0.0, 0.0
    for event in sorted(slices, key=lambda event: (event["ts"], -event["dur"])):
        if event["name"] in ("turn", "sleep"):  # one after the other
            assert event["ts"] >= until - 0.1
            until = event["ts"] + event["dur"]
        elif event["name"] in ("open", "seal") and event["ts"] < end:  # inside of a message
            assert event["ts"] + event["dur"] <= end + 0.1
        else:
            assert event["ts"] >= end - 0.1
            end = event["ts"] + event["dur"]
    names = [event["args"]["name"] for event in events if event["ph"] == "M"]
    assert {"loop", "listener", "#1", "#1 alice"} <= set(names)


def test_the_events_add_up_to_what_the_connection_was() -> None:
    figures: dict[str, Any] = {}
    _, events = traced("PUT k", "v" * 265, *["GET k"] * 500, reads=False)
    seen: dict[str, set[Any]] = {}
    mine = next(e["tid"] for e in events if e["ph"] == "M" and e["args"]["track"] == "#1")
    for event in events:
        if event["tid"] == mine and event["ph"] != "M":
            figures |= event["args"].get("now", {})
            for name, figure in figures.items():
                seen.setdefault(name, set()).add(json.dumps(figure))
    assert set(figures) <= set(FIGURES)
    assert seen["in"] >= {'"OPEN"', '"ENDED"'}
    assert seen["holds"] >= {'""', '"TURN"', '"PEER"'}
    assert seen["interest"] >= {'"read"', '"write"', '"nothing"'}
    assert seen["state"] >= {'"AWAITING_KEY"', '"AWAITING_COMMAND"', '"AWAITING_PUT_VALUE"'}
    assert max(map(int, seen["unsent"])) > 64 * 1024 > 500 < max(map(int, seen["lines"]))
    assert (figures["unsent"], figures["lines"], figures["closed"]) == (0, 0, True)
    assert figures["timers"] == {}


def test_a_limit_that_was_put_off_is_told_when_the_callback_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = Clock(), tmp_path / "trace.json"
    monkeypatch.setattr("house.Clock", lambda: clock)
    with (
        open(path, "w") as file,
        Trace(False, file, clock=clock, selectors=[Selector]),
        house(idle_timeout=60.000_000_12) as h,
    ):
        h.guest().connect()
        ((connection, _),) = h.server.connections.items()
        for delay in (70.000_000_16, 5, 80):
            h.reactor.call_soon(lambda delay=delay: connection._deadline.postpone(delay))
            h.settle()
        assert connection._deadline.when == 80
    events = [event for event in read(path)[0] if "idle limit" in event.now.get("timers", ())]
    assert [(event.verb, event.now) for event in events[1:]] == [
        ("changes", {"timers": {"idle limit": due}}) for due in (70_000_000.2, 80_000_000.0)
    ]
    assert events[0].now["timers"]["idle limit"] == 60_000_000.1


def test_every_place_is_a_line_of_this_program() -> None:
    _, events = traced("GET k")
    places = {event["args"].get("at", "") for event in events} - {""}
    assert "Transport.read" in " ".join(places)
    for place in places:
        found = re.fullmatch(r"(kv/(?!watch/)\S+\.py):(\d+) (\S+)", place)
        assert found, place


def test_with_the_trace_off_nothing_is_left_of_it() -> None:
    wrapped: list[tuple[type, str, object]] = []
    trace = Trace(lines=True, file=None)
    wrap = trace._wrap

    def noted(owner: type, name: str, wrapper: Any) -> None:
        wrapped.append((owner, name, getattr(owner, name)))
        wrap(owner, name, wrapper)

    trace._wrap = noted  # type: ignore[method-assign]
    with trace:
        assert all(getattr(owner, name) is not before for owner, name, before in wrapped)
    assert len(wrapped) > 20
    assert all(getattr(owner, name) is before for owner, name, before in wrapped)


def test_a_file_is_valid_json_after_a_clean_end_and_for_its_owner_alone(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    path.write_text("something older")
    path.chmod(0o644)
    server = start_server("--trace-file", str(path))
    with Peer(server.port).handshake().connect("alice") as peer:
        assert peer.ask("GET k") == "GET: ERROR"
    assert server.stop() == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {"X", "i", "M"} == {event["ph"] for event in json.loads(path.read_text())}
    events, whole = read(path)
    assert whole and events[-1].track == "signals"


def test_a_file_is_readable_after_kill_9(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    server = start_server("--trace-file", str(path))
    with Peer(server.port).handshake().connect("alice") as peer:
        assert peer.ask("GET k") == "GET: ERROR"
        # What was told is in the file before the loop sleeps: a look at a running server is whole.
        wait_until(lambda: "-> GET: ERROR" in path.read_text(), "the reply")
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait()
    events, whole = read(path)
    assert not whole and "GET 'k' -> GET: ERROR" in [event.text for event in events]


def test_what_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with open(path, "w") as file:
        writer = Writer(file, print)
        for number in range(3):
            writer.write(
                Event("loop", "sleep", f"{number}", number + 1.0, 1.0, "", {"turn": number})
            )
        writer.close()
    whole = path.read_text()
    assert [event.text for event in read(path)[0]] == ["0", "1", "2"] and read(path)[1]
    assert read(path)[0][2] == Event("loop", "sleep", "2", 3.0, 1.0, "", {"turn": 2})
    for size in range(whole.index('"is": "0"') + 40, len(whole) - 1):
        path.write_text(whole[:size])
        events, complete = read(path)
        assert not complete and [event.text for event in events] == ["0", "1", "2"][: len(events)]
        assert len(events) >= whole[:size].count("},\n{") - 1


@pytest.mark.parametrize(("kind", "why"), [("directory", "Is a directory"), ("FIFO", "")])
def test_a_trace_file_that_cannot_be_written(
    run_kv: Any, tmp_path: Path, kind: str, why: str
) -> None:
    path = tmp_path / "trace"
    path.mkdir() if kind == "directory" else os.mkfifo(path)  # which nobody reads
    done = run_kv("server", "--port", "0", "--trace-file", str(path))
    assert done.returncode == 2
    assert f"error: cannot write {path}: {why}" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_ends_the_trace_and_not_the_program(
    start_server: Callable[..., Server], run_kv: Any
) -> None:
    failed: list[OSError] = []
    file = open("/dev/full", "w")  # noqa: SIM115 (`Writer` closes it)
    writer = Writer(file, failed.append)
    for _ in range(2):
        writer.write(Event("loop", "sleep", "", 1.0, None, "", {}))
        writer.flush()
    assert file.closed and len(failed) == 1
    server = start_server("--trace-file", "/dev/full")
    with Peer(server.port).handshake().connect("alice") as peer:
        for _ in range(100):
            assert peer.ask("GET k") == "GET: ERROR"
    said = "the trace file ends here: No space left on device"
    server.wait_for_log(said)
    program = ("client", "--port", str(server.port), "--trace-file", "/dev/full")
    done = run_kv(*program, afresh=True)
    assert done.returncode == 0 and done.stderr.count(said) == 1
    assert server.stop() == 0


@pytest.mark.parametrize(
    "content",
    [
        None,  # there is no such file
        "",
        "[]",
        "{}",
        "[\n",
        "hello",
        "[\n1,\n2,",
        '[\n{"ph": "X"},\n{}',
        "\0\xff",
        "[\n" + "[" * 99_999,
    ],
)
def test_what_is_no_trace_is_one_sentence(run_kv: Any, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "trace.json"
    if content is not None:
        path.write_text(content)
    done = run_kv("replay", str(path))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"cannot replay {path}: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "other",
    [
        {"ts": 1},
        {"ts": "a", "dur": 1},
        {"ts": float("nan"), "dur": 1},
        {"ts": 10**400, "dur": 1},
        {"ts": -1, "dur": 0.5},
        {"ts": 1, "dur": -1},
        {"ts": -1e15, "dur": 1e15},
        {"ts": 1e15, "dur": 0},
        {"ts": 1, "dur": 1, "tid": 7},
        {"ts": 1, "dur": 1, "tid": None},
        {"ts": 1, "dur": 1, "args": []},
        *(
            {"ts": 1, "dur": 1, "args": {"now": now}}
            for now in (
                5,
                {"in": None},
                {"interest": 1},
                {"limits": [1]},
                {"limits": {"line": float("inf")}},
                {"most": "long"},
                {"most": float("nan")},
                {"part": "constructor"},
                {"part": 1},
                {"queue": "#1"},
                {"timers": {"idle": "soon"}},
                {"unsent": [1]},
                {"why": None},
                {"why": [1]},
                {"woken": ["#1", 1]},
            )
        ),
    ],
)
def test_an_event_that_no_page_can_show_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    path = tmp_path / "trace.json"
    for rest in ("", f"{json.dumps(NAME)},\n"):
        path.write_text(f"[\n{json.dumps(NAME)},\n{json.dumps(EVENT | other)},\n{rest}")
        with pytest.raises(ValueError, match=r"^line 3 is no trace event: "):
            read(path)


def test_what_a_page_can_show_is_read(tmp_path: Path) -> None:
    now = {"part": "timers", "most": None, "slept": 0.5, "turn": 3, "queue": [], "woken": ["#1"]}
    now |= {"closed": True, "why": ["a", "b"], "limits": {"line": 511}, "timers": {"idle": 0.5}}
    path = tmp_path / "trace.json"
    with open(path, "w") as file:
        writer = Writer(file, print)
        event = Event("loop", "sleep", "is", 0.0, 0.0, "at", now)
        for one in (event, replace(event, lasted=None, now={}, end=9e14)):
            writer.write(one)
        writer.rename("loop", "another name")
        writer.close()
        writer.write(event)  # after the end, and so in vain
        writer.close()
    assert read(path) == ([event, replace(event, lasted=None, now={}, end=9e14)], True)
    names = [line["args"] for line in json.loads(path.read_text()) if line["ph"] == "M"]
    assert names == [{"name": name, "track": "loop"} for name in ("loop", "another name")]


def test_a_trace_of_nothing_is_an_empty_array(tmp_path: Path) -> None:
    with open(tmp_path / "trace.json", "w") as file:
        Writer(file, print).close()
    assert json.loads((tmp_path / "trace.json").read_text()) == []
