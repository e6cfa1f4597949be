"""The replay: a trace as one page, in a real browser if there is one."""

import inspect
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import starts
from browser import PROGRAM, Browser
from house import house
from pitfalls.gallery import Entry, gallery
from pitfalls.lanes import lane, page_of
from pitfalls.moments import moment
from pitfalls.pitfall import Pitfall

from kv.net.reactor import Reactor
from kv.watch.events import Event, Writer, read
from kv.watch.loop import LoopTaps
from kv.watch.replay import Lane, packed, page, sources
from kv.watch.trace import Trace

HERE = Path(__file__).resolve().parents[1] / "kv" / "watch"
#: What says how big each bar of a card is: the figure, and what the page calls it.
BARS = {"line": "incomplete line", "lines": "lines waiting", "unsent": "replies unsent"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def trace(directory: Path) -> Path:
    """A trace of three clients: one honest, one that does not read, one that says nonsense."""
    path = directory / "trace.json"
    with open(path, "w") as file, Trace(False, file), house() as h:
        alice = h.guest().connect("alice")
        alice.ask("PUT k", "<b>&amp;</script>")
        h.owed(900, "bob")
        h.guest().send_raw(b"GET / HTTP/1.1\n")
        alice.ask("GET k")
        # What is still open at the end of this trace is what the page has to show there.
        file.flush()
        whole = path.read_text()
    path.write_text(whole[: whole.rindex("},\n")] + "}\n]\n")
    return path


@pytest.fixture(scope="module")
def shown(trace: Path) -> Path:
    """Its page."""
    path = trace.with_suffix(".html")
    path.write_text(page("a trace", [Lane(read(trace)[0])]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium(directory: Path) -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("there is no Chromium")
    with Browser(directory / "profile") as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """A browser that must not have complained by the end."""
    yield chromium
    complaints, chromium.complaints = chromium.complaints, []
    assert complaints == []


def figures(path: Path) -> dict[str, dict[str, Any]]:
    """Everybody's figures at the end of a trace."""
    found: dict[str, dict[str, Any]] = {}
    for event in read(path)[0]:
        found.setdefault(event.track, {}).update(event.now)
    return found


# --- the page ----------------------------------------------------------------------------------


def test_at_the_end_the_page_shows_what_the_trace_says(
    browser: Browser, shown: Path, trace: Path
) -> None:
    browser.open(shown)
    browser.press("End")
    events = read(trace)[0]
    assert browser.texts("#where")[0].endswith(f"step {len(events)}/{len(events)}")
    connections = {who: had for who, had in figures(trace).items() if who.startswith("#")}
    assert len(connections) == 3
    cards = browser.texts("article")
    for card, (who, had) in zip(cards, connections.items(), strict=True):
        assert f"{who} {had['name']}".strip() in card
        assert ("closed" if had.get("closed") else had["state"]) in card
        assert f"in {had['in']} out {had['out']}" in card
        for name in ("read", "write"):
            assert f"{'●' if name in had['interest'] else '○'} {name}" in card
        for name, words in BARS.items():
            assert f"{words}{had[name]:,} / {had['limits'][name]:,}" in card
        assert (f"held: {had['holds']}" in card) == bool(had["holds"])
    assert any(had["unsent"] > 0 for had in connections.values())


def test_keys_step_by_event_by_turn_and_to_the_ends(browser: Browser, shown: Path) -> None:
    browser.open(shown)

    def at() -> str:
        return browser.texts("#where")[0]

    assert at().startswith("turn 0/")
    browser.press("ArrowDown")
    first = at()
    assert first.startswith("turn 1/")
    assert browser.texts(".caption")[0].startswith("loop · sleep")
    browser.press("ArrowRight", 2)
    browser.press("ArrowLeft")
    assert at() != first and browser.texts(".log .now") and len(browser.texts(".log li")) == 2
    browser.press("ArrowUp")
    assert at() == first
    browser.press("End")
    browser.press("Home")
    assert " step 1/" in at().replace("·", "")


def test_what_has_changed_is_marked_and_nothing_else(browser: Browser, shown: Path) -> None:
    browser.open(shown)
    step = "page.lanes[0].history.steps.findIndex((s) => s.verb === 'recv')"
    browser.evaluate(f"page.go({step} - 1)")
    browser.evaluate(f"page.go({step})")
    assert browser.texts(".caption")[0].startswith("#1 alice · recv")
    marked = browser.evaluate(
        "[...document.querySelectorAll('.cards .new')].map((e) => e.closest('article').textContent)"
    )
    assert marked and all(text.strip().startswith("#1 alice") for text in marked)


def test_a_moment_has_an_address(browser: Browser, shown: Path) -> None:
    browser.open(shown, "#turn=3")
    assert browser.texts("#where")[0].startswith("turn 3/")
    assert browser.texts(".caption")[0].startswith("loop · sleep")
    # The page writes its own address a little later. One that somebody writes meanwhile counts.
    browser.evaluate(
        "const real = setTimeout; let later; window.setTimeout = (call) => { later = call; };"
        " page.go(0); window.setTimeout = real; location.hash = '#turn=2.4'; later()"
    )
    browser.until("document.querySelector('#where').textContent.startsWith('turn 2/')")
    browser.press("ArrowDown")
    browser.until("location.hash === '#turn=3'")
    browser.evaluate("location.hash = '#turn=99999999'")
    browser.until("page.at === page.moments.length - 1")


def test_n_goes_to_the_next_thing_that_concerns_whom_one_follows(
    browser: Browser, shown: Path
) -> None:
    browser.open(shown)
    browser.evaluate("page.follow('#2')")
    seen = set()
    for _ in range(5):
        browser.press("n")
        seen.add(browser.texts(".caption")[0].partition(" · ")[0])
    assert seen == {"#2 bob"}
    browser.press("p")
    assert browser.texts(".caption")[0].startswith("#2 bob · ")


def test_whoever_has_a_keyboard_alone_gets_to_each_card_and_past_it(
    browser: Browser, shown: Path
) -> None:
    browser.open(shown)
    browser.evaluate("document.querySelector('#filter').focus()")
    focused = []
    for _ in range(4):
        browser.call(
            "Input.dispatchKeyEvent", type="rawKeyDown", key="Tab", windowsVirtualKeyCode=9
        )
        focused.append(browser.evaluate("document.activeElement.textContent.trim().slice(0, 2)"))
    assert focused[:3] == ["#1", "#2", "#3"] != focused[1:]
    browser.evaluate("document.querySelector('article').focus()")
    browser.press("Enter")
    assert browser.evaluate("document.querySelector('#follow').value") == "#1"
    browser.press("?")
    assert browser.evaluate("document.querySelector('dialog').open")


def test_it_plays_and_stops(browser: Browser, shown: Path) -> None:
    browser.open(shown)
    browser.evaluate("document.querySelector('#speed').value = 60")
    browser.press(" ")
    browser.evaluate("new Promise((done) => setInterval(() => page.at > 2 && done(), 5))")
    browser.press(" ")
    at = browser.evaluate("page.at")
    browser.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert browser.evaluate("page.at") == at
    assert "▶ play" in browser.texts("nav button")


def test_a_click_on_the_strip_goes_there(browser: Browser, shown: Path) -> None:
    browser.open(shown)
    spot = browser.evaluate(
        "(() => { const { strip, history } = page.lanes[0], at = history.steps.length >> 1;"
        " page.go(at); const step = history.steps[at], box = strip.canvas.getBoundingClientRect();"
        " const y = 17 + strip.row * (strip.rows.indexOf(step.who) + 0.5);"
        " page.go(at - 1); return { x: box.x + strip.x(step.span[1]), y: box.y + y, at }; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        where = {"x": spot["x"], "y": spot["y"], "button": "left", "clickCount": 1}
        browser.call("Input.dispatchMouseEvent", type=kind, **where)
    there = browser.evaluate(
        "(() => { const { strip, history } = page.lanes[0], step = history.steps[page.at];"
        " return strip.canvas.getBoundingClientRect().x + strip.x(step.span[1]); })()"
    )
    assert abs(there - spot["x"]) <= 5  # pixels: steps can be closer to each other than that


def test_whatever_a_trace_says_is_text_and_nothing_else(browser: Browser, directory: Path) -> None:
    hostile = [
        "</script><script>window.bad = 1</script>",
        "<!--<script>",
        "<img src=x onerror=bad>",
    ]
    hostile += ["\u2028", "\x1b]0;x\x07", "\0", "\u202e", "__proto__", "constructor", "\ud800"]
    hostile += ["x" * 600]
    now: dict[str, Any] = {"turn": 1, "part": "sleeping", "woken": hostile}
    events = [Event("loop", "sleep", "", 1.0, 1.0, "", now)]
    for end, text in enumerate(hostile, 2):
        figures: dict[str, Any] = dict.fromkeys(["name", "state", "in", "out", "holds"], text)
        figures |= {"why": [text, text], "timers": {text: 5.0}, "limits": {text: 5, "line": 0}}
        place = f"{text}:{'9' * 5000 if end % 2 else 1} {text}"
        events += [Event(who, text, text, end, None, place, figures) for who in ("#1", text)]
    path = directory / "hostile.html"
    lanes = [Lane(events, hostile[0], hostile[0], 2, hostile[0])] * 2
    path.write_text(page(hostile[0], lanes, hostile[0]), encoding="utf-8")
    browser.open(path)
    browser.evaluate("page.moments.forEach((_, moment) => page.go(moment))")
    step = "page.lanes[0].history.steps.findIndex((s) => s.text.startsWith('<img'))"
    browser.evaluate(f"page.go({step})")
    assert hostile[2] in browser.texts(".caption")[0]
    assert browser.texts(".wrong") == [f"⚠ {hostile[0]}"] * 2
    assert browser.evaluate("window.bad === undefined && document.scripts.length === 2")
    assert browser.evaluate("document.querySelectorAll('img, main script').length") == 0


def test_the_line_that_did_it_is_shown_and_named(browser: Browser, shown: Path) -> None:
    browser.open(shown)
    step = "page.lanes[0].history.steps.findIndex((s) => s.verb === 'recv')"
    browser.evaluate(f"page.go({step})")
    assert browser.texts("figcaption a")[0].startswith("Transport.read, kv/net/transport.py:")
    (line,) = browser.texts("pre .now")
    assert line.strip().startswith("data = self.sock.recv(")


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_overlaps_or_jumps_at_1280_by_720(
    browser: Browser, shown: Path, dark: bool
) -> None:
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.call("Emulation.setEmulatedMedia", features=scheme)
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=1280,
        height=720,
        deviceScaleFactor=1,
        mobile=False,
    )
    browser.open(shown)
    boxes = (
        "[...document.querySelectorAll({!r})].map((e) => e.getBoundingClientRect()).map((b) =>"
        " [b.x, b.y, b.right, b.bottom].map(Math.round))"
    )
    apart = "header, .caption, .loop li, .cards, .log, figure, canvas, footer"
    everything = f"{apart}, article, button, #where"
    before, all_before = (browser.evaluate(boxes.format(what)) for what in (apart, everything))
    for _ in range(12):
        browser.evaluate("page.go(page.at + 97)")
        assert browser.evaluate(boxes.format(everything)) == all_before
    for i, (x, y, right, bottom) in enumerate(before):
        assert 0 <= x < right <= 1280 and 0 <= y < bottom <= 720
        for left, top, end, low in before[:i]:
            assert right <= left or end <= x or bottom <= top or low <= y
    assert browser.evaluate("document.body.scrollHeight") <= 720


def brightness(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of a colour like #12ab9f."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_and_shapes_stand_out_from_what_is_behind_them(scheme: int) -> None:
    found = re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", (HERE / "replay.css").read_text())
    colours = {name: brightness(both[scheme]) for name, *both in found}
    texts = [
        ("ink", "paper", "ground", "now"),
        ("faint", "paper", "ground"),
        ("bad", "paper", "now"),
    ]
    shapes = ["mark", "sleep", "turn", "recv", "send", "open", "seal", "message", "other"]
    pairs = [(front, back, 4.5) for front, *backs in texts for back in backs]
    for front, back, least in [*pairs, *((shape, "paper", 3.0) for shape in shapes)]:
        low, high = sorted((colours[front], colours[back]))
        assert (high + 0.05) / (low + 0.05) >= least, f"{front} on {back}"


# --- much of it --------------------------------------------------------------------------------


def large_trace(directory: Path) -> Path:
    """A trace of 20,000 events, of 300 connections."""
    rng, path, end = random.Random(1), directory / "large.json", 0.0
    known: dict[str, Any] = {"limits": {"line": 511, "lines": 16895, "unsent": 65536}, "in": "OPEN"}
    came = set()
    with open(path, "w") as file:
        writer = Writer(file, pytest.fail)
        for number in range(20_000):
            end += rng.random() * 50
            who = f"#{1 + int(rng.random() ** 2 * 300)}"
            if number % 40 == 0:
                now: dict[str, Any] = {"turn": number // 40 + 1, "part": "sleeping", "woken": [who]}
                writer.write(Event("loop", "sleep", "until somebody comes", end, 9.0, "", now))
                continue
            now = {"unsent": rng.randrange(65536), "lines": rng.randrange(16384)}
            now |= {} if who in came else known
            came.add(who)
            place = "kv/net/reactor.py:200 Reactor.turn"
            text = f"GET 'key{rng.randrange(20_000)}' -> the value"
            writer.write(Event(who, "message", text, end, rng.random() * 9, place, now))
        writer.close()
    return path


def test_20_000_events_are_less_than_2_mb_and_can_be_stepped_through(
    browser: Browser, directory: Path
) -> None:
    large = large_trace(directory)
    path = large.with_suffix(".html")
    path.write_text(page("large", [Lane(read(large)[0])]), encoding="utf-8")
    assert path.stat().st_size < 2_000_000
    browser.open(path)
    for step in (0, 19_999, 7_777):
        browser.evaluate(f"page.go({step})")
        assert browser.texts("#where")[0].endswith(f"step {step + 1}/20000")
        browser.press("ArrowLeft")
        browser.press("ArrowDown")
    assert len(browser.texts("article")) == 24
    assert "and 276 more" in browser.texts(".cards p")[-1]
    browser.evaluate("document.querySelector('#filter').focus()")
    for key in "#29":
        browser.press(key)
    assert len(browser.texts("article")) == 11


# --- made of files -----------------------------------------------------------------------------


def test_replay_writes_one_page_that_needs_nothing_else(trace: Path) -> None:
    done = starts.run("-m", "kv", "replay", str(trace))
    assert (done.returncode, done.stderr) == (0, "")
    assert "<title>" in done.stdout and "http" not in done.stdout.replace("HTTP/1.1", "")
    for word in ("src=", "@import", "url("):
        assert word not in done.stdout


def test_a_trace_without_an_end_says_so(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text(trace.read_text()[:-200])
    done = starts.run("-m", "kv", "replay", str(path))
    assert done.returncode == 0 and '"note":"This trace has no end' in done.stdout


def test_a_page_that_nobody_takes(trace: Path) -> None:
    source, sink = os.pipe()
    os.close(source)
    done = starts.run("-m", "kv", "replay", str(trace), stdout=sink)
    os.close(sink)
    assert (done.returncode, done.stderr) == (0, "")
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            done = starts.run("-m", "kv", "replay", str(trace), stdout=full)
        assert done.returncode == 1
        assert done.stderr == "cannot write the page: No space left on device\n"


def test_a_trace_cannot_make_a_page_of_other_files() -> None:
    places = {
        "/etc/passwd:1 x",
        "../../etc/passwd:1 x",
        "Makefile:1 x",
        "kv/nothing.py:1 x",
        "",
        ":",
    }
    assert sources(places) == {}
    line = inspect.getsourcelines(Reactor.turn)[1] + 3
    ((name, (first, text)),) = sources({f"kv/net/reactor.py:{line} Reactor.turn"}).items()
    assert name == "kv/net/reactor.py Reactor.turn"
    assert first == line - 3 and text.lstrip().startswith(("def ", '"""'))


def test_a_place_is_shown_with_the_innermost_function_around_it() -> None:
    path, (around, start) = "kv/watch/loop.py", inspect.getsourcelines(LoopTaps._in_part)
    inner = next(i for i, line in enumerate(around) if "def called" in line)
    last = max(i for i, line in enumerate(around) if "_trace.settle()" in line)
    called = start + inner, "".join(around[inner : last + 1]).rstrip("\n")
    whole = start, "".join(around).rstrip("\n")
    wanted = {0: whole, inner - 1: whole, inner: called, last: called, last + 1: whole}
    for line, source in wanted.items():
        assert sources({f"{path}:{start + line} x"}) == {f"{path} x": source}
    assert sources({f"{path}:1 x", f"{path}:{start + len(around)} x"}) == {}


def test_a_lane_says_each_word_once_and_each_time_as_a_difference() -> None:
    events = [
        Event("loop", "sleep", "", 10.04, 9.96, "at", {"turn": 1}),
        Event("#1", "recv", "words", 12.14, None, "at", {}),
        Event("#1", "sleep", "words", 14.16, 0.0, "there", {"line": 0}),
    ]
    assert packed(Lane(events, "title", "says", 2, "because")) == {
        "tracks": ["loop", "#1"],
        "verbs": ["sleep", "recv"],
        "texts": ["", "words"],
        "places": ["at", "there"],
        "wrong": 2,
        "because": "because",
        "title": "title",
        "says": "says",
        "steps": [
            [10.0, 10.0, 0, 0, 0, 0, {"turn": 1}],
            [2.1, None, 1, 1, 1, 0, 0],
            [2.1, 0.0, 1, 0, 1, 1, {"line": 0}],
        ],
    }


def test_the_pages_own_parts_can_be_read_in_one_sitting() -> None:
    parts = [HERE / f"replay.{kind}" for kind in ("html", "css", "js")]
    lines = [line for part in parts for line in part.read_text().splitlines()]
    assert len(lines) < 500 and max(map(len, lines)) <= 120


def test_a_page_has_its_data_once(shown: Path, trace: Path) -> None:
    _, _, rest = shown.read_text().partition('<script id="data" type="application/json">')
    data = json.loads(rest.partition("</script>")[0])
    (lane,) = data["lanes"]
    assert len(lane["steps"]) == len(read(trace)[0])
    for name in ("tracks", "verbs", "texts", "places"):
        assert len(set(lane[name])) == len(lane[name])


# --- two lanes ---------------------------------------------------------------------------------


def way(number: int, name: str) -> tuple[Entry, type[Pitfall]]:
    """One way to fall, and its entry."""
    (path,) = (HERE.parents[1] / "tests" / "pitfalls").glob(f"test_{number:02}_*.py")
    entry = Entry.read(path)
    return entry, next(way for way in entry.ways if way.__name__ == name)


def test_both_codes_are_on_one_page_in_step_and_the_wrong_moment_is_marked(
    browser: Browser, directory: Path
) -> None:
    path = directory / "page.html"
    path.write_text(page_of(*way(22, "TestGreedy")), encoding="utf-8")
    browser.open(path)
    assert browser.texts("#note") == [
        "A client has sent 1,000 commands, and another one; the loop turns once."
    ]
    assert browser.evaluate("page.moments.every((all) => all.length === 2)")
    acts = (
        "page.moments.filter((all, m) => m && all.some((at, i) => at !== page.moments[m - 1][i] &&"
        " page.lanes[i].history.steps[at].verb === 'act')).every((all) => all.every((at, i) =>"
        " page.lanes[i].history.steps[at].verb === 'act'))"
    )
    assert browser.evaluate(acts)
    assert browser.texts(".wrong") == ["", ""]
    browser.press("w")
    wrong = "⚠ It goes wrong: one client's commands are all handled before anybody else's"
    assert browser.texts(".wrong") == [wrong, ""]
    naive, here = browser.texts("h2")
    assert naive.startswith("The usual code: 1,000 of") and here.startswith("Our code: ")
    # The polite client has its reply here, and not there.
    cards = browser.texts("article")
    assert "CONNECT 'polite'" in cards[1] and "GET 'k'" in cards[3]


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (2, "TestEndlessLine"),
        (6, "TestShortSend"),
        (7, "TestWriteInterest"),
        (15, "TestIdle"),
        (22, "TestGreedy"),
        (23, "TestLeftOver"),
        (27, "TestNames"),
        (39, "TestUrgent"),
        (52, "TestGoodbye"),
    ],
)
def test_where_it_goes_wrong_is_found_in_what_happened(number: int, name: str) -> None:
    """`make soak` does it for all."""
    _, one = way(number, name)
    pitfall = one()
    assert moment(one.wrong, lane("", pitfall, pitfall.fails).events) is not None
    assert moment(one.wrong, lane("", pitfall, pitfall.holds).events) is None


def test_every_pitfall_has_a_page_or_says_why_not() -> None:
    for entry in gallery():
        for one in entry.ways:
            said = (one.wrong is not None) + ("unseen" in vars(one)) + (not one.naive)
            assert said == 1, f"{entry.path}: {one.__name__}"


def test_the_command_writes_the_pages_that_there_are_and_says_why_there_is_none(
    tmp_path: Path,
) -> None:
    done = starts.run("-m", "pitfalls", "7", "--replay", str(tmp_path / "p.html"))
    assert (done.returncode, done.stderr) == (0, "")
    page, none = done.stdout.splitlines()
    assert page.startswith(f"{tmp_path / 'p.html'}: A client connects, sends its key")
    assert "7. An interest that has nothing to do" in (tmp_path / "p.html").read_text()
    assert none.startswith("No page of this: A socket is paused")
    assert none.endswith("The reason: it watches a socket of its own, which is no connection.")
