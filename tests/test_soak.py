"""What `make soak` runs can still be run; how it ends is for those who have the time."""

import subprocess
import sys

from conftest import ROOT


def test_the_soak_is_found() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-o", "python_files=soak_*.py"]
    done = subprocess.run([*command, "tests/soak"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("::test_") > 10
