"""What several processes run is reported as if one had run it, and none can be lost."""

from pathlib import Path

import starts

FILES = {
    "conftest.py": "from workers import *",
    "test_1.py": "def test_good(): pass\ndef test_bad(): assert 1 == 2",
    "test_2.py": "def test_good(): pass\ndef test_other(): pass",
}


def run(directory: Path, *args: str, **files: str) -> tuple[int, str]:
    """Runs pytest there in two processes: its exit status and what it said."""
    for name, code in {**FILES, **files}.items():
        (directory / name).write_text(code)
    path = f"{starts.ROOT / 'tests'}:{starts.ROOT}"
    env = {**starts.os.environ, "PYTHONPATH": path}
    options = ("-p", "no:cacheprovider", "--jobs=2", "-c", "/dev/null", *args)
    done = starts.run("-m", "pytest", *options, ".", cwd=directory, env=env)
    return done.returncode, done.stdout


def test_what_failed_is_told_and_all_are_counted(tmp_path: Path) -> None:
    status, said = run(tmp_path)
    assert status == 1 and "assert 1 == 2" in said and "1 failed, 3 passed" in said


def test_the_first_failure_ends_all_where_that_is_wanted(tmp_path: Path) -> None:
    more = "\n".join(f"def test_{n}(): __import__('time').sleep(0.02)" for n in range(200))
    status, said = run(tmp_path, "-x", **{"test_2.py": more})
    assert status == 1 and "stopping after 1 failures" in said and "201 passed" not in said


def test_a_process_that_ends_is_no_success(tmp_path: Path) -> None:
    deadly = "import os\ndef test_deadly(): os._exit(0)\ndef test_last(): pass"
    status, said = run(tmp_path, **{"test_1.py": deadly})
    assert status == 2 and "has ended" in said


def test_a_test_that_never_ends_fails_and_the_others_run(tmp_path: Path) -> None:
    bound = f"__import__('os').environ['PATIENCE'] = '0.01'\n{FILES['conftest.py']}"
    endless = "def test_endless():\n while True:\n  try: 1 / 0\n  except Exception: pass"
    status, said = run(tmp_path, **{"conftest.py": bound, "test_1.py": endless})
    assert status == 1 and "hangs: interrupted after 0.15 s" in said and "1 failed, 2 pas" in said
