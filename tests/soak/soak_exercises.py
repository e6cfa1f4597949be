"""Every exercise, with the usual code and with ours; `make test` leaves out what takes long."""

from pathlib import Path

from pitfalls.exercise import attempt, load, start
from pitfalls.pitfall import Pitfall
from pitfalls.test_exercise import ENTRIES, each, refused, solution


@each()
def test_the_file_to_begin_with_is_refused_and_ours_is_not(
    way: type[Pitfall], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(start(ENTRIES[way]))
    assert refused(way, file).startswith("False")
    file.write_text(solution(way))
    holds, told = attempt(way, load(file))
    assert holds, told
