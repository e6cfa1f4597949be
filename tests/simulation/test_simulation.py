"""A few hundred worlds, and what makes a seed worth keeping: it is one history, everywhere."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from patience import patience

from . import __main__ as command
from .kernel import DEAD, EXHAUSTED
from .test_mistakes import MISTAKES
from .world import run

ROOT = Path(__file__).resolve().parents[2]

#: What a hundred worlds must have met between them: a simulator that stops making one of these
#: happen would go on saying that all is well.
EVENTS = (
    *(f"accept fails: {name}" for name in (*DEAD, *EXHAUSTED)),
    "recv would block",
    "send would block",
    "spurious readiness",
    "that batch had an event for a closed socket",
    "resets the connection",
    "vanishes",
    "is lost: ECONNRESET",
    "is lost: ETIMEDOUT",
    "close: RST follows",
    "no CONNECT: OK within",
    "no message for",
    "took none of its replies",
    "a line of more than",
    "accept connections: Too many open files",
    "is answered 'PUT: ERROR'",
    "is answered 'CONNECT: ERROR'",
    "is answered 'GET: ERROR'",
    "'DISCONNECT' is answered 'PUT: OK'",
)


def test_everything_that_can_go_wrong_does() -> None:
    trace: list[str] = []
    missing = list(EVENTS)
    for seed in range(1558, 1858):
        run(seed, trace)
        text = "\n".join(trace)
        trace.clear()
        missing = [event for event in missing if event not in text]
        if not missing:
            return
    pytest.fail(f"300 worlds without {missing}")


def test_nothing_goes_wrong_in_any_world_and_most_clients_hear_every_reply() -> None:
    worlds = [run(seed) for seed in range(200)]  # any that goes wrong raises
    clients = sum(world.clients for world in worlds)
    assert sum(world.undisturbed for world in worlds) > clients / 2


def test_a_seed_is_one_history_in_every_process() -> None:
    program = (
        "import hashlib; from tests.simulation.world import run; trace = [];"
        " [run(seed, trace) for seed in range(8)];"
        " print(hashlib.sha256('\\n'.join(trace).encode()).hexdigest(), len(trace))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=patience(6),
        ).stdout
        for hash_seed in ("1", "2")
    }
    trace: list[str] = []
    for seed in range(8):
        run(seed, trace)
    digest = hashlib.sha256("\n".join(trace).encode()).hexdigest()
    assert said == {f"{digest} {len(trace)}\n"}


def test_what_came_before_and_being_watched_change_nothing() -> None:
    first = [run(seed) for seed in (5, 6, 7)]
    assert [run(seed, []) for seed in (7, 6, 5)] == first[::-1]


def test_a_failure_is_shown_with_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation", "--seeds", "300"])
    with MISTAKES["spin_when_out_of_descriptors"]:
        assert command.main() == 1
        (said,) = re.findall(r"make simulate SEED=(\d+)$", capsys.readouterr().out, re.M)
        monkeypatch.setattr(sys, "argv", ["simulation", "--seed", said])
        assert command.main() == 1
    shown = capsys.readouterr()
    assert re.search(r"^ +\d+\.\d{6}  listener +accept fails: E\w+$", shown.out, re.M)
    assert re.search(r"Failure: .*$", shown.err)


def test_the_figures_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation", "--seeds", "4", "--start", "10"])
    assert command.main() == 0
    assert re.match(
        r"4 seeds, \d+\.\d\d simulated hours, \d+ steps, \d+ seeds/s, \d+ steps/s; ",
        capsys.readouterr().out,
    )


def test_one_seed_is_shown_with_what_happened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation", "--seed", "10"])
    assert command.main() == 0
    *trace, figures = capsys.readouterr().out.splitlines()
    assert len(trace) > 10
    assert all(re.match(r" *\d+\.\d{6}  \S", line) for line in trace)
    assert re.match(r"1 seeds, \d+\.\d\d simulated hours, \d+ steps; ", figures)
