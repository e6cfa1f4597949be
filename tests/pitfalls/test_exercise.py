"""The exercises mark themselves: the usual code is refused, and ours passes by the same door."""

import inspect
import subprocess
import textwrap
from pathlib import Path
from pkgutil import resolve_name

import pytest
import starts
from patience import patience

from .exercise import attempt, load, start, wanted, ways
from .gallery import gallery
from .pitfall import Pitfall

ENTRIES = {way: entry for entry in gallery() for way in ways(entry)}
EACH_WAY = pytest.mark.parametrize(
    "way", ENTRIES, ids=[f"{entry.number}-{way.__name__}" for way, entry in ENTRIES.items()]
)

#: The name, in the learner's file, of what is to be bettered about pitfall 6.
(OWN,) = (own for way in ENTRIES if ENTRIES[way].number == 6 for own in wanted(way).values())


@EACH_WAY
def test_the_file_to_begin_with_is_refused(way: type[Pitfall], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(start(ENTRIES[way]))
    if way.alone:
        assert in_a_new_process(way, file).startswith("(False, ")
        return
    holds, told = attempt(way, load(file), way.patience)
    assert not holds and told
    assert "NameError" not in told and "the file has no" not in told, told


def in_a_new_process(way: type[Pitfall], file: Path) -> str:
    """What `attempt` returns there."""
    code = (
        "from pathlib import Path\nfrom tests.pitfalls.exercise import attempt, load\n"
        f"from tests.{way.__module__} import {way.__name__} as way\n"
        f"print(attempt(way, load(Path({str(file)!r})), way.patience))"
    )
    done = starts.run("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def solution(way: type[Pitfall]) -> str:
    """Our own code under the names that the exercise wants, in a file that stands alone."""
    parts = []
    for name, own in wanted(way).items():
        ours = resolve_name(name)
        if inspect.isfunction(ours) and ours.__module__.startswith("kv."):
            parts.append(f"import {ours.__module__} as house")
            parts.append(
                "globals().update({k: v for k, v in vars(house).items() if k[:2] != '__'})"
            )
            source = textwrap.dedent(inspect.getsource(ours))
            parts.append(f"{source}\n{own} = {ours.__name__}")
        else:
            parts.append(f"import pkgutil\n{own} = pkgutil.resolve_name({name!r})")
    return "\n\n".join(parts)


@EACH_WAY
def test_our_own_code_holds(way: type[Pitfall], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(solution(way))
    holds, told = attempt(way, load(file), patience(2))
    assert holds, told


def make_pitfalls(*args: str) -> subprocess.CompletedProcess[str]:
    """The program behind the target."""
    return starts.run("-m", "tests.pitfalls", *args)


def test_an_attempt_that_raises_is_told_where(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"def {OWN}(self):\n    self.nothing.such()\n")
    done = make_pitfalls("6", f"--try={file}")
    assert (done.returncode, done.stderr) == (1, "")
    told = " ".join(done.stdout.split())
    assert "=> does not hold: " in told
    assert "has no attribute 'nothing' (line 2 of the file: self.nothing.such())" in told


def test_a_file_that_lacks_the_function_or_is_no_python_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("")
    assert f"does not hold: the file has no `{OWN}`" in make_pitfalls("6", f"--try={file}").stdout
    file.write_text("def (self:\n")
    done = make_pitfalls("6", f"--try={file}")
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr and "Traceback" not in done.stderr


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    done = make_pitfalls("6", f"--start={file}")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"make pitfalls N=6 TRY={file}" in done.stdout
    written = file.read_text()
    done = make_pitfalls("6", f"--start={file}")
    assert (done.returncode, done.stderr) == (1, f"{file}: File exists\n")
    assert file.read_text() == written


def test_a_pitfall_has_to_be_named(tmp_path: Path) -> None:
    done = make_pitfalls(f"--start={tmp_path / 'mine.py'}")
    assert done.returncode == 2 and "Name it with N=" in done.stderr
