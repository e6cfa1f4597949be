"""The page of every pitfall, and how long a page of 20,000 steps takes for one.

`make test` has some of the pitfalls.
"""

import time
from pathlib import Path

import pytest
from browser import PROGRAM, Browser
from pitfalls.gallery import gallery
from pitfalls.lanes import lane
from pitfalls.moments import moment
from pitfalls.pitfall import Pitfall
from test_replay import large_trace

from kv.watch.events import read
from kv.watch.replay import Lane, page

WAYS = [way for entry in gallery() for way in entry.ways if way.wrong is not None]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.__module__}.{way.__name__}")
def test_where_it_goes_wrong_is_found_with_the_usual_code_and_not_with_ours(
    way: type[Pitfall],
) -> None:
    pitfall = way()
    usual, here = lane("", pitfall, pitfall.fails), lane("", pitfall, pitfall.holds)
    assert usual.events and here.events
    assert moment(way.wrong, usual.events) is not None
    assert moment(way.wrong, here.events) is None


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
def test_a_step_of_a_large_page_takes_less_than_50_ms(tmp_path: Path) -> None:
    trace, path = large_trace(tmp_path), tmp_path / "page.html"
    path.write_text(page("large", [Lane(read(trace)[0])]), encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        browser.open(path)
        taken = []
        for start in range(0, 20_000, 200):
            browser.evaluate(f"page.go({start})")
            before = time.perf_counter()
            browser.evaluate("page.go(page.at + 1); document.body.getBoundingClientRect().width")
            taken.append(1000 * (time.perf_counter() - before))
    taken.sort()
    print(f"a step of 20,000: {taken[50]:.1f} ms in the median, {taken[98]:.1f} ms at most")
    assert taken[50] < 50, taken
