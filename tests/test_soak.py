"""What `make soak` runs can still be run; how it ends is for those who have the time."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

from tests.soak.__main__ import CHECKS, NEED_PROC
from tests.soak.check import QUICK

#: Of everything as little as shows that it works.
TINY = replace(QUICK, patterns=1, slow=5, deadline=0.2, churn=28, damaged=100, unseen=20, seeds=2)


def test_the_soak_is_found() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-o", "python_files=soak_*.py"]
    done = subprocess.run([*command, "tests/soak"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("::test_") > 10


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_finds_figures_and_nothing_wrong(name: str) -> None:
    if name in NEED_PROC and not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    said: list[str] = []
    figures = CHECKS[name][1](TINY, said.append)
    assert said and figures
    # How long anything took is not asserted: this machine may be doing something else.
    assert [figure for figure in figures if not figure.ok and not figure.timed] == []
