"""The Makefile, in a copy of its own: what it passes on, and the interpreters that it turns down.

Nothing here reaches a package index: a recipe is only shown (`make -n`), or the interpreter is a
stand-in.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from patience import patience

ROOT = Path(__file__).resolve().parent.parent

if shutil.which("make") is None:
    pytest.skip("make is not installed", allow_module_level=True)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory, with a space in its name, that has what a fresh clone has for make."""
    path = tmp_path / "fresh clone"
    path.mkdir()
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, path)
    return path


def make(
    directory: Path, *args: str, env: dict[str, str] | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs make as from a shell, even when these tests were themselves started by make."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS", "GNUMAKEFLAGS"))
    }
    return subprocess.run(
        ["make", *args],
        cwd=directory,
        env=inherited | (env or {}),
        input=typed,
        capture_output=True,
        text=True,
        timeout=patience(3),
    )


def command(directory: Path, *args: str, env: dict[str, str] | None = None) -> list[str]:
    """The words of the last command that `make args` would run, without what wraps it."""
    shown = make(directory, "-n", f"PYTHON={sys.executable}", *args, env=env)
    assert shown.returncode == 0, shown.stderr
    return [word for word in shlex.split(shown.stdout.splitlines()[-1]) if word != "$@"]


STAND_IN = """
import os, shutil, sys
sys.executable = {program!r}
{defect}
words = sys.argv[1:]
if "-c" in words:
    exec(words[words.index("-c") + 1])
elif words[:2] == ["-m", "venv"]:
    print("the chatter of venv", sys.stdin.read())
    os.makedirs(".venv/bin")
    shutil.copy(sys.executable, ".venv/bin/python")
elif words[:2] == ["-m", "pip"]:
    print("the chatter of pip", sys.stdin.read())
    if os.path.exists("no index"):
        sys.exit("no index to be found")
else:
    print(*words[:3], sys.stdin.read())
"""


def interpreter(directory: Path, defect: str = "", name: str = "a python") -> Path:
    """A program that runs `-c` code as this interpreter does, after `defect`, and only plays
    the making of .venv: what is installed there then repeats its arguments and its input."""
    program, code = directory.parent / name, directory.parent / f"{name}.py"
    code.write_text(STAND_IN.format(program=str(program), defect=defect))
    words = f"{shlex.quote(sys.executable)} {shlex.quote(str(code))}"
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    return program


