"""What a reader wants to see, and the page that shows it."""

import re

import pytest

from .show import show
from .wishes import VERBS, Wish, parse
from .world import run


def first_to_come(seed: int) -> tuple[int, str]:
    """The number of the client that connects first, and a moment soon after that."""
    history: list[str] = []
    run(seed, history)
    found = (re.match(r" *([\d.]+)  \S+ (\d+) +connects", line) for line in history)
    came = next(filter(None, found))
    return int(came[2]), f"{float(came[1]) + 0.0001:.6f}"


def test_wishes_are_read_as_they_are_written() -> None:
    assert parse("reset 3 at 0.5; short-send 2 ;emfile at 1 for 2; stop 4 at 2;") == [
        Wish("reset", 3, 0.5, 1.0),
        Wish("short-send", 2, 0.0, 1.0),
        Wish("emfile", 0, 1.0, 2.0),
        Wish("stop", 4, 2.0, 1.0),
    ]
    assert parse("") == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rest 3 at 1", "'rest 3 at 1': there is no 'rest'; there is reset, "),
        ("reset at 1", "'reset at 1' makes no sense: say it like 'reset 3 at 0.5'"),
        ("emfile 3", "'emfile 3' makes no sense: say it like 'emfile at 0.5 for 2'"),
        ("reset 3 for 2", "'reset 3 for 2' makes no sense"),
        ("reset 0 at 1", "'reset 0 at 1': clients are counted from 1"),
        ("reset 3 at soon", "'reset 3 at soon' makes no sense"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        parse(text)


def test_a_client_that_the_seed_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no client 99: this seed has "):
        show(42, parse("reset 99 at 1"), "")


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_wished_happens_and_the_same_text_is_the_same_history(verb: str) -> None:
    number, moment = first_to_come(42)
    text = f"{verb} {number} at {moment}" if VERBS[verb][0] else f"{verb} at {moment}"
    histories = []
    for _ in range(2):
        history: list[str] = []
        run(42, history, lambda world: [wish.begin(world) for wish in parse(text)])
        histories.append(history)
    without: list[str] = []
    run(42, without)
    assert histories[0] == histories[1] != without
    assert not any(f"so no {verb}" in line for line in histories[0])


def test_the_page_of_a_seed_is_the_same_every_time_and_has_the_kernels_buffers() -> None:
    (one, wrong), (other, _) = (
        show(42, parse("stop {} at {}".format(*first_to_come(42))), "seed 42") for _ in range(2)
    )
    assert one == other and wrong == ""
    assert '"undelivered":' in one and "stops reading" in one and "<title>" in one
