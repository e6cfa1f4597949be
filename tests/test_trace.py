"""The trace: what it shows, what it leaves alone, and the picture that is drawn of it."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import ROOT, Server
from house import house
from wire import Peer

from kv.watch.timeline import draw, read
from kv.watch.trace import Trace

KV = [sys.executable, "-m", "kv"]
LINE = re.compile(r" *\d+\.\d{6}  (\S+) +(\S+) +(.*)")
EVENT = {"ph": "X", "name": "wake-up", "tid": 0, "args": {"is": ""}}
SVG = "{http://www.w3.org/2000/svg}"


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
            "open descriptor ",
            "watch read",
            "timer Connection._handshake_timed_out in 10 s",
            "message key line -> the server's key line",
            "state AWAITING_KEY -> AWAITING_CONNECT",
            "message CONNECT alice -> CONNECT: OK",
            "timer Connection._idled in 3600 s",
            "recv 178 of 16384 octets",
            "open a line of 88 octets",
            "message PUT colour -> no reply",
            "state AWAITING_COMMAND -> AWAITING_PUT_VALUE",
            "open a line of 88 octets",
            "message value blue -> PUT: OK",
            "state AWAITING_PUT_VALUE -> AWAITING_COMMAND",
            "send 89 of 89 octets",
            "message DISCONNECT -> DISCONNECT: OK",
            "close 89 octets are owed",
            "shutdown ",
            "recv the end of their sending",
            "closed descriptor ",
        ],
        told(server.log(), "#1"),
    )
    in_order(["wake-up slept ", "wake-up slept "], told(server.log(), "loop"))
    assert all(len(line) <= 100 for line in server.log().splitlines())
    assert "\x1b" not in server.log()


def test_the_clients_end_of_it(start_server: Callable[..., Server], run_kv: Any) -> None:
    port = str(start_server().port)
    done = run_kv("client", "--trace", "--id", "a", "--port", port, input="PUT k\nv\n", stdin=None)
    assert done.stdout == "PUT: OK\n"
    in_order(
        [
            "command CONNECT a",
            "reply CONNECT a -> CONNECT: OK",
            "command PUT k and v",
            "send ",
            "recv ",
            "reply PUT k -> PUT: OK",
            "reply DISCONNECT -> DISCONNECT: OK",
            "closed ",
        ],
        told(done.stderr, "#1"),
    )
    in_order(["read 8 octets", "read the end"], told(done.stderr, "stdin"))
    assert told(done.stderr, "stdout") == ["write 8 octets"]


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_on_a_terminal(
    start_server: Callable[..., Server], no_color: str, coloured: bool
) -> None:
    ours, theirs = pty.openpty()
    env = os.environ | {"NO_COLOR": no_color}
    server = start_server("--trace", stderr=theirs, env=env, listening=False)
    os.close(theirs)
    shown = b""
    while not (found := re.search(rb"listening on \S+:(\d+)\r", shown)):
        shown += os.read(ours, 65536)
    with Peer(int(found[1])).handshake():
        while b"AWAITING_KEY -> AWAITING_CONNECT" not in shown:
            shown += os.read(ours, 65536)
    assert (b"\x1b[" in shown) == coloured
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
    return lines.decode(), json.loads(events.getvalue().rstrip(",\n") + "]")


def test_what_peers_say_is_escaped_and_shortened() -> None:
    lines, _ = traced("GET \x1b[2J\r\x07", "GET " + "k" * 200)
    assert "\x1b" not in lines and "\r" not in lines
    assert r"message  GET \x1b[2J\r\x07 -> GET: ERROR" in lines
    assert "message  GET kkkkkkkkkkkkkkkkkkkkkkkk… (200 characters) -> GET: ERROR" in lines


def test_a_client_that_does_not_read_is_seen_to_be_held_up() -> None:
    lines, _ = traced("PUT k", "v" * 265, *["GET k"] * 2000, reads=False)
    in_order(
        [
            "message GET k -> the value",
            "message (the same ",
            "later goes on in the next turn",
            "pause ",
            "send would block",
            "resume ",
        ],
        told(lines, "#1"),
    )


def test_a_call_that_comes_when_its_stream_is_closed() -> None:
    with Trace(lines=True, file=None), house() as h:
        h.guest().connect()
        (connection,) = h.server.connections
        connection.stream._schedule()
        connection.stream.abort(None)
        h.settle()


# --- for programs ----------------------------------------------------------------------------


def test_one_thread_does_one_thing_at_a_time() -> None:
    _, events = traced("PUT k", "v", "GET k", "GET k")
    slices = [event for event in events if event["ph"] == "X"]
    assert {"turn", "wake-up", "recv", "message", "open", "seal", "send"} <= {
        event["name"] for event in slices
    }
    end, until = 0.0, 0.0
    for event in sorted(slices, key=lambda event: (event["ts"], -event["dur"])):
        if event["name"] in ("turn", "wake-up"):  # one after the other
            assert event["ts"] >= until
            until = event["ts"] + event["dur"]
        elif event["name"] in ("open", "seal") and event["ts"] < end:  # inside of a message
            assert event["ts"] + event["dur"] <= end
        else:
            assert event["ts"] >= end
            end = event["ts"] + event["dur"]
    names = [event["args"]["name"] for event in events if event["ph"] == "M"]
    assert {"loop", "listener", "#1", "#1 alice"} <= set(names)


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


def test_a_trace_file_that_cannot_be_written(run_kv: Any, tmp_path: Path) -> None:
    done = run_kv("server", "--port", "0", "--trace-file", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.endswith(f"error: cannot write {tmp_path}: Is a directory\n")


def test_a_fifo_that_nobody_reads_is_refused(run_kv: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = run_kv("server", "--port", "0", "--trace-file", str(tmp_path / "fifo"))
    assert done.returncode == 2 and "cannot write" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_ends_the_trace_and_not_the_server(start_server: Callable[..., Server]) -> None:
    server = start_server("--trace-file", "/dev/full")
    with Peer(server.port).handshake().connect("alice") as peer:
        for _ in range(100):
            assert peer.ask("GET k") == "GET: ERROR"
    server.wait_for_log("the trace file ends here: No space left on device")
    assert server.stop() == 0


# --- the picture -----------------------------------------------------------------------------


def test_the_picture_has_everything_in_its_place(tmp_path: Path) -> None:
    _, events = traced("PUT k", "v" * 265, "GET k")
    root = picture(tmp_path, events)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None]
    titles = [str(bar.findtext(f"{SVG}title")) for bar in bars]
    assert any(re.match(r"seal: 265 octets.*\nat [\d.]+ ms, [\d.]+ (µs|ms)$", t) for t in titles)
    for bar in bars:
        x, y, w, h = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert min(x, y) >= 0 < min(w, h) and x + w <= width and y + h <= height
    assert {"loop", "listener", "#1 alice"} <= {text.text for text in root.iter(f"{SVG}text")}
    seal, recv = (
        next(float(bar.attrib["width"]) for bar, t in zip(bars, titles, strict=True) if name in t)
        for name in ("seal: 265", "open: a line of 428")
    )
    assert seal > recv  # to scale: a private-key operation takes longer than a public-key one


def picture(directory: Path, events: list[dict[str, Any]]) -> ElementTree.Element:
    """The picture of these events, as XML."""
    path = directory / "trace.json"
    path.write_text("[\n" + "".join(json.dumps(event) + ",\n" for event in events))
    return ElementTree.fromstring(draw(read(str(path))))


def test_what_peers_say_is_escaped_in_the_picture_too(tmp_path: Path) -> None:
    _, events = traced("GET \x1b[2J<&>\x00")
    titles = picture(tmp_path, events).iter(f"{SVG}title")
    assert any(r"GET \x1b[2J<&>\x00 -> GET: ERROR" in str(title.text) for title in titles)


def test_a_crash_leaves_a_file_that_can_be_drawn(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    _, events = traced("GET k")
    whole = picture(tmp_path, events)
    path.write_text(path.read_text() + '{"name": "rec')
    assert ElementTree.tostring(ElementTree.fromstring(draw(read(str(path))))) == (
        ElementTree.tostring(whole)
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[\n",
        "hello",
        "[\n1,\n2,",
        '[\n{"ph": "X"},\n{}',
        "\0\xff",
        "[\n" + "[" * 99_999,
    ]
    + [
        f"[\n{json.dumps({**EVENT, **times})},\n\n"
        for times in (
            {"ts": 1},
            {"ts": "a", "dur": 1},
            {"ts": float("nan"), "dur": 1},
            {"ts": 10**400, "dur": 1},
            {"ts": 1, "dur": 1, "name": None},
        )
    ],
)
def test_what_is_no_trace_is_one_sentence(run_kv: Any, tmp_path: Path, content: str) -> None:
    path = tmp_path / "trace.json"
    path.write_text(content)
    done = run_kv("timeline", str(path))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"cannot draw {path}: ") and done.stderr.count("\n") == 1


def test_a_picture_that_nobody_takes(run_kv: Any, tmp_path: Path) -> None:
    _, events = traced("GET k")
    picture(tmp_path, events)
    command = [*KV, "timeline", str(tmp_path / "trace.json")]
    source, sink = os.pipe()
    os.close(source)
    done = subprocess.run(command, cwd=ROOT, stdout=sink, stderr=subprocess.PIPE)
    os.close(sink)
    assert (done.returncode, done.stderr) == (0, b"")
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1
        assert done.stderr == b"cannot write the picture: No space left on device\n"


def test_a_file_that_is_not_there(run_kv: Any) -> None:
    done = run_kv("timeline", "/nonexistent/trace.json")
    assert done.returncode == 1
    assert done.stderr == "cannot draw /nonexistent/trace.json: No such file or directory\n"
