"""Every cell of the ladder's grid is as it says, the red ones too."""

import itertools
import re
from pathlib import Path

import pytest
import starts

from . import picture
from .grid import (
    LEGEND,
    STEPS,
    Cell,
    Step,
    descriptors,
    expected,
    lines_of_code,
    tried,
    tried_by_all,
)
from .server import ROOT
from .troupe import TROUPE, Peer

CELLS = [(step, peer) for step in STEPS for peer in TROUPE]


@pytest.fixture(scope="module")
def grid() -> dict[tuple[int, str], Cell]:
    """What becomes of every step and peer; tried once."""
    return {
        (step.number, peer.name): cell
        for peer, row in tried_by_all([step.program for step in STEPS])
        for step, cell in zip(STEPS, row, strict=True)
    }


@pytest.mark.parametrize(
    ("step", "peer"), CELLS, ids=[f"{step.number}-{peer.name}" for step, peer in CELLS]
)
def test_a_step_and_a_peer_end_as_the_grid_says(
    grid: dict[tuple[int, str], Cell], step: Step, peer: Peer
) -> None:
    cell, word = grid[step.number, peer.name], expected(step)[peer.name]
    if cell.word != word:  # on a busy machine a mistake may need another chance to show: alone
        with descriptors():
            cell = tried(step.program[0], peer, word)
    assert cell.word == word, cell.told


def test_each_step_survives_somebody_whom_the_last_one_did_not() -> None:
    for last, step in itertools.pairwise(STEPS):
        new = [p.name for p in TROUPE if expected(step)[p.name] == "ok" != expected(last)[p.name]]
        assert new or step is STEPS[-1] or step.number == 3, step


def test_the_last_steps_survive_everybody() -> None:
    for step in STEPS[7:]:
        assert set(expected(step).values()) == {"ok"}


def test_the_grid_uses_each_word_that_is_explained_and_no_other() -> None:
    assert {word for step in STEPS for word in expected(step).values()} == set(LEGEND)


def test_a_step_opens_with_two_sentences_and_is_longer_than_the_last() -> None:
    for step in STEPS:
        assert step.path.read_text().startswith('"""')
        assert len(re.findall(r"\.(?: |$)", step.sentences)) == 2, step.sentences
    lengths = [step.length for step in STEPS[:8]]
    assert lengths == sorted(lengths)
    assert STEPS[0].length <= 10 and lengths[-1] <= 150


def test_the_last_step_has_25_lines_at_the_most_with_its_imports() -> None:
    assert lines_of_code(STEPS[8].path.read_text(), imports=True) <= 25


def test_what_counts_as_a_line_of_code() -> None:
    text = '"""What\nit does."""\n\nimport a  # why\nfrom b import (\n    c,\n)\n\n# A comment.\n'
    text += (
        'class D:\n    """Some\n    words."""\n\n    e = """one\ntwo"""\n    f(\n        1\n    )\n'
    )
    assert lines_of_code(text) == 6 and lines_of_code(text, imports=True) == 10


def test_the_course_says_how_long_the_steps_are() -> None:
    course = " ".join((ROOT / "kv/README.md").read_text().split())
    first, eighth, last = (STEPS[index].length for index in (0, 7, 8))
    assert f"The first has {first} lines of code and the eighth {eighth}." in course
    assert f"this project's half for I/O, in {last} lines." in course


def test_the_picture_shows_the_grid() -> None:
    assert picture.PATH.read_text() == picture.draw(), "python -m tests.readme brings it up to date"


def run(*args: str) -> str:
    """What the program prints."""
    done = starts.run("-m", "ladder", *args)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_one_step_is_told_with_its_code_what_it_adds_and_what_it_cannot_do_yet() -> None:
    told = run("--step=2")
    assert STEPS[1].path.read_text() in told
    assert "\n+    threading.Thread(target=serve, args=[client]).start()" in told
    titles = ("It now survives:", "As the last one, it survives:", "It does not survive:")
    now, as_before, not_yet = map(told.index, titles)
    assert now < told.index("one beside:") < as_before < told.index("in pieces:") < not_yet
    assert not_yet < told.index("dies    no descriptors: OSError: [Errno 24] Too many open files")
    assert "pitfall 18: No descriptor is left to accept with" in told


def test_a_program_of_ones_own_is_tried_by_all(tmp_path: Path) -> None:
    path = tmp_path / "my own.py"
    path.write_text("print('listening on port 1')")
    done = starts.run("-m", "ladder", f"--try={path}")
    assert (done.returncode, done.stderr) == (1, "")
    assert "refused" in done.stdout
