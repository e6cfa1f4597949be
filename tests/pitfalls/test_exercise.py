"""The exercises mark themselves: the usual code is refused, and ours passes by the same door."""

import builtins
import dis
import inspect
import re
import subprocess
import textwrap
from pathlib import Path
from pkgutil import resolve_name
from types import CodeType

import pytest
import starts
from patience import patience

from .exercise import attempt, load, start, wanted, ways
from .gallery import gallery
from .pitfall import Pitfall

ENTRIES = {way: entry for entry in gallery() for way in ways(entry)}
#: Those whose scenarios take longest.
SLOW = {9, 38, 40, 46}


def each(*left_out: int) -> pytest.MarkDecorator:
    """Runs a test with each way to fall, but for those of some pitfalls."""
    some = {way: entry.number for way, entry in ENTRIES.items() if entry.number not in left_out}
    names = [f"{number}-{way.__name__}" for way, number in some.items()]
    return pytest.mark.parametrize("way", some, ids=names)


#: The name, in the learner's file, of what is to be bettered about pitfall 6.
(OWN,) = (own for way in ENTRIES if ENTRIES[way].number == 6 for own in wanted(way).values())


@each()
def test_the_file_to_begin_with_has_what_is_usually_written(
    way: type[Pitfall], tmp_path: Path
) -> None:
    """The gallery runs the same code; the soak runs this."""
    file = tmp_path / "mine.py"
    file.write_text(start(ENTRIES[way], file))
    module = load(file)
    for name, own in wanted(way).items():
        mine, usual = getattr(module, own), way.naive[name]
        if inspect.isfunction(usual):
            assert outline(mine.__code__) == outline(usual.__code__)
            assert globals_of(mine.__code__) <= {*vars(module), *vars(builtins)}
        else:
            assert type(mine) is type(usual)
            assert mine == usual or type(usual).__eq__ is object.__eq__


def inner(code: CodeType) -> list[CodeType]:
    """The code of the functions within."""
    return [const for const in code.co_consts if isinstance(const, CodeType)]


def outline(code: CodeType) -> tuple[object, ...]:
    """What a function does, wherever it stands."""
    values = [const for const in code.co_consts if not isinstance(const, CodeType)]
    return code.co_code, code.co_names, values, [outline(each) for each in inner(code)]


def globals_of(code: CodeType) -> set[str]:
    """The names of other things that it uses."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    return own.union(*map(globals_of, inner(code)))


def test_the_file_to_begin_with_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for way, entry in ENTRIES.items():
        if entry.number in (6, 22, 36) or way.alone:
            file.write_text(start(entry, file))
            assert refused(way, file).startswith("False ")


def refused(way: type[Pitfall], file: Path) -> str:
    """Whether the code in the file holds, and what happened."""
    if way.alone:
        code = (
            "from pathlib import Path\nfrom tests.pitfalls.exercise import attempt, load\n"
            f"from tests.{way.__module__} import {way.__name__} as way\n"
            f"print(*attempt(way, load(Path({str(file)!r})), way.patience))"
        )
        done = starts.run("-c", code, afresh=True)
        assert done.returncode == 0, done.stderr
        told = done.stdout
    else:
        told = " ".join(map(str, attempt(way, load(file), way.patience)))
    assert "NameError" not in told and "the file has no" not in told, told
    return told


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


@each(*SLOW)
def test_our_own_code_holds(way: type[Pitfall], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(solution(way))
    holds, told = attempt(way, load(file), patience(2))
    assert holds, told


def make_pitfalls(*args: str) -> subprocess.CompletedProcess[str]:
    """The program behind the target."""
    return starts.run("-m", "pitfalls", *args)


def test_an_attempt_that_raises_is_told_where(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"def {OWN}(self):\n    self.nothing.such()\n")
    done = make_pitfalls("6", f"--try={file}")
    assert (done.returncode, done.stderr) == (1, "")
    told = " ".join(done.stdout.split())
    assert "=> does not hold: " in told
    assert "has no attribute 'nothing' (line 2 of the file: self.nothing.such())" in told


def test_an_attempt_that_hangs_is_told_where(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"def {OWN}(self):\n    while True:\n        pass\n")
    (way,) = ways(next(entry for entry in gallery() if entry.number == 6))
    told = attempt(way, load(file), 0.5)[1]
    assert re.fullmatch(rf"hangs in {OWN} \(line [23] of the file\): interrupted .*", told), told


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
    assert f"#     make pitfalls N=6 TRY={file}\n" in written
    done = make_pitfalls("6", f"--start={file}")
    assert (done.returncode, done.stderr) == (1, f"{file}: File exists\n")
    assert file.read_text() == written


def test_a_pitfall_has_to_be_named(tmp_path: Path) -> None:
    done = make_pitfalls(f"--start={tmp_path / 'mine.py'}")
    assert done.returncode == 2 and "Name it with N=" in done.stderr