def refusal(directory: Path, python: str | Path) -> str:
    """The one line with which `make run-server` turns `python` down, having made nothing."""
    before = sorted(directory.iterdir())
    done = make(directory, "run-server", f"PYTHON={python}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert sorted(directory.iterdir()) == before
    (line,) = done.stderr.splitlines()
    return line


TARGETS = (
    "help run-server run-client run-service test lint clean"
    " gallery pitfalls ladder demo simulate bench soak fast"
)
VARIABLES = "HOST PORT ID RLWRAP ARGS QUICK SEEDS SEED WITH N STEP START TRY REPLAY PYTHON"


def test_help_is_the_default_target_and_lists_the_others(directory: Path) -> None:
    done = make(directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == make(directory, "help").stdout
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed == set(f"{TARGETS} {VARIABLES}".split())


def test_variables_are_not_taken_from_the_environment(directory: Path) -> None:
    exported = dict.fromkeys(VARIABLES.split()[:-1], "exported")  # of PYTHON, below
    for target in ("run-server", "run-client", "test", "pitfalls", "ladder", "simulate", "bench"):
        assert command(directory, target, env=exported) == command(directory, target)
    shown = make(directory, "-n", "run-server", env={"PYTHON": "/exported/python"})
    assert "/exported/python" not in shown.stdout + shown.stderr


def test_variables_are_taken_from_the_command_line_as_they_were_typed(directory: Path) -> None:
    name = """it's $HOME, $(shell id); `id` & "that" # \\"""
    words = command(
        directory, "run-client", "HOST=::1", "PORT=5000", f"ID={name}", "ARGS=--raw --timeout '3'"
    )
    assert words[5:] == ["--host=::1", "--port=5000", f"--id={name}", "--raw", "--timeout", "3"]


#: What make is told, and the module that it runs, with its arguments.
PROGRAMS = {
    "bench": "tests.bench",
    "bench QUICK=0": "tests.bench",
    "bench QUICK=1": "tests.bench --quick",
    "pitfalls": "tests.pitfalls",
    "pitfalls N=6": "tests.pitfalls 6",
    "pitfalls N=6 'START=my file.py'": "tests.pitfalls 6 '--start=my file.py'",
    "pitfalls N=6 TRY=a.py": "tests.pitfalls 6 --try=a.py",
    "ladder": "tests.ladder",
    "ladder STEP=4": "tests.ladder --step=4",
    "ladder TRY=mine.py": "tests.ladder --try=mine.py",
    "simulate": "tests.simulation --seeds=1000",
    "simulate SEEDS=5 'ARGS=--jobs 2'": "tests.simulation --seeds=5 --jobs 2",
    "simulate SEED=42": "tests.simulation --seed=42",
    "run-server": "kv server --host=127.0.0.1 --port=4242",  # the program's own defaults
    "run-server ID=alice": "kv server --host=127.0.0.1 --port=4242",
    "run-client": "kv client --host=127.0.0.1 --port=4242",
}


@pytest.mark.parametrize("told", PROGRAMS)
def test_a_program_is_run_with_what_make_was_told(directory: Path, told: str) -> None:
    words = ["exec", ".venv/bin/python", "-m", *shlex.split(PROGRAMS[told])]
    assert command(directory, *shlex.split(told)) == words


def test_make_expands_nothing_in_what_was_typed(directory: Path) -> None:
    python = f"PYTHON={interpreter(directory)}"
    for name in ("$(", "$(shell touch expanded)"):
        assert make(directory, "run-client", python, f"ID={name}", f"ARGS='{name}'").returncode == 0
    assert not (directory / "expanded").exists()


def test_an_interpreter_that_is_too_old_is_one_line(directory: Path) -> None:
    old = interpreter(directory, "sys.version_info = (3, 10, 13, 'final', 0)")
    assert "is Python 3.10.13 and 3.11 or newer is needed" in refusal(directory, old)


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_an_interpreter_that_cannot_make_a_venv_is_one_line(directory: Path, module: str) -> None:
    lacking = interpreter(directory, f"sys.modules[{module!r}] = None")
    assert f"lacks the module {module} " in refusal(directory, lacking)


@pytest.mark.parametrize("python", ["/nowhere/python3", "true", "false", ""])
def test_what_is_no_interpreter_is_one_line(directory: Path, python: str) -> None:
    assert f"PYTHON={python} is not a Python that can be run" in refusal(directory, python)


def test_setting_up_leaves_standard_input_and_output_to_the_client(directory: Path) -> None:
    python = interpreter(directory)
    done = make(directory, "run-client", f"PYTHON={python}", typed="GET colour")
    assert (done.returncode, done.stdout) == (0, "-m kv client GET colour\n")
    assert done.stderr.startswith(f"making .venv with {python}\n")


def test_a_venv_is_made_once_and_kept_until_another_interpreter_is_named(directory: Path) -> None:
    first, second = interpreter(directory), interpreter(directory, name="another python")
    assert make(directory, "run-server", f"PYTHON={first}").stderr != ""
    assert make(directory, "run-server", f"PYTHON={first}").stderr == ""
    assert make(directory, "run-server").stderr == ""
    assert f"making .venv with {second}\n" in make(directory, "test", f"PYTHON={second}").stderr
    assert make(directory, "run-server").stderr == ""


@pytest.mark.parametrize("missing", ["made-from", "bin/python"])
def test_a_venv_that_was_left_half_made_is_made_again(directory: Path, missing: str) -> None:
    python = f"PYTHON={interpreter(directory)}"
    make(directory, "run-server", python)
    (directory / ".venv" / missing).unlink()
    (directory / ".venv" / "left over").touch()
    assert "making .venv" in make(directory, "run-server", python).stderr
    assert not (directory / ".venv" / "left over").exists()
    assert make(directory, "run-server", python).stderr == ""


def test_new_requirements_remake_the_venv_with_the_interpreter_that_made_it(
    directory: Path,
) -> None:
    python = interpreter(directory)
    make(directory, "run-server", f"PYTHON={python}")
    with (directory / "requirements.txt").open("a") as requirements:
        requirements.write("another==1\n")
    assert f"making .venv with {python}\n" in make(directory, "run-server").stderr
    assert make(directory, "run-server").stderr == ""


def test_a_package_that_cannot_be_had_leaves_no_venv(directory: Path) -> None:
    (directory / "no index").touch()
    done = make(directory, "run-server", f"PYTHON={interpreter(directory)}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no index to be found\n.venv could not be made\n" in done.stderr
    assert not (directory / ".venv").exists()


def test_an_existing_venv_outlives_an_interpreter_that_is_turned_down(directory: Path) -> None:
    (directory / ".venv").mkdir()
    refusal(directory, "/nowhere/python3")
    assert (directory / ".venv").is_dir()


def test_clean_removes_what_was_made_and_nothing_else(directory: Path) -> None:
    kept = sorted(directory.iterdir())
    for name in (".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", "__pycache__"):
        (directory / name).mkdir()
        (directory / name / "file").touch()
    done = make(directory, "clean")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(directory.iterdir()) == kept
